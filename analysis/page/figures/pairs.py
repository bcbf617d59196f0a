"""Plots that compare values of a variable: matched pairs, and SHAP values by level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from analysis.page.figures.style import DOWN, GRID, INK, MUTED, UNSURE, UP, figure

MOST = 24


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
