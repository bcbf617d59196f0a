"""Probe accuracy and rank by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from analysis.estimates.curves import Panel
from analysis.page.figures.style import GRID, INK, figure, label_below
from analysis.tables.variables import Array


def curve_panel(
    axes: Axes, layer_L: Array, id_L: Array | None, ood: Sequence[tuple[str, Array]], *, start: float | None, title: str
) -> None:
    """One backbone's probe accuracies by layer, ID against OOD, with its tunnel shaded."""
    if start is not None:
        axes.axvspan(start, layer_L[-1], color="#f3d9a4", alpha=0.55, linewidth=0)
        axes.text(
            (start + layer_L[-1]) / 2, 0.015, "tunnel", transform=axes.get_xaxis_transform(), ha="center", va="bottom",
            fontsize=7.5, color="#7a5200",
        )  # fmt: skip
    if id_L is not None:
        axes.plot(layer_L, 100 * id_L, color=INK, linewidth=2.0, label="ID")
    for (name, values_L), (color, dash) in zip(ood, _lines(), strict=False):
        axes.plot(
            layer_L, 100 * values_L, color=color, linestyle=dash, linewidth=1.4, marker="o", markersize=2.2, label=name
        )
    axes.set_title(title, fontsize=8.2, fontweight="normal")
    axes.grid(color=GRID, linewidth=0.5)
    axes.tick_params(labelsize=7.5)
    axes.set_ylim(0, 104)


def _lines() -> list[tuple[str, Any]]:
    colors = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7f7f7f"]
    return [(color, dash) for dash in ("-", (0, (4, 1.5)), (0, (1, 1))) for color in colors]


def layer_curves(panels: Sequence[Panel]) -> Figure:
    """Panels of :func:`curve_panel` on common axes, with one legend."""
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    made, grid = figure(1.2 + 3.1 * columns, 0.9 + 2.35 * rows, nrows=rows, ncols=columns, sharey=True, squeeze=False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        curve_panel(axes, panel.layer, panel.id, panel.ood, start=panel.start, title=panel.title)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    label_below(grid, len(panels), "layer (the last is the one before the classifier)")
    made.supylabel("probe accuracy, %", fontsize=9, color=INK)
    handles: dict[str, Any] = {}
    for axes in grid.flat[: len(panels)]:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(name, handle)
    made.legend(
        list(handles.values()),
        list(handles),
        loc="outside upper center",
        ncols=min(len(handles), 6),
        fontsize=8,
        frameon=False,
    )
    return made


def rank_curves(panels: Sequence[Panel]) -> Figure:
    """Numerical rank of the ID embeddings by relative depth, one line per panel of :func:`layer_curves`."""
    made, axes = figure(7.8, 3.9)
    for panel, (color, dash) in zip(panels, _lines(), strict=False):
        position_L = (panel.layer - 1) / max(len(panel.layer) - 1, 1)
        name = panel.name
        axes.plot(position_L, panel.rank, color=color, linestyle=dash, linewidth=1.5, label=name)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(ScalarFormatter())
    axes.set_xlabel("position in the network (0: first probed layer, 1: last)")
    axes.set_ylabel("numerical rank")
    axes.grid(color=GRID, linewidth=0.5)
    made.legend(loc="outside right center", fontsize=7, frameon=False)
    return made
