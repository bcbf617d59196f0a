"""Differences of matched backbones."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from analysis.estimates.pairs import Contrast
from analysis.page.figures.style import DOWN, GRID, INK, MUTED, UNSURE, UP, figure, true_minus
from analysis.page.rows import compared, sizes

MOST = 24


def contrast_plot(contrasts: Sequence[Contrast], *, unit: str) -> Figure:
    """One line per contrast: a tick per pair or group, the mean with its 95 % interval, hollow without one."""
    made, axes = figure(8.6, 1.0 + 0.36 * max(len(contrasts), 2))
    for y, contrast in enumerate(reversed(contrasts)):
        own = contrast.estimate
        value = own.value or 0.0
        color = UNSURE if not own.asserted else UP if value > 0 else DOWN
        axes.plot(
            contrast.differences, [y - 0.27] * len(contrast.differences), "|", color=MUTED, markersize=5,
            markeredgewidth=0.9,
        )  # fmt: skip
        if own.low is not None and own.high is not None:
            axes.plot([own.low, own.high], [y, y], color=color, linewidth=2.2, solid_capstyle="butt")
        face = color if own.low is not None else "white"
        axes.plot(value, y, "o", color=color, markersize=6, markerfacecolor=face)
    labels = [f"{compared(contrast)} ({sizes(contrast)})" for contrast in reversed(contrasts)]
    axes.set_yticks(range(len(contrasts)), labels, fontsize=8)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.grid(axis="x", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_ylim(-0.7, max(len(contrasts), 2) - 0.3)
    true_minus(axes)
    axes.set_xlabel("mean difference between matched backbones" + (f" ({unit})" if unit else ""), loc="right")
    return made
