"""Matched pairs: two values of one variable, all else equal. Pairs are built from keys, never from row order.

Where a variable never moves alone, the fewest others that must move with it are let go and named (``together_with``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from analysis.design.points import Index, combined, totals
from analysis.tables import names
from analysis.tables.experiments import Experiments
from analysis.tables.variables import Array, Variable, level_text

LEVELS = ("experiment", "backbone")
SEARCHED_CELLS = 100_000  # above this only pairs with all else equal are looked for
ALL_PAIRS = 6  # variables with more levels are compared between neighbours and between their extremes
NEIGHBOURS = 30  # variables with more levels than this between their extremes only
MOST_RELEASED = 2
MOST_DRAWN = 60  # pairs of a contrast whose own differences are kept, to be drawn
CLIFF_LABELS: tuple[tuple[float, str], ...] = ((0.147, "negligible"), (0.33, "small"), (0.474, "medium"))
COLUMNS = (
    "target", "variable", "from", "to", "level", "together_with", "n_pairs", "n_backbone_pairs", "mean_from", "mean_to",
    "mean_difference", "low", "high", "p", "p_holm", "p_smallest", "cliffs_delta", "cliffs_label",
    "pair_differences",
)  # fmt: skip


@dataclass(frozen=True)
class Cells:
    """Experiments of a table as integer codes; rows that agree in every column are one cell.

    Attributes
    ----------
    code, values : column → code of each cell, and what each code stands for; the columns are variables, context,
        replicates and ``dataset``.
    sums, counts : target → sum of its values in each cell, and how many there are.
    """

    code: dict[str, Index]
    values: dict[str, pd.Index]
    sums: dict[str, Array]
    counts: dict[str, Array]


@dataclass(frozen=True)
class Match:
    """Cells that agree in all keys but the variable, one row per pair and OOD dataset.

    Attributes
    ----------
    first_R, second_R : group of cells on either side; :attr:`group_C` says which group a cell is in.
    cluster_R : backbone pair of each row.
    """

    first_R: Index
    second_R: Index
    cluster_R: Index
    group_C: Index
    released: tuple[str, ...]


def cliffs_delta(first: Array, second: Array) -> float:
    """Cliff's δ = P(second > first) − P(second < first) over all pairs of values (not only the matched ones)."""
    ordered = np.sort(first)
    below = np.searchsorted(ordered, second, side="left")
    above = len(ordered) - np.searchsorted(ordered, second, side="right")
    return float((below - above).sum() / (len(first) * len(second)))


def cliffs_label(delta: float) -> str:
    """Size of Cliff's δ in words (protocol §9)."""
    return next((name for bound, name in CLIFF_LABELS if abs(delta) < bound), "large")


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction, in the order given."""
    order = np.argsort(p_values)
    adjusted = np.empty(len(p_values))
    running = 0.0
    for position, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - position) * p_values[index]))
        adjusted[index] = running
    return [float(p) for p in adjusted]


def wilcoxon_p(difference: Array) -> float:
    """Two-sided p of Wilcoxon's signed-rank test; 1 if no pair differs."""
    moved = difference[difference != 0]
    return float(stats.wilcoxon(moved).pvalue) if len(moved) else 1.0


def clustered_interval(difference: Array, cluster: Index) -> tuple[float | None, float | None]:
    """95 % t interval of a mean whose errors are independent between clusters only; None with one cluster."""
    size = np.bincount(cluster)
    n = len(size)
    if n < 2:
        return None, None
    mean = float(difference.mean())
    residual = np.bincount(cluster, weights=difference - mean)
    error = np.sqrt(n / (n - 1) * float((residual**2).sum())) / len(difference)
    half = float(stats.t.ppf(0.975, n - 1) * error)
    return mean - half, mean + half


def level_pairs(variable: Variable) -> Iterator[tuple[object, object]]:
    """Pairs of values to compare, each from low to high."""
    levels = variable.levels
    if len(levels) <= ALL_PAIRS:
        yield from combinations(levels, 2)
        return
    if len(levels) <= NEIGHBOURS:
        yield from pairwise(levels)
    yield levels[0], levels[-1]


def cells(experiments: Experiments) -> Cells:
    """Gather the rows of a table that agree in variables, context, replicates and OOD dataset."""
    frame = experiments.frame
    columns = [*experiments.variables, *experiments.context, *experiments.replicates, "dataset"]
    factors = {name: pd.factorize(frame[name]) for name in columns}
    codes = {name: code.astype(np.int64) for name, (code, _) in factors.items()}
    group_N = combined(list(codes.values()))
    first = np.unique(group_N, return_index=True)[1]
    sums, counts = {}, {}
    for target in experiments.targets:
        values = frame[target.name].to_numpy(float)
        known = np.isfinite(values)
        sums[target.name] = totals(group_N, np.where(known, values, 0.0), len(first))
        counts[target.name] = totals(group_N, known, len(first))
    stands_for = {name: pd.Index(levels) for name, (_, levels) in factors.items()}
    return Cells({name: code[first] for name, code in codes.items()}, stands_for, sums, counts)


def find_match(table: Cells, side_C: Index, keys: Sequence[str], fixed: Sequence[str]) -> Match | None:
    """Match the cells of two values of a variable; None if even with two keys let go there is no pair.

    Parameters
    ----------
    side_C : 0 and 1 for cells with the first and second value, −1 for others.
    keys : columns to keep equal if possible; the fewest are released, then those that leave most pairs.
    fixed : columns always equal, besides the OOD dataset.
    """
    most = MOST_RELEASED if len(side_C) <= SEARCHED_CELLS else 0
    for n_released in range(most + 1):
        best: Match | None = None
        for released in combinations(keys, n_released):
            kept = [*(key for key in keys if key not in released), *fixed]
            found = _match(table, side_C, kept, released)
            if found is not None and (best is None or len(found.first_R) > len(best.first_R)):
                best = found
        if best is not None:
            return best
    return None


def _match(table: Cells, side_C: Index, kept: Sequence[str], released: tuple[str, ...]) -> Match | None:
    used = np.flatnonzero(side_C >= 0)
    if not len(used):
        return None
    backbone = combined([table.code[name][used] for name in kept]) if kept else np.zeros(len(used), dtype=np.int64)
    key = combined([backbone, table.code["dataset"][used]])
    group = 2 * key + side_C[used]
    present = np.zeros(2 * (int(key.max()) + 1), dtype=bool)
    present[group] = True
    both = np.flatnonzero(present[0::2] & present[1::2])
    if not len(both):
        return None
    backbone_of_key = np.zeros(int(key.max()) + 1, dtype=np.int64)
    backbone_of_key[key] = backbone
    group_C = np.full(len(side_C), -1, dtype=np.int64)
    group_C[used] = group
    return Match(2 * both, 2 * both + 1, pd.factorize(backbone_of_key[both])[0].astype(np.int64), group_C, released)


def _outcomes(table: Cells, match: Match, target: str) -> tuple[Array, Array, Index]:
    """Mean outcome on both sides of each pair, and its backbone pair; pairs without an outcome are left out."""
    used = match.group_C >= 0
    size = int(match.group_C.max()) + 2
    total = totals(match.group_C[used], table.sums[target][used], size)
    count = totals(match.group_C[used], table.counts[target][used], size)
    known = (count[match.first_R] > 0) & (count[match.second_R] > 0)
    first, second = match.first_R[known], match.second_R[known]
    return total[first] / count[first], total[second] / count[second], match.cluster_R[known]


def compute(
    experiments: Experiments, variables: Sequence[Variable]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Contrasts of every variable and target, at experiment level and at backbone level; and reversals.

    A reversal is a variable whose lowest and highest value differ one way at one value of a partner and the other way
    at another, in the matched pairs themselves: no model is asked. Its ``p_holm`` counts every partner that was looked
    at for this outcome, whatever the signs.

    ``mean_difference`` is to − from in the outcome's own unit. At experiment level the interval takes pairs of one
    backbone pair as one observation; the Wilcoxon p, like the published one, takes every pair as its own.
    """
    table = cells(experiments)
    rows: list[dict[str, Any]] = []
    compared: list[dict[str, Any]] = []
    for variable in variables:
        code_C = table.code[variable.name]
        for low, high in level_pairs(variable):
            first, second = table.values[variable.name].get_indexer(pd.Index([low, high]))
            side_C = np.select([code_C == first, code_C == second], [0, 1], -1)
            match = find_match(table, side_C, _keys(experiments, variable.name), experiments.replicates)
            if match is None:
                continue
            for target in experiments.targets:
                outcomes = _outcomes(table, match, target.name)
                about = {"target": target.name, "variable": variable.name, "from": plain(low), "to": plain(high)}
                about["together_with"] = list(match.released)
                if len(outcomes[0]):
                    rows += [about | _statistics(*outcomes, level) for level in LEVELS]
                if variable.has_slope and (low, high) == (variable.levels[0], variable.levels[-1]):
                    compared += _by_partner(table, match, variables, about)
    _correct(compared, ("target",))
    _correct(rows, ("target", "level"))
    return [{name: row[name] for name in COLUMNS} for row in rows], [row for row in compared if _reverses(row)]


def _reverses(row: dict[str, Any]) -> bool:
    differences = [entry["mean_difference"] for entry in row["within"]]
    return min(differences) < 0 < max(differences)


def _by_partner(
    table: Cells, match: Match, variables: Sequence[Variable], about: dict[str, Any]
) -> list[dict[str, Any]]:
    """The difference at each value of every partner (of up to three values, equal within every pair)."""
    first, second, cluster = _outcomes(table, match, about["target"])
    found = []
    for partner in variables:
        if partner.name in (about["variable"], *match.released) or len(partner.levels) > 3:
            continue
        level_R = _level_of_pairs(table, match, about["target"], partner)
        within, samples = [], []
        for number, level in enumerate(partner.levels):
            at = level_R == number
            if at.any():
                statistics = _statistics(first[at], second[at], cluster[at], "backbone")
                keep = ("n_pairs", "mean_from", "mean_to", "mean_difference", "low", "high")
                within.append({"level": level_text(level)} | {key: statistics[key] for key in keep})
                samples.append(_per_backbone(second[at] - first[at], cluster[at]))
        if len(within) > 1:
            differences = [entry["mean_difference"] for entry in within]
            lowest, highest = samples[int(np.argmin(differences))], samples[int(np.argmax(differences))]
            found.append({**about, "partner": partner.name, "within": within, "p": welch_p(lowest, highest)})
    return found


def _per_backbone(values: Array, cluster: Index) -> Array:
    _, cluster = np.unique(cluster, return_inverse=True)
    means: Array = np.bincount(cluster, weights=values) / np.bincount(cluster)
    return means


def welch_p(first: Array, second: Array) -> float | None:
    """Two-sided p that two samples have one mean (Welch); None below two values, or without any variance."""
    if min(len(first), len(second)) < 2 or np.ptp(first) + np.ptp(second) == 0:
        return None
    return float(stats.ttest_ind(first, second, equal_var=False).pvalue)


def _level_of_pairs(table: Cells, match: Match, target: str, partner: Variable) -> Index:
    """Number of the partner's level in each pair that has the outcome."""
    used = match.group_C >= 0
    size = int(match.group_C.max()) + 2
    code_G = np.zeros(size, dtype=np.int64)
    code_G[match.group_C[used]] = table.code[partner.name][used]
    count = totals(match.group_C[used], table.counts[target][used], size)
    known = (count[match.first_R] > 0) & (count[match.second_R] > 0)
    order = {level: number for number, level in enumerate(partner.levels)}
    number_of_code = np.array([order.get(level, -1) for level in table.values[partner.name]])
    result: Index = number_of_code[code_G[match.first_R[known]]]
    return result


def _correct(rows: list[dict[str, Any]], by: Sequence[str]) -> None:
    """Add ``p_holm``: corrected for all rows of the same ``by``; None where there is no p."""
    families: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        row["p_holm"] = None
        if row["p"] is not None:
            families.setdefault(tuple(row[key] for key in by), []).append(row)
    for family in families.values():
        for row, p in zip(family, holm([row["p"] for row in family]), strict=True):
            row["p_holm"] = p


def plain(value: object) -> object:
    """A level as JSON has it: a number or a text."""
    value = value.item() if isinstance(value, np.generic) else value
    return level_text(value) if isinstance(value, float) and not np.isfinite(value) else value


def _keys(experiments: Experiments, variable: str) -> list[str]:
    keys = [name for name in experiments.variables if name != variable]
    tied = (
        "architecture" if names.part(variable) == "architecture" else "id_dataset" if variable == "id_dataset" else ""
    )
    return keys + [name for name in experiments.context if name != tied]


def _statistics(first: Array, second: Array, cluster: Index, level: str) -> dict[str, Any]:
    _, cluster = np.unique(cluster, return_inverse=True)
    if level == "backbone":
        size = np.bincount(cluster)
        first, second = (np.bincount(cluster, weights=side) / size for side in (first, second))
        cluster = np.arange(len(size))
    difference = second - first
    low, high = clustered_interval(difference, cluster)
    delta = cliffs_delta(first, second)
    return {
        "level": level,
        "n_pairs": len(difference),
        "n_backbone_pairs": int(cluster.max()) + 1,
        "mean_from": float(first.mean()),
        "mean_to": float(second.mean()),
        "mean_difference": float(difference.mean()),
        "low": low,
        "high": high,
        "p": wilcoxon_p(difference),
        "p_smallest": float(min(1.0, 2.0 ** (1 - len(difference)))),
        "cliffs_delta": delta,
        "cliffs_label": cliffs_label(delta),
        "pair_differences": _some(difference) if level == "backbone" else None,
    }


def _some(difference: Array) -> list[float]:
    """The pairs' differences, lowest first; of very many an even choice, to be drawn."""
    ordered = np.sort(difference)
    chosen = np.unique(np.linspace(0, len(ordered) - 1, MOST_DRAWN).round().astype(int))
    return [float(value) for value in ordered[chosen]]
