"""The two figures that the page leads with: backbones by strength, and all variables with their three estimates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.estimates.effects import Effect
from analysis.estimates.estimate import Estimate
from analysis.findings.phrases import units
from analysis.page.figures.style import DOWN, GRID, INK, MUTED, UNSURE, UP, figure, true_minus
from analysis.page.rows import name
from analysis.tables.metrics import STRENGTHS
from analysis.tables.names import Target

CLASSES: Mapping[str, str] = {"negligible": "#009e73", "weak": "#56b4e9", "medium": "#e69f00", "strong": "#d55e00"}
LABELLED = 28  # backbones up to which each has its name beside it
DRAWN = 600  # backbones up to which each is drawn; of more, so many evenly along their order
DODGE = 0.24
THREE: Sequence[tuple[str, str, str]] = (
    ("pairs", "matched backbones", "D"),
    ("adjusted", "adjusted model", "o"),
    ("trees", "trees (g-computation)", "s"),
)


def strengths(table: pd.DataFrame) -> Figure:
    """Every backbone's share of accuracy retained, with its interval; hollow: the interval spans several classes."""
    known = table[table["retained"].notna()].sort_values("retained", kind="stable").reset_index(drop=True)
    every, labelled = len(known), len(known) <= LABELLED
    if every > DRAWN:
        known = known.iloc[np.linspace(0, every - 1, DRAWN).round().astype(int)].reset_index(drop=True)
    size = (8.2, 1.3 + 0.22 * len(known)) if labelled else (8.2, 3.8)
    made, axes = figure(*size)
    for position, row in known.iterrows():
        color = CLASSES.get(str(row["strength"]), MUTED)  # open: too few images chose the peaks
        at = (row["retained"], position) if labelled else (position, row["retained"])
        if np.isfinite(row["low"]):
            ends = [row["low"], row["high"]], [position, position]
            axes.plot(*(ends if labelled else ends[::-1]), color=color, linewidth=1.6, alpha=0.75, zorder=2)
        axes.plot(
            *at, marker="o", markersize=5.2, color=color, markerfacecolor=color if row["settled"] else "white", zorder=3
        )
    _bands(axes, labelled)
    text = "% of the best layer's OOD accuracy that the last layer retains"
    if labelled:
        axes.set_yticks(range(len(known)), list(known["label"]), fontsize=7.5)
        axes.set_xlabel(text)
    else:
        axes.set_xticks([])
        drawn = f"{DRAWN} of {every:,}" if every > DRAWN else f"{every}"
        axes.set_xlabel(f"{drawn} backbones, strongest tunnel first")
        axes.set_ylabel(text.replace(" that", "\nthat"))
    handles = [Line2D([], [], marker="o", linestyle="", color=color, label=text) for text, color in CLASSES.items()]
    handles.append(Line2D([], [], marker="o", linestyle="", color=MUTED, markerfacecolor="white", label="class open"))
    made.legend(handles=handles, loc="outside upper center", ncols=5, frameon=False, fontsize=8)
    return made


def _bands(axes: Axes, across: bool) -> None:
    for bound, _ in STRENGTHS:
        line = axes.axvline if across else axes.axhline
        line(bound, color=GRID, linewidth=0.9, zorder=1)


def forest(effects: Sequence[Effect], target: Target, clusters: str) -> Figure:
    """All variables of one outcome, each with its three estimates and their 95 % intervals.

    The colour is that of the verdict on the adjusted model: blue raises, orange lowers, grey is open.
    """
    made, axes = figure(8.6, 1.25 + 0.6 * max(len(effects), 2))
    ends = []
    for y, effect in enumerate(reversed(effects)):
        for offset, (kind, _, marker) in zip((DODGE, 0.0, -DODGE), THREE, strict=True):
            own: Estimate = getattr(effect, kind)
            if own.value is None:
                continue
            main = kind == "adjusted"
            color = _color(effect) if main else MUTED
            if own.low is not None and own.high is not None:
                axes.plot([own.low, own.high], [y + offset] * 2, color=color, linewidth=2.2 if main else 1.0)
                ends += [own.low, own.high]
            face = color if own.low is not None else "white"
            size = 7 if main else 4.6
            axes.plot(own.value, y + offset, marker, color=color, markersize=size, markerfacecolor=face)
            ends.append(own.value)
    labels = [f"{name(effect)}\n{effect.low} → {effect.high}" for effect in reversed(effects)]
    axes.set_yticks(range(len(effects)), labels, fontsize=8.5)
    right = axes.secondary_yaxis("right")
    notes = [f"{effect.verdict}\n{units(effect.adjusted)}" for effect in reversed(effects)]
    right.set_yticks(range(len(effects)), notes, fontsize=7.5)
    right.tick_params(length=0)
    right.spines["right"].set_visible(False)
    axes.set_ylim(-0.6, max(len(effects), 2) - 0.4)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.grid(axis="x", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    _limit(axes, effects, ends)
    true_minus(axes)
    axes.set_xlabel(f"change of {target.phrase}" + (f", {target.unit}" if target.unit else ""))
    handles = [Line2D([], [], marker=m, linestyle="-", color=MUTED, label=text) for _, text, m in THREE]
    made.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    return made


def _limit(axes: Axes, effects: Sequence[Effect], ends: Sequence[float]) -> None:
    """Keep one hopeless interval from squeezing all others: the axis reaches three times the largest estimate."""
    values = [abs(e.adjusted.value) for e in effects if e.adjusted.value is not None]
    if values and ends:
        most = 3 * max(values)
        low, high = max(min(ends), -most), min(max(ends), most)
        pad = 0.05 * (high - low or 1.0)
        axes.set_xlim(min(low, 0) - pad, max(high, 0) + pad)


def _color(effect: Effect) -> str:
    if not effect.adjusted.asserted:
        return UNSURE
    return UP if (effect.adjusted.value or 0.0) > 0 else DOWN


def by_dataset(effects: Sequence[Effect], target: Target) -> Figure:
    """The adjusted estimate of each variable on each OOD dataset alone; the bar is that of all together."""
    names = list(dict.fromkeys(dataset for effect in effects for dataset in effect.by_dataset))
    colors = matplotlib.colormaps["tab10" if len(names) <= 10 else "tab20"]
    made, axes = figure(8.4, 1.2 + 0.42 * max(len(effects), 2))
    for y, effect in enumerate(reversed(effects)):
        for d, dataset in enumerate(names):
            if dataset in effect.by_dataset:
                axes.plot(effect.by_dataset[dataset], y, "o", color=colors(d % colors.N), markersize=5, alpha=0.85)
        if effect.adjusted.value is not None:
            axes.plot([effect.adjusted.value] * 2, [y - 0.28, y + 0.28], color=INK, linewidth=1.6)
    axes.set_yticks(
        range(len(effects)), [f"{name(e)} {e.low} → {e.high}" for e in reversed(effects)], fontsize=8.5
    )  # fmt: skip
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.grid(axis="x", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    true_minus(axes)
    axes.set_xlabel(f"change of {target.phrase} on one dataset" + (f", {target.unit}" if target.unit else ""))
    handles = [
        Line2D([], [], marker="o", linestyle="", color=colors(d % colors.N), label=dataset)
        for d, dataset in enumerate(names)
    ]
    made.legend(handles=handles, loc="outside upper center", ncols=min(len(names), 5), frameon=False, fontsize=7.5)
    return made


def outcomes(frame: pd.DataFrame, target: Target, most: int = 80) -> Figure:
    """Heat map of an outcome: one row per backbone, the lowest first, one column per OOD dataset, and means.

    Of many backbones an even choice is shown.
    """
    table = frame.pivot_table(index="backbone", columns="dataset", values=target.name, aggfunc="mean")
    labels = frame.drop_duplicates("backbone").set_index("backbone")["label"]
    table = table.loc[table.mean(axis=1).sort_values().index, table.mean().sort_values().index]
    means = table.mean()
    if len(table) > most:
        table = table.iloc[np.linspace(0, len(table) - 1, most).round().astype(int)]
    labelled = len(table) <= 32
    height = 1.6 + (0.19 if labelled else 0.085) * len(table)
    made, (axes, below) = figure(
        2.2 + (2.6 if labelled else 0.0) + 0.72 * len(table.columns), height, nrows=2,
        gridspec_kw={"height_ratios": [max(len(table), 3), 2 if labelled else 4]},
    )  # fmt: skip
    low, high = float(np.nanmin(table.to_numpy())), float(np.nanmax(table.to_numpy()))
    image = axes.imshow(table.to_numpy(), aspect="auto", cmap="cividis", vmin=low, vmax=high, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks(*((range(len(table)), list(labels[table.index])) if labelled else ([], [])), fontsize=6.5)
    if not labelled:
        axes.set_ylabel(f"{len(table)} backbones, the lowest first")
    below.imshow(means.to_numpy()[None], aspect="auto", cmap="cividis", vmin=low, vmax=high)
    for column, value in enumerate(means):
        shade = (value - low) / (high - low or 1.0)
        text = f"{value:.{0 if target.unit else 2}f}".replace("-", "−")
        below.text(column, 0, text, ha="center", va="center", fontsize=8, color="white" if shade < 0.55 else INK)
    below.set_yticks([0], ["mean"], fontsize=8)
    below.set_xticks(range(len(means)), list(means.index), rotation=35, ha="right", rotation_mode="anchor", fontsize=8)
    bar = made.colorbar(image, ax=[axes, below], shrink=0.7, pad=0.02, aspect=30)
    bar.set_label(target.label, fontsize=8)
    bar.outline.set_visible(False)
    for part in (axes, below):
        part.tick_params(length=0)
        for spine in part.spines.values():
            spine.set_visible(False)
    return made
