"""Figures of several tasks: extractors and tunnels together, accuracy against the split, forgetting against depth."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.estimates.continual import Memory, Row, Tasks
from analysis.page.figures.epochs import COLORS
from analysis.page.figures.style import GRID, INK, MUTED, figure, label_below

MOST_PANELS = 6
_MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")


def draw(tasks: Tasks) -> dict[str, Figure]:
    """The figures that there is something for, by name."""
    drawn = {}
    if tasks.rows:
        drawn["tasks_swaps"] = swaps([row for row in tasks.rows if row.task == 1])
    if len(tasks.layers):
        drawn["tasks_layers"] = by_layer(tasks.layers)
    if any(each.depth is not None for each in tasks.memory):
        drawn["tasks_forgetting"] = forgetting(tasks.memory)
    return drawn


def swaps(rows: Sequence[Row]) -> Figure:
    """Accuracy on the first task of every combination, one panel per configuration and split."""
    panels: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        panels.setdefault((row.configuration, row.split_by), []).append(row)
    shown = list(panels.items())[:MOST_PANELS]
    columns = min(3, len(shown))
    lines = -(-len(shown) // columns)
    made, grid = figure(2.2 + 2.6 * columns, 0.5 + 1.9 * lines, nrows=lines, ncols=columns, squeeze=False, sharex=True)
    for axes, ((configuration, split_by), own) in zip(grid.flat, shown, strict=False):
        _dots(axes, own)
        title = f"{configuration}\nsplit {split_by}, after layer {own[0].split}"
        axes.set_title(title, fontsize=8.2, fontweight="normal")
    for axes in grid.flat[len(shown) :]:
        axes.set_visible(False)
    label_below(grid, len(shown), "accuracy on the first task, %")
    return made


def _dots(axes: Axes, rows: Sequence[Row]) -> None:
    places = range(len(rows), 0, -1)
    for place, row in zip(places, rows, strict=True):
        own = row.accuracy
        if own.low is not None and own.high is not None:
            axes.plot([max(own.low, 0), min(own.high, 100)], [place, place], color=COLORS[0], linewidth=1.4)
        if own.value is not None:
            axes.plot(own.value, place, "o", markersize=4.5, color=COLORS[0])
    axes.set_yticks(list(places), [row.combination for row in rows], fontsize=8)
    axes.set_ylim(0.4, len(rows) + 0.6)
    axes.grid(color=GRID, linewidth=0.5, axis="x")
    axes.tick_params(labelsize=7.5)


def by_layer(layers: pd.DataFrame) -> Figure:
    """Accuracy of every combination against the last layer of the extractor; a line of panels per task."""
    names = list(dict.fromkeys(layers["configuration"]))[:MOST_PANELS]
    tasks = sorted(set(layers["task"]))[:MOST_PANELS]
    made, grid = figure(
        1.4 + 2.7 * len(names), 0.8 + 2.2 * len(tasks), nrows=len(tasks), ncols=len(names), squeeze=False,
        sharex="col", sharey=True,
    )  # fmt: skip
    combinations = list(dict.fromkeys(layers["combination"]))
    for task, line in zip(tasks, grid, strict=True):
        for name, axes in zip(names, line, strict=True):
            own = layers[(layers["configuration"] == name) & (layers["task"] == task)]
            for number, combination in enumerate(combinations):
                part = own[own["combination"] == combination].sort_values("split_layer")
                color, mark = COLORS[number % len(COLORS)], _MARKS[number % len(_MARKS)]
                axes.plot(
                    part["split_layer"], part["accuracy"], color=color, marker=mark, markersize=3, label=combination
                )
                if part["low"].notna().any():
                    low, high = part["low"].clip(lower=0).astype(float), part["high"].clip(upper=100).astype(float)
                    axes.fill_between(part["split_layer"], low, high, color=color, alpha=0.12, linewidth=0)
            if task == tasks[0]:
                axes.set_title(name, fontsize=8.2, fontweight="normal")
            axes.grid(color=GRID, linewidth=0.5)
            axes.tick_params(labelsize=7.5)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        line[0].set_ylabel(f"accuracy on task {task}, %", fontsize=8.5)
    label_below(grid, grid.size, "last layer of the extractor")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    made.legend(handles, labels, loc="outside upper center", ncols=min(len(handles), 4), fontsize=8, frameon=False)
    return made


def forgetting(memory: Sequence[Memory]) -> Figure:
    """Points that are forgotten against the depth of the network: with the classifier as it was, and trained anew."""
    made, axes = figure(5.4, 3.4)
    kinds = (("with the task's own classifier", "forgetting", "o"), ("with classifiers trained anew", "features", "s"))
    known = [each for each in memory if each.depth is not None]
    for number, (words, name, mark) in enumerate(kinds):
        for each in known:
            own, at = getattr(each, name), float(each.depth or 0) + 0.12 * (2 * number - 1)
            if own.value is None:
                continue
            if own.low is not None:
                axes.plot([at, at], [own.low, own.high], color=COLORS[number], linewidth=1.4)
            axes.plot(
                at, own.value, mark, color=COLORS[number], markersize=5, label=words if each is known[0] else None
            )
    axes.axhline(0, color=MUTED, linewidth=0.8)
    axes.set_xticks(sorted({each.depth for each in known if each.depth is not None}))
    axes.set_xlabel("depth of the network, layers", fontsize=9, color=INK)
    axes.set_ylabel("forgotten, points", fontsize=9, color=INK)
    axes.grid(color=GRID, linewidth=0.5)
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=8, frameon=False)
    return made
