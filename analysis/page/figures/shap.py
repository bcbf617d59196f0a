"""Plots of slopes and SHAP values. They fit nothing: numbers in, figure out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from analysis.page.figures.style import DOWN, GRID, INK, MAP, UP, figure
from analysis.tables.variables import Array


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


def heat_map(labels: Sequence[str], values_VV: Array, *, most: float | None, text: str) -> Figure:
    """Square matrix with its values written in, from 0 to ``most``, or to its largest."""
    n = len(labels)
    made, axes = figure(2.6 + 0.72 * n, 1.9 + 0.62 * n)
    high = most if most is not None else max(float(np.nanmax(np.abs(values_VV), initial=0.0)), 1e-12)
    image = axes.imshow(values_VV, cmap="Blues", vmin=0, vmax=high)
    for row in range(n):
        for column in range(n):
            value = values_VV[row, column]
            if np.isfinite(value):
                color = "white" if abs(value) > 0.62 * high else INK
                axes.text(
                    column,
                    row,
                    f"{value:.2f}" if most is not None else _short(value),
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


MARKERS = "osD^"
COLORS = (UP, DOWN, "#009e73", "#cc79a7")


@dataclass(frozen=True)
class Dots:
    """One variable's SHAP values, to be drawn over its values.

    Attributes
    ----------
    x_P, ticks : where each design point stands, and (place, text) of the marks on the same axis.
    groups : (text, which points): values of the variable that it interacts with most; one nameless group without one.
    """

    label: str
    partner: str
    x_P: Array
    shap_P: Array
    ticks: Sequence[tuple[float, str]]
    groups: Sequence[tuple[str, np.ndarray]]


def dependence(panels: Sequence[Dots], *, unit: str) -> Figure:
    """SHAP values of each variable over its values; marker and colour are the value of its strongest partner."""
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    made, grid = figure(1.0 + 3.0 * columns, 0.6 + 2.9 * rows, nrows=rows, ncols=columns, squeeze=False)
    rng = np.random.default_rng(0)
    for axes, panel in zip(grid.flat, panels, strict=False):
        width = panel.ticks[-1][0] - panel.ticks[0][0]
        jitter_P = rng.uniform(-0.03, 0.03, len(panel.x_P)) * (width or 1.0)
        for number, (text, members) in enumerate(panel.groups):
            axes.scatter(
                (panel.x_P + jitter_P)[members], panel.shap_P[members], s=16, marker=MARKERS[number],
                color=COLORS[number], alpha=0.8, linewidths=0, label=text, rasterized=len(panel.x_P) > 200,
            )  # fmt: skip
        axes.axhline(0, color=INK, linewidth=0.7)
        axes.set_xticks([x for x, _ in panel.ticks], [text for _, text in panel.ticks], fontsize=8)
        axes.set_xlim(panel.ticks[0][0] - 0.12 * (width or 1.0), panel.ticks[-1][0] + 0.12 * (width or 1.0))
        axes.set_title(panel.label, fontsize=9)
        axes.grid(axis="y", color=GRID, linewidth=0.5)
        axes.tick_params(axis="y", labelsize=8)
        if panel.partner:
            axes.legend(
                title=panel.partner, title_fontsize=7, fontsize=7, frameon=False, loc="upper center",
                bbox_to_anchor=(0.5, -0.1), ncols=2, handletextpad=0.1, columnspacing=0.8,
            )  # fmt: skip
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    made.supylabel("SHAP value of an experiment" + (f" ({unit})" if unit else ""), fontsize=9, color=INK)
    return made
