"""Matched backbones: two values of one variable, all else equal. Matches are built from keys, never from row order.

Where a variable never moves alone, the fewest others that must move with it are let go and named (``together_with``).
A *stratum* holds the backbones that agree in all keys: one on either side is a pair, more are groups. Legend: B
backbones, D OOD datasets, S strata.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise

import numpy as np
import pandas as pd
from scipy import stats

from analysis.design.levels import FEWEST_CLUSTERS, FEWEST_UNITS, Level
from analysis.design.points import Index, combined
from analysis.estimates.estimate import Estimate
from analysis.tables.names import plural
from analysis.tables.variables import Array, Variable, level_text

SEARCHED = 20_000  # backbones above which only pairs with all else equal are looked for
ALL_PAIRS = 6  # variables with more levels are compared between neighbours and between their extremes
NEIGHBOURS = 30  # variables with more levels than this between their extremes only
MOST_RELEASED = 2
MOST_DRAWN = 60  # pairs of a contrast whose own differences are kept, to be drawn
WORTH_SEARCHING = 6  # strata of a comparison of clusters that a sentence may be made of
FEWEST_PAIRS = 3  # of two, an interval would rest on one degree of freedom
SEVERAL = " against "  # between the names of several clusters
CLUSTER = " cluster"  # the key that keeps what varies within clusters within them
CLIFF_LABELS: tuple[tuple[float, str], ...] = ((0.147, "negligible"), (0.33, "small"), (0.474, "medium"))


@dataclass(frozen=True)
class Backbones:
    """What matching needs of the backbones of a table.

    Attributes
    ----------
    code : column → code of each backbone; the columns are variables, context and replicates.
    outcome_DB, mean_B : per target, outcome on each dataset (NaN: none), and mean without the datasets' differences.
    clusters : the finest declared level above the configuration; None if none is declared.
    """

    code: Mapping[str, Index]
    values: Mapping[str, pd.Index]
    outcome_DB: Mapping[str, Array]
    mean_B: Mapping[str, Array]
    clusters: Level | None
    keys: tuple[str, ...]
    replicates: tuple[str, ...]


@dataclass(frozen=True)
class Match:
    """Backbones of two values of a variable that agree in the keys that were kept."""

    first: Index
    second: Index
    stratum_first: Index
    stratum_second: Index
    released: tuple[str, ...]

    @property
    def n_strata(self) -> int:
        """Number of strata."""
        return int(self.stratum_first.max(initial=-1)) + 1

    @property
    def paired(self) -> bool:
        """Whether every stratum is one backbone against one."""
        return len(self.first) == len(self.second) == self.n_strata


@dataclass(frozen=True)
class PerExperiment:
    """The comparison with every stratum × dataset as one observation: for published tests, no sentence rests on it."""

    n: int
    means: tuple[float, float]
    difference: float
    wilcoxon: float
    delta: float


@dataclass(frozen=True)
class Contrast:
    """One comparison of matched backbones in one outcome.

    Attributes
    ----------
    low, high : the two values, as the table has them.
    clusters : pairs of clusters that are compared, as names; empty if the variable varies within clusters.
    n_clusters : clusters, or pairs of clusters, that the strata lie in; 0 without declared clusters.
    also : other names of the same comparison.
    searched : whether it is looked at as a comparison of clusters; of two clusters only it is the variable's own.
    estimate : difference, with a Student interval over pairs, over clusters if there are enough of them.
    by_experiment : the same over experiments as the published tests count them.
    """

    target: str
    variable: str
    low: object
    high: object
    together_with: tuple[str, ...]
    n_strata: int
    n_first: int
    n_second: int
    paired: bool
    clusters: tuple[str, ...]
    n_clusters: int
    means: tuple[float, float]
    estimate: Estimate
    wilcoxon: float | None
    smallest: float
    delta: float
    differences: tuple[float, ...]
    by_experiment: PerExperiment
    also: tuple[tuple[str, str], ...] = field(default=())
    p_holm: float | None = None
    searched: bool = True


def cliffs_delta(first: Array, second: Array) -> float:
    """Cliff's δ = P(second > first) − P(second < first) over all pairs of values (not only the matched ones)."""
    ordered = np.sort(first)
    below = np.searchsorted(ordered, second, side="left")
    above = len(ordered) - np.searchsorted(ordered, second, side="right")
    return float((below - above).sum() / (len(first) * len(second)))


def cliffs_label(delta: float) -> str:
    """Size of Cliff's δ in words (protocol §9)."""
    return next((name for bound, name in CLIFF_LABELS if abs(delta) < bound), "large")


def wilcoxon_p(difference: Array) -> float:
    """Two-sided p of Wilcoxon's signed-rank test; 1 if no pair differs."""
    moved = difference[difference != 0]
    return float(stats.wilcoxon(moved).pvalue) if len(moved) else 1.0


def level_pairs(variable: Variable) -> Iterator[tuple[object, object]]:
    """Pairs of values to compare, each from low to high."""
    levels = variable.levels
    if len(levels) <= ALL_PAIRS:
        yield from combinations(levels, 2)
        return
    if len(levels) <= NEIGHBOURS:
        yield from pairwise(levels)
    yield levels[0], levels[-1]


def find_match(table: Backbones, variable: str, low: object, high: object) -> Match | None:
    """Match the backbones of two values; None if even with two keys let go nothing agrees.

    Repetitions (seeds) are paired where each finds its like, and compared as groups where they do not. The ID dataset
    and other context are kept if possible, as variables are.
    """
    code_B = table.code[variable]
    first, second = table.values[variable].get_indexer(pd.Index([low, high]))
    sides = np.flatnonzero(code_B == first), np.flatnonzero(code_B == second)
    keys = [key for key in table.keys if key != variable]
    if table.clusters is not None and _varies_within(code_B, table.clusters.unit_B):
        keys.append(CLUSTER)
    most = MOST_RELEASED if len(code_B) <= SEARCHED else 0
    for n_released in range(most + 1):
        best: Match | None = None
        for released in combinations(keys, n_released):
            found = _match(table, sides, [key for key in keys if key not in released], released)
            if found is not None and (best is None or _size(found) > _size(best)):
                best = found
        if best is not None:
            return best
    return None


def _varies_within(code_B: Index, unit_B: Index) -> bool:
    return bool((pd.Series(code_B).groupby(unit_B).nunique() > 1).any())


def _size(match: Match) -> tuple[int, int]:
    return len(match.first) + len(match.second), match.n_strata


def _match(
    table: Backbones, sides: tuple[Index, Index], kept: Sequence[str], released: tuple[str, ...]
) -> Match | None:
    loose = _strata(table, sides, kept, released)
    if loose is None or loose.paired or not table.replicates:
        return loose
    tight = _strata(table, sides, [*kept, *table.replicates], released)
    return tight if tight is not None and _size(tight)[0] == _size(loose)[0] else loose


def _strata(
    table: Backbones, sides: tuple[Index, Index], kept: Sequence[str], released: tuple[str, ...]
) -> Match | None:
    used = np.concatenate(sides)
    if not len(sides[0]) or not len(sides[1]):
        return None
    key = combined([table.code[name][used] for name in kept]) if kept else np.zeros(len(used), dtype=np.int64)
    own = key[: len(sides[0])], key[len(sides[0]) :]
    both = np.intersect1d(*own)
    if not len(both):
        return None
    keep = [np.isin(side, both) for side in own]
    number = [np.searchsorted(both, side[inside]) for side, inside in zip(own, keep, strict=True)]
    return Match(sides[0][keep[0]], sides[1][keep[1]], number[0], number[1], released)


def per_stratum(values_B: Array, members: Index, stratum: Index, n_strata: int) -> Array:
    """Mean of each stratum's members that have a value; NaN where none has (S,)."""
    own = values_B[members]
    known = np.isfinite(own)
    count = np.bincount(stratum[known], minlength=n_strata)
    total = np.bincount(stratum[known], weights=own[known], minlength=n_strata)
    result: Array = total / np.where(count > 0, count, np.nan)
    return result


def compare(table: Backbones, match: Match, target: str) -> tuple[Array, Array, Array]:
    """Difference of each stratum, its weight, and the sum of squares inside strata; strata without outcome are NaN.

    A pair is compared on the datasets that both were probed on; groups by means without the datasets' differences.
    """
    mean_B, n = table.mean_B[target], match.n_strata
    first, second = (
        per_stratum(mean_B, members, stratum, n)
        for members, stratum in ((match.first, match.stratum_first), (match.second, match.stratum_second))
    )
    difference = second - first
    if match.paired:
        order = [np.argsort(stratum) for stratum in (match.stratum_first, match.stratum_second)]
        outcome_DB = table.outcome_DB[target]
        apart = outcome_DB[:, match.second[order[1]]] - outcome_DB[:, match.first[order[0]]]
        shared = np.isfinite(apart).any(axis=0)
        difference = np.where(shared, np.nanmean(np.where(shared, apart, 0.0), axis=0), np.nan)
    counts = [np.bincount(s, minlength=n).astype(float) for s in (match.stratum_first, match.stratum_second)]
    weight = counts[0] * counts[1] / (counts[0] + counts[1])
    inside = [
        mean_B[members] - side[stratum]
        for members, stratum, side in (
            (match.first, match.stratum_first, first), (match.second, match.stratum_second, second)
        )
    ]  # fmt: skip
    squares = np.array([float(np.nansum(rest**2)) for rest in inside])
    return difference, np.where(np.isfinite(difference), weight, 0.0), squares


def difference_of(table: Backbones, match: Match, target: str) -> tuple[Estimate, tuple[str, ...], int, Array]:
    """Estimate of a match, the pairs of clusters compared, how many clusters or pairs of them, and the differences."""
    difference, weight, squares = compare(table, match, target)
    use = weight > 0
    names, cluster_S = _clusters(table, match)
    n_clusters = len(np.unique(cluster_S[use])) if table.clusters is not None else 0
    if not use.any():
        return Estimate(None), names, n_clusters, difference
    share = weight[use] / weight[use].sum()
    value = float(share @ difference[use])
    between = float((weight[use] * (difference[use] - value) ** 2).sum())
    n, df = len(match.first) + len(match.second), len(match.first) + len(match.second) - int(use.sum()) - 1
    unit, n_units, scope = ("pair of backbones", int(use.sum()), "") if match.paired else ("backbone", n, "")
    se = np.sqrt((between + squares.sum()) / df / weight[use].sum()) if df > 0 else 0.0
    if not names and n_clusters >= FEWEST_UNITS and table.clusters is not None:
        own = pd.Series(difference[use]).groupby(cluster_S[use]).mean().to_numpy()
        value, unit, n_units, df = float(own.mean()), table.clusters.name, len(own), len(own) - 1
        se = float(own.std(ddof=1) / np.sqrt(len(own)))
    elif n_clusters and table.clusters is not None and n_clusters < table.clusters.n_units:
        scope = f"{n_clusters} {plural(table.clusters.name, n_clusters)}" if not names else ", ".join(names)
    several = any(SEVERAL in name for name in names)  # clusters on a side differ among themselves: no error fits them
    enough = n_units >= FEWEST_PAIRS and df > 1 and se > 0 and not several
    half = float(stats.t.ppf(0.975, df) * se) if enough else None
    made = Estimate(
        value,
        low=None if half is None else value - half,
        high=None if half is None else value + half,
        p=float(2 * stats.t.sf(abs(value) / se, df)) if enough else None,
        unit=unit, n_units=n_units, df=float(df), scope=scope, exploratory=True,
        left_out=tuple(k for k in match.released if k != CLUSTER),
        method="matched pairs" if match.paired else "groups of backbones that agree in all else",
    )  # fmt: skip
    return made, names, n_clusters, difference


def _clusters(table: Backbones, match: Match) -> tuple[tuple[str, ...], Index]:
    """Names of the pairs of clusters that differ between the sides, and the cluster, or pair, of each stratum.

    Where the backbones of one side lie in several clusters they have one name together.
    """
    if table.clusters is None:
        return (), np.zeros(match.n_strata, dtype=np.int64)
    level = table.clusters
    units = level.unit_B[match.first], level.unit_B[match.second]
    pair_S = np.zeros((2, match.n_strata), dtype=np.int64)
    for side, unit, stratum in ((0, units[0], match.stratum_first), (1, units[1], match.stratum_second)):
        pair_S[side, stratum] = unit
    if not set(units[0]) & set(units[1]) and not _one_cluster(pair_S, units, match):
        texts = [", ".join(level.names[k] for k in np.unique(side)) for side in units]
        return (f"{texts[0]}{SEVERAL}{texts[1]}",), np.zeros(match.n_strata, dtype=np.int64)
    apart = np.unique(pair_S[:, pair_S[0] != pair_S[1]], axis=1)
    return tuple(f"{level.names[a]} → {level.names[b]}" for a, b in apart.T), combined([pair_S[0], pair_S[1]])


def _one_cluster(pair_S: Index, units: tuple[Index, Index], match: Match) -> bool:
    """Whether every stratum has one cluster on either side."""
    return bool(
        (pair_S[0, match.stratum_first] == units[0]).all() and (pair_S[1, match.stratum_second] == units[1]).all()
    )


def contrast(table: Backbones, match: Match, target: str, about: tuple[str, object, object]) -> Contrast | None:
    """One comparison with everything that is said of it; None if no stratum has the outcome on both sides."""
    estimate, names, n_clusters, difference = difference_of(table, match, target)
    if estimate.value is None:
        return None
    known = np.isfinite(difference)
    mean_B = table.mean_B[target]
    sides = [
        per_stratum(mean_B, members, stratum, match.n_strata)[known]
        for members, stratum in ((match.first, match.stratum_first), (match.second, match.stratum_second))
    ]
    n, paired = int(known.sum()), match.paired
    released = tuple(k for k in match.released if k != CLUSTER)
    return Contrast(
        target, *about, released, n, len(match.first), len(match.second), paired, names, n_clusters,
        (float(sides[0].mean()), float(sides[1].mean())), estimate,
        wilcoxon_p(difference[known]) if paired else None,
        float(min(1.0, 2.0 ** (1 - n))) if paired else 1.0,
        cliffs_delta(sides[0], sides[1]), _some(difference[known]), _per_experiment(table, match, target),
        searched=_worth_searching(table, match, names),
    )  # fmt: skip


def _worth_searching(table: Backbones, match: Match, names: Sequence[str]) -> bool:
    """Whether a sentence may come of it: chosen by the design alone, so that the choice costs nothing."""
    enough = match.n_strata >= WORTH_SEARCHING and len(match.released) < MOST_RELEASED
    single = bool(names) and not any(SEVERAL in name for name in names)
    return single and enough and table.clusters is not None and table.clusters.n_units >= FEWEST_CLUSTERS


def _per_experiment(table: Backbones, match: Match, target: str) -> PerExperiment:
    n = match.n_strata
    both = [
        np.array([per_stratum(row, members, stratum, n) for row in table.outcome_DB[target]]).ravel()
        for members, stratum in ((match.first, match.stratum_first), (match.second, match.stratum_second))
    ]
    known = np.isfinite(both[0]) & np.isfinite(both[1])
    first, second = both[0][known], both[1][known]
    if not len(first):
        return PerExperiment(0, (float("nan"), float("nan")), float("nan"), 1.0, float("nan"))
    return PerExperiment(
        len(first), (float(first.mean()), float(second.mean())), float((second - first).mean()),
        wilcoxon_p(second - first), cliffs_delta(first, second),
    )  # fmt: skip


def within(table: Backbones, match: Match, target: str, partner: Variable) -> list[tuple[str, int, float]]:
    """Of a match the strata at each value of a partner that all strata agree in: (value, how many, mean difference)."""
    difference, weight, _ = compare(table, match, target)
    code_S = np.zeros(match.n_strata, dtype=np.int64)
    code_S[match.stratum_first] = table.code[partner.name][match.first]
    found = []
    for level in partner.levels:
        at = (table.values[partner.name].get_indexer(pd.Index([level]))[0] == code_S) & (weight > 0)
        if at.any():
            found.append((level_text(level), int(at.sum()), float(np.average(difference[at], weights=weight[at]))))
    return found


def signature(match: Match) -> tuple[frozenset[int], ...]:
    """The same for every name of one comparison."""
    sides = frozenset(match.first.tolist()), frozenset(match.second.tolist())
    return tuple(sorted(sides, key=min))


def plain(value: object) -> object:
    """A level as JSON has it: a number or a text."""
    value = value.item() if isinstance(value, np.generic) else value
    return level_text(value) if isinstance(value, float) and not np.isfinite(value) else value


def _some(difference: Array) -> tuple[float, ...]:
    """The pairs' differences, lowest first; of very many an even choice, to be drawn."""
    ordered = np.sort(difference)
    chosen = np.unique(np.linspace(0, len(ordered) - 1, MOST_DRAWN).round().astype(int))
    return tuple(float(value) for value in ordered[chosen])
