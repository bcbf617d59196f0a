"""What a grid confounds: which variables vary together, and what would tell them apart."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from statistics import StatisticsError, correlation
from typing import Any

from sweep.config import DEFAULT_ROLES, DERIVED, EPOCH, GRID_VARIABLES, INTERVENTION, RECIPE_KEYS, Config, Role
from sweep.study.columns import derived, variables
from sweep.study.costs import id_images
from sweep.study.grid import Grid

CONFOUNDED = 0.8  # |ρ| above which two variables can hardly be told apart
WORTH_SAYING = 0.3
_OF_WEIGHTS = ("objective", "weights_augmentation")  # what differs between downloaded weights besides their network
_SUGGESTED, _NOT_FREE = 3, {"pretraining", "id_dataset"}  # cells that are named; what no cell can set apart
_DROPPED = 1 / 3  # of the backbones, at most: with less left, the grid is another study


def varied_roles(config: Config, grid: Grid) -> dict[str, Role]:
    """Grid variables with more than one value, and the role of each; ``epoch`` where training is probed along.

    A recipe key that only rules set is part of how an architecture is trained, not a treatment: a nuisance.
    """
    rows = [variables(backbone) for cell in grid.cells for backbone in cell.backbones]
    by_rule = {key for key in RECIPE_KEYS if all(getattr(block, key) is None for block in config.grid)}
    defaults = dict(DEFAULT_ROLES) | dict.fromkeys(by_rule, "nuisance")
    varied = [name for name in GRID_VARIABLES if len({row[name] for row in rows}) > 1]
    varied += [INTERVENTION] * any(row[INTERVENTION] is not None for row in rows)
    varied += [EPOCH] * any(curve.backbone.epoch is not None for curve in grid.curves)
    return {name: config.roles.get(name, defaults.get(name, "treatment")) for name in varied}


def design(config: Config, grid: Grid) -> list[dict[str, Any]]:
    """One row per backbone: grid variables and the derived ones."""
    return [
        variables(backbone) | derived(backbone, id_images(config, backbone))
        for cell in grid.cells
        for backbone in cell.backbones
    ]


def correlations(config: Config, grid: Grid) -> list[tuple[str, str, float]]:
    """|ρ| of each pair of varied treatments (derived variables included) over backbones, the largest first.

    Numbers count by the rank of their value; a categorical variable by that of its levels which correlates most.
    Missing values make a level of their own.
    """
    rows = design(config, grid)
    roles = varied_roles(config, grid)
    of_weights = _OF_WEIGHTS if any(cell.backbone.weights is not None for cell in grid.cells) else ()
    names = [name for name in (*roles, *DERIVED, *of_weights) if roles.get(name, "treatment") == "treatment"]
    coded = {name: _codes([row[name] for row in rows]) for name in names}
    pairs = []
    for one, other in combinations(names, 2):
        values = [abs(_correlation(a, b)) for a in coded[one] for b in coded[other]]
        if values:
            pairs.append((one, other, max(values)))
    return sorted(pairs, key=lambda pair: (-pair[2], pair[:2]))


def _codes(values: Sequence[Any]) -> list[list[float]]:
    levels = sorted({v for v in values if v is not None}, key=lambda v: (isinstance(v, str), v))
    if len(set(values)) < 2:
        return []
    if None in values or any(isinstance(v, str) for v in levels):
        return [[float(v == level) for v in values] for level in (*levels, None) if level in values]
    rank = {level: float(i) for i, level in enumerate(levels)}
    return [[rank[v] for v in values]]


def _correlation(a: Sequence[float], b: Sequence[float]) -> float:
    try:
        return correlation(a, b)
    except StatisticsError:
        return 0.0


def correlation_lines(config: Config, grid: Grid) -> list[str]:
    """What is varied, which pairs of it go together, and which cells to add or to drop to tell them apart, in words."""
    roles = varied_roles(config, grid)
    lines = ["varied: " + (", ".join(f"{name} ({role})" for name, role in roles.items()) or "nothing")]
    pairs = correlations(config, grid)
    confounded = [pair for pair in pairs if pair[2] > CONFOUNDED]
    if confounded:
        lines += ["warning: this grid confounds these pairs; the effects of a pair cannot be told apart (|ρ|):"]
        lines += [*_listing(confounded), *_separating(grid, confounded)]
    related = [pair for pair in pairs if WORTH_SAYING < pair[2] <= CONFOUNDED]
    return lines + (["correlated (|ρ|):", *_listing(related)] if related else [])


def _separating(grid: Grid, confounded: Sequence[tuple[str, str, float]]) -> list[str]:
    """Cells to add or to drop for pairs of grid variables.

    What follows from an architecture or from weights cannot be set apart by a cell, and is not spoken of.
    """
    rows = [variables(cell.backbone) for cell in grid.cells]
    lines = []
    for one, other, _ in confounded:
        if {one, other} & _NOT_FREE or not {one, other} <= {*GRID_VARIABLES}:
            continue
        pairs = [(row[one], row[other]) for row in rows]
        add = ", ".join(f"{one} {a} with {other} {b}" for a, b in _absent(pairs)[:_SUGGESTED])
        more = ", …" * (len(_absent(pairs)) > _SUGGESTED)
        dropped, left = _too_many(pairs)
        drop = ", ".join(
            f"{one} {a} with {other} {b} ({number} of {len(pairs)} backbones)" for (a, b), number in dropped
        )
        advice = [f"add: {add}{more}"] * bool(add) + [f"drop: {drop}, which leaves |ρ| {left:.2f}"] * bool(drop)
        if advice:
            text = f"to tell {one} from {other}, {'; or '.join(advice)}"
            lines += textwrap.wrap(text, width=118, initial_indent="  ", subsequent_indent="  ")
    return lines


def _absent(pairs: Sequence[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Combinations of levels that no backbone has, in the order of the config."""
    first, second = (list(dict.fromkeys(levels)) for levels in zip(*pairs, strict=True))
    return [(a, b) for a in first for b in second if (a, b) not in {*pairs} and None not in (a, b)]


def _too_many(pairs: Sequence[tuple[Any, Any]]) -> tuple[list[tuple[tuple[Any, Any], int]], float]:
    """The combinations of levels, and how many backbones each has, without which two variables can be told apart.

    Taken one after the other, each the one that lowers |ρ| the most, while both variables stay varied; none if more
    than a third of the backbones would have to go.
    """
    left: list[tuple[Any, Any]] = list(pairs)
    dropped: list[tuple[tuple[Any, Any], int]] = []
    while (rho := _association(left)) > CONFOUNDED:
        rest = {pair: [other for other in left if other != pair] for pair in dict.fromkeys(left)}
        lowered = {pair: found for pair, others in rest.items() if (found := _association(others)) < rho}
        if not lowered or len(dropped) == _SUGGESTED:
            return [], rho
        best = min(lowered, key=lowered.__getitem__)
        dropped.append((best, Counter(left)[best]))
        left = rest[best]
    return (dropped, rho) if sum(number for _, number in dropped) <= _DROPPED * len(pairs) else ([], rho)


def _association(pairs: Sequence[tuple[Any, Any]]) -> float:
    """|ρ| as in :func:`correlations`; infinite where one of the two does not vary: nothing is to be told apart then."""
    coded = [_codes(levels) for levels in zip(*pairs, strict=True)]
    values = [abs(_correlation(a, b)) for a in coded[0] for b in coded[1]] if coded else []
    return max(values, default=float("inf"))


def _listing(pairs: Sequence[tuple[str, str, float]]) -> list[str]:
    text = ", ".join(f"{one} ~ {other} {rho:.2f}".replace(" ", "\0") for one, other, rho in pairs)
    indent = "  "
    wrapped = textwrap.wrap(text, width=118, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
    return [line.replace("\0", " ") for line in wrapped]  # a pair is never broken over two lines
