"""Plots of slopes and SHAP values. They fit nothing: numbers in, figure out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from analysis.page.figures.style import DOWN, GRID, INK, MAP, UNSURE, UP, figure
from analysis.tables.variables import Array


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


MARKERS = "osD^vP"


def dependence(panels: Sequence[Mapping[str, Any]], *, unit: str) -> Figure:
    """SHAP values of a variable by its level; marker and colour are the value of its strongest partner.

    Parameters
    ----------
    panels : label, levels (texts), code_P in [0, 1], shap_P in printed units, partner, partner_P in [0, 1],
        partner_levels (texts, low and high).
    """
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    made, grid = figure(1.0 + 3.0 * columns, 0.6 + 2.9 * rows, nrows=rows, ncols=columns, squeeze=False)
    rng = np.random.default_rng(0)
    for axes, panel in zip(grid.flat, panels, strict=False):
        n = len(panel["levels"])
        x_P = panel["code_P"] * max(n - 1, 1)
        jitter_P = rng.uniform(-0.16, 0.16, len(x_P))
        groups = _halves(panel["partner_P"])
        for number, (name, members) in enumerate(groups):
            text = panel["partner_levels"][name] if panel["partner"] else None
            axes.scatter(
                (x_P + jitter_P)[members], panel["shap_P"][members], s=16, marker=MARKERS[number],
                color=(UP, DOWN)[number], alpha=0.8, linewidths=0, label=text, rasterized=len(x_P) > 200,
            )  # fmt: skip
        axes.axhline(0, color=INK, linewidth=0.7)
        shown = range(n) if n <= 6 else [0, n // 2, n - 1]
        axes.set_xticks(list(shown), [panel["levels"][i] for i in shown], fontsize=8)
        axes.set_xlim(-0.5, n - 0.5)
        axes.set_title(panel["label"], fontsize=9)
        axes.grid(axis="y", color=GRID, linewidth=0.5)
        axes.tick_params(axis="y", labelsize=8)
        if panel["partner"]:
            axes.legend(
                title=panel["partner"], title_fontsize=7, fontsize=7, frameon=False, loc="upper center",
                bbox_to_anchor=(0.5, -0.1), ncols=2, handletextpad=0.1, columnspacing=0.8,
            )  # fmt: skip
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    made.supylabel("SHAP value of an experiment" + (f" ({unit})" if unit else ""), fontsize=9, color=INK)
    return made


def _halves(partner_P: Array) -> list[tuple[int, np.ndarray]]:
    """Points where the partner is in its lower and in its upper half; those without a value are left out."""
    return [(0, partner_P < 0.5), (1, partner_P >= 0.5)]
