"""Plots that compare values of a variable: matched pairs, and SHAP values by level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from analysis.design import Array
from analysis.figures import DOWN, GRID, INK, MUTED, UNSURE, UP, figure

MOST = 24
MARKERS = "osD^vP"


def contrast_plot(rows: Sequence[Mapping[str, Any]], *, unit: str) -> Figure:
    """Differences of matched backbone pairs, one line per contrast: a tick per pair, the mean with its 95 % interval.

    Parameters
    ----------
    rows : label, mean_difference, low, high (None below two pairs), n_pairs, pair_differences; in printed units.
    """
    made, axes = figure(8.2, 1.0 + 0.34 * max(len(rows), 2))
    for y, row in enumerate(reversed(rows)):
        known = row["low"] is not None
        sure = known and (row["low"] > 0 or row["high"] < 0)
        color = UNSURE if not sure else UP if row["mean_difference"] > 0 else DOWN
        pairs = row["pair_differences"]
        axes.plot(pairs, [y - 0.27] * len(pairs), "|", color=MUTED, markersize=5, markeredgewidth=0.9)
        if known:
            axes.plot([row["low"], row["high"]], [y, y], color=color, linewidth=2.2, solid_capstyle="butt")
        axes.plot(
            row["mean_difference"], y, "o", color=color, markersize=6, markerfacecolor=color if known else "white"
        )
    axes.set_yticks(range(len(rows)), [f"{row['label']} ({row['n_pairs']})" for row in reversed(rows)], fontsize=8.5)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.grid(axis="x", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_ylim(-0.7, max(len(rows), 2) - 0.3)
    axes.set_xlabel("mean difference between matched backbones" + (f" ({unit})" if unit else ""))
    return made


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
