"""Figures of the tunnel along ID training: metrics against epoch, and layer curves of each epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from analysis.page.figures.style import GRID, MAP, MUTED, figure, label_below
from analysis.tables.epochs import EPOCH, Emergence

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7f7f7f", "#000000")
DIAMOND: Mapping[str, Any] = {"linestyle": "", "marker": "D", "markersize": 5.5, "markerfacecolor": "white"}
MOST_LINES, MOST_PANELS = len(COLORS), 4
PANELS = (
    ("retained", "OOD accuracy retained, %", 1.0),
    ("pearson", "ID–OOD Pearson correlation", 1.0),
    ("alignment", "ID/OOD alignment", 1.0),
    ("id_start", "first layer with 95 % of final ID accuracy\n(0: first layer, 1: last)", 1.0),
    ("backbone_top1", "the backbone's own ID test accuracy, %", 100.0),
)


def draw(emergence: Emergence) -> tuple[dict[str, Figure], str]:
    """Both figures by name, and what of the first one stands in a caption."""
    points = emergence.points
    drawn = {"emergence": metrics_by_epoch(points), "emergence_layers": layers_by_epoch(points, emergence.layers)}
    configurations, most = points["configuration"].nunique(), int(points["n_backbones"].max())
    words = f"; bands reach from the lowest to the highest of up to {most} replicates" if most > 1 else ""
    if configurations > MOST_LINES:
        words += f"; {MOST_LINES} of {configurations} configurations, evenly from the strongest tunnel to the weakest"
    return drawn, words


def chosen(points: pd.DataFrame, most: int) -> list[str]:
    """At most so many configurations, evenly from the strongest tunnel at the last epoch to the weakest."""
    along = points[~points["kept"]].sort_values(EPOCH)
    names = list(along.groupby("configuration")["retained"].last().sort_values().index)
    return names if len(names) <= most else [names[i] for i in np.linspace(0, len(names) - 1, most).round().astype(int)]


def metrics_by_epoch(points: pd.DataFrame) -> Figure:
    """Each metric against the epoch, a line per configuration; diamonds: kept checkpoints, bands reach over replicates.

    Parameters
    ----------
    points : see :class:`analysis.emergence.Emergence`.
    """
    shown = [panel for panel in PANELS if points[panel[0]].notna().any()]
    names = chosen(points, MOST_LINES)
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    made, grid = figure(1.0 + 3.2 * columns, 1.0 + 2.5 * rows, nrows=rows, ncols=columns, squeeze=False)
    for axes, (metric, text, factor) in zip(grid.flat, shown, strict=False):
        for name, color in zip(names, COLORS, strict=False):
            _line(axes, points[points["configuration"] == name], metric, factor, color, name)
        axes.set_title(text, fontsize=8.5, fontweight="normal")
        axes.grid(color=GRID, linewidth=0.5)
        axes.tick_params(labelsize=8)
        _epoch_axis(axes, points[EPOCH])
    for axes in grid.flat[len(shown) :]:
        axes.set_visible(False)
    label_below(grid, len(shown), "epochs of ID training (0: initial weights)")
    handles, labels = grid.flat[0].get_legend_handles_labels()
    if points["kept"].any():
        (diamond,) = grid.flat[0].plot([], [], color=MUTED, **DIAMOND)
        handles, labels = [*handles, diamond], [*labels, "kept checkpoint"]
    made.legend(handles, labels, loc="outside upper center", ncols=min(len(handles), 3), fontsize=8, frameon=False)
    return made


def _line(axes: Axes, points: pd.DataFrame, metric: str, factor: float, color: str, name: str) -> None:
    along, kept = points[~points["kept"]].sort_values(EPOCH), points[points["kept"]]
    axes.plot(along[EPOCH], factor * along[metric], color=color, linewidth=1.5, marker="o", markersize=3, label=name)
    if (along["n_backbones"] > 1).any():
        low, high = factor * along[f"{metric}_low"], factor * along[f"{metric}_high"]
        axes.fill_between(along[EPOCH], low, high, color=color, alpha=0.14, linewidth=0)
    axes.plot(
        kept[EPOCH],
        factor * kept[metric],
        linestyle="",
        marker="D",
        markersize=5.5,
        markerfacecolor="white",
        color=color,
    )


def _epoch_axis(axes: Axes, epochs: pd.Series) -> None:
    """Logarithmic but for 0, since much happens early; ticks at the epochs themselves where they do not collide."""
    axes.set_xscale("symlog", linthresh=1, linscale=0.6)
    ticks: list[int] = []
    for epoch in sorted(set(epochs), reverse=True):
        if not ticks or np.log2(1 + ticks[-1]) - np.log2(1 + epoch) > 0.4:
            ticks.append(int(epoch))
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())


def layers_by_epoch(points: pd.DataFrame, layers: pd.DataFrame) -> Figure:
    """Probe accuracy by layer, one line per epoch: above on the ID dataset, below the mean of the OOD datasets.

    Parameters
    ----------
    points, layers : see :class:`analysis.emergence.Emergence`.
    """
    names = chosen(points, MOST_PANELS)
    epochs = sorted(set(layers[EPOCH]))
    colors = matplotlib.colormaps[MAP](np.linspace(0.95, 0, len(epochs)))  # early is light, late is dark
    made, grid = figure(
        1.6 + 2.6 * len(names), 5.4, nrows=2, ncols=len(names), squeeze=False, sharex="col", sharey="row"
    )
    for (is_id, text), line in zip(((True, "ID"), (False, "OOD, mean")), grid, strict=True):
        for name, axes in zip(names, line, strict=True):
            own = layers[(layers["configuration"] == name) & (layers["is_id"] == is_id)]
            _curves(axes, own, epochs, colors)
            axes.grid(color=GRID, linewidth=0.5)
            axes.tick_params(labelsize=7.5)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            if is_id:
                axes.set_title(_wrapped(name), fontsize=8.2, fontweight="normal")
        line[0].set_ylabel(f"{text}: probe accuracy, %", fontsize=8.5)
    label_below(grid, grid.size, "layer (the last is the one before the classifier)")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    made.legend(handles, labels, title="epoch", loc="outside right center", fontsize=8, frameon=False)
    return made


def _curves(axes: Axes, layers: pd.DataFrame, epochs: Sequence[int], colors: np.ndarray) -> None:
    for epoch, color in zip(epochs, colors, strict=True):
        own = layers[layers[EPOCH] == epoch].sort_values("layer")
        axes.plot(own["layer"], 100 * own["accuracy"], color=color, linewidth=1.5, label=str(epoch))


def _wrapped(name: str) -> str:
    """A configuration's name over two lines, broken at the comma nearest to its middle."""
    commas = [i for i, letter in enumerate(name) if letter == ","]
    middle = min(commas, key=lambda i: abs(i - len(name) / 2), default=None)
    return name if middle is None or len(name) < 30 else f"{name[: middle + 1]}\n{name[middle + 2 :]}"
