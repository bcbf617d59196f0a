"""Plots of slopes and SHAP values. They fit nothing: numbers in, figure out."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import ScalarFormatter

from analysis.design import Array

INK, MUTED, GRID = "#1f2933", "#697586", "#d9dee5"
UP, DOWN, UNSURE = "#0072b2", "#d55e00", "#9aa5b1"  # Okabe-Ito blue and vermilion; grey: the interval includes zero
STYLE: Mapping[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": INK,
    "svg.hashsalt": "tunnel-sweep",  # the same numbers give the same bytes
    "svg.fonttype": "path",
    "figure.facecolor": "white",
}
MAP = "cividis"
CHARACTERS_PER_INCH = 20  # of the small print


def figure(width: float, height: float, **subplots: Any) -> tuple[Figure, Any]:
    """A figure in the house style with its axes; no global state of matplotlib is touched."""
    with matplotlib.rc_context(dict(STYLE)):
        made = Figure(figsize=(width, height), layout="constrained")
        return made, made.subplots(**subplots)


def sign(made: Figure, text: str) -> None:
    """Write in small print below a figure what it rests on, since figures leave the page that says so."""
    width, height = made.get_size_inches()
    lines = textwrap.wrap(text, round(CHARACTERS_PER_INCH * width))
    strip = 0.07 + 0.12 * len(lines)
    total = height + strip
    made.set_size_inches(width, total)
    engine = made.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.set(rect=(0, strip / total, 1, height / total))
    made.text(0.06 / width, 0.05 / total, "\n".join(lines), fontsize=6.5, color=MUTED, va="bottom")


def label_below(grid: Any, shown: int, text: str) -> None:
    """One label for the horizontal axes of a grid of panels: below the middle one of its last row."""
    columns = grid.shape[1]
    last_row = grid.flat[(shown - 1) // columns * columns : shown]
    last_row[(len(last_row) - 1) // 2].set_xlabel(text, fontsize=9, color=INK)


def save(made: Figure, kind: str) -> bytes:
    """The figure as ``png`` or ``svg`` bytes, without a date in it."""
    sink = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with matplotlib.rc_context(dict(STYLE)):
        made.savefig(sink, format=kind, dpi=150, metadata=metadata)
    made.set_layout_engine("none")  # every further format keeps the layout that the first was given
    return sink.getvalue()


def slope_bars(rows: Sequence[Mapping[str, Any]], *, unit: str) -> Figure:
    """Horizontal bars of SHAP slopes with intervals, longest first.

    Parameters
    ----------
    rows : label, from, to, slope, sure, and low, high, low_with_datasets, high_with_datasets (None where there is no
        interval), in printed units.
    """
    ordered = sorted(rows, key=lambda row: abs(row["slope"]))
    made, axes = figure(7.6, 0.9 + 0.46 * max(len(ordered), 2))
    for y, row in enumerate(ordered):
        known = row["low"] is not None
        color = UNSURE if not row["sure"] else UP if row["slope"] > 0 else DOWN
        axes.barh(y, row["slope"], color=color, height=0.62)
        if row["low_with_datasets"] is not None:
            axes.plot([row["low_with_datasets"], row["high_with_datasets"]], [y, y], color=INK, linewidth=0.7)
        if known:
            axes.plot([row["low"], row["high"]], [y, y], color=INK, linewidth=2.2, solid_capstyle="butt")
    axes.set_yticks(
        range(len(ordered)), [f"{row['label']}\n{row['from']} → {row['to']}" for row in ordered], fontsize=8.5
    )
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.grid(axis="x", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel("SHAP slope: change from the lowest to the highest value" + (f" ({unit})" if unit else ""))
    return made


def beeswarm(
    labels: Sequence[str], code_PV: Array, shap_PV: Array, count_P: Array, *, unit: str, seed: int = 0
) -> Figure:
    """SHAP value of every experiment and variable; colour is the variable's value, low to high.

    Design points are repeated by their experiments, at most 40 dots each.
    """
    rng = np.random.default_rng(seed)
    rows_N = np.repeat(np.arange(len(count_P)), np.minimum(count_P, 40).astype(int))
    if len(rows_N) > 3000:
        rows_N = rng.choice(rows_N, 3000, replace=False)
    order = np.argsort(np.abs(shap_PV[rows_N]).mean(0))
    made, axes = figure(7.6, 1.3 + 0.46 * max(len(labels), 2))
    shown = None
    for y, v in enumerate(order):
        x_N = shap_PV[rows_N, v]
        shown = axes.scatter(
            x_N, y + _spread(x_N, rng), c=code_PV[rows_N, v], cmap=MAP, vmin=0, vmax=1, s=7, linewidths=0,
            plotnonfinite=True, rasterized=True,
        )  # fmt: skip
    axes.set_yticks(range(len(labels)), [labels[v] for v in order], fontsize=9)
    axes.set_ylim(-0.6, len(labels) - 0.4)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel("SHAP value of an experiment" + (f" ({unit})" if unit else ""))
    if shown is not None:
        bar = made.colorbar(shown, ax=axes, aspect=30, pad=0.02, ticks=[0, 1])
        bar.ax.set_yticklabels(["low", "high"], fontsize=8)
        bar.outline.set_visible(False)
    return made


def _spread(x_N: Array, rng: np.random.Generator) -> Array:
    """Vertical jitter that is wider where dots are denser."""
    if len(x_N) == 0 or np.ptp(x_N) == 0:
        return rng.uniform(-0.3, 0.3, len(x_N))
    bins_N = np.digitize(x_N, np.linspace(x_N.min(), x_N.max(), 40))
    share_N = np.bincount(bins_N)[bins_N] / np.bincount(bins_N).max()
    jitter: Array = rng.uniform(-0.36, 0.36, len(x_N)) * share_N
    return jitter


def curve_panel(
    axes: Axes, layer_L: Array, id_L: Array | None, ood: Sequence[tuple[str, Array]], *, start: int | None, title: str
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


def layer_curves(panels: Sequence[Mapping[str, Any]]) -> Figure:
    """Panels of :func:`curve_panel` on common axes, with one legend."""
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    made, grid = figure(1.2 + 3.1 * columns, 0.9 + 2.35 * rows, nrows=rows, ncols=columns, sharey=True, squeeze=False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        curve_panel(axes, panel["layer"], panel["id"], panel["ood"], start=panel["start"], title=panel["title"])
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


def rank_curves(panels: Sequence[Mapping[str, Any]]) -> Figure:
    """Numerical rank of the ID embeddings by relative depth, one line per panel of :func:`layer_curves`."""
    made, axes = figure(7.8, 3.9)
    for panel, (color, dash) in zip(panels, _lines(), strict=False):
        position_L = (panel["layer"] - 1) / max(len(panel["layer"]) - 1, 1)
        name = panel["name"]
        axes.plot(position_L, panel["rank"], color=color, linestyle=dash, linewidth=1.5, label=name)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(ScalarFormatter())
    axes.set_xlabel("position in the network (0: first probed layer, 1: last)")
    axes.set_ylabel("numerical rank")
    axes.grid(color=GRID, linewidth=0.5)
    made.legend(loc="outside right center", fontsize=7, frameon=False)
    return made


def heat_map(labels: Sequence[str], values_VV: Array, *, diverging: bool, text: str) -> Figure:
    """Square matrix with its values written in: correlations (−1 … 1) or strengths (0 …)."""
    n = len(labels)
    made, axes = figure(2.6 + 0.72 * n, 1.9 + 0.62 * n)
    high = 1.0 if diverging else max(float(np.nanmax(np.abs(values_VV), initial=0.0)), 1e-12)
    image = axes.imshow(values_VV, cmap="RdBu" if diverging else "Blues", vmin=-high if diverging else 0, vmax=high)
    for row in range(n):
        for column in range(n):
            value = values_VV[row, column]
            if np.isfinite(value):
                color = "white" if abs(value) > 0.62 * high else INK
                axes.text(
                    column,
                    row,
                    f"{value:.2f}".replace("-0.00", "0.00") if diverging else _short(value),
                    ha="center",
                    va="center",
                    fontsize=8,
                    color=color,
                )
    axes.set_xticks(range(n), labels, rotation=38, ha="right", rotation_mode="anchor", fontsize=8.5, color=INK)
    axes.set_yticks(range(n), labels, fontsize=8.5)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    bar = made.colorbar(image, ax=axes, shrink=0.8, pad=0.02)
    bar.set_label(text, fontsize=8.5)
    bar.outline.set_visible(False)
    return made


def _short(value: float) -> str:
    return f"{value:.1f}" if value >= 1 else f"{value:.3f}".removeprefix("0") if value >= 0.0005 else "0"
