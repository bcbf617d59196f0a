"""What the design cannot tell apart, from measures that know neither names nor codes of unordered levels.

One definition of what moves together, for all that asks. Legend: B backbones, V variables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import chi2_contingency
from statsmodels.stats.outliers_influence import variance_inflation_factor

from analysis.design.points import Design, Index, combined, shown
from analysis.tables.variables import Array, Variable

CONFOUNDED = 0.8  # association above which two variables are called hard to separate
ENOUGH = 2  # keys, and configurations of each, that a dependence must be seen in
COVERED = 0.5  # share of the backbones that these keys must hold
SINGULAR = 1e-9


@dataclass(frozen=True)
class Dependence:
    """A variable whose value others give, wherever they could have shown otherwise."""

    variable: str
    determined_by: tuple[str, ...]


@dataclass(frozen=True)
class Ties:
    """How the variables of a table hang together.

    Attributes
    ----------
    association_VV : |Spearman's ρ| of two ordered variables, correlation ratio of an unordered and an ordered one,
        Cramér's V of two unordered ones; the latter two are corrected for chance. 0 … 1; NaN where it is undefined.
    inflation_V : (generalised) variance inflation, on the scale of one column; inf: the others give the variable.
    bundles : variables of which each gives every other: one effect for all of them. The first is the axis.
    nested : variable → the one that decides whether it applies.
    """

    variables: tuple[str, ...]
    association_VV: Array
    inflation_V: Array
    dependences: tuple[Dependence, ...]
    bundles: tuple[tuple[str, ...], ...]
    nested: dict[str, str]

    def together(self, name: str) -> tuple[str, ...]:
        """The bundle that a variable is in; itself alone if there is none."""
        return next((bundle for bundle in self.bundles if name in bundle), (name,))

    def inseparable(self, name: str) -> tuple[str, ...]:
        """Other variables that one is hard to tell from: its bundle, what gives it or is given by it, or nearly so."""
        own = self.variables.index(name)
        near = {
            other
            for o, other in enumerate(self.variables)
            if o != own and np.isfinite(x := self.association_VV[own, o]) and x > CONFOUNDED
        }
        near |= {d.determined_by[0] for d in self.dependences if d.variable == name and len(d.determined_by) == 1}
        near |= {d.variable for d in self.dependences if d.determined_by == (name,)}
        return tuple(other for other in self.variables if other in (near | set(self.together(name))) - {name})


def of(design: Design) -> Ties:
    """All ties of a design."""
    bundles = _bundles(design)
    return Ties(
        variables=design.names,
        association_VV=association(design),
        inflation_V=inflation(design),
        dependences=tuple(dependences(design)),
        bundles=bundles,
        nested=_nested(design),
    )


def association(design: Design) -> Array:
    """Strength of association of each pair of variables over backbones, where both have a value (V, V)."""
    n = len(design.variables)
    result = np.full((n, n), np.nan)
    for u in range(n):
        for v in range(u, n):
            first, second = shown(design, u), shown(design, v)
            both = np.isfinite(first) & np.isfinite(second)
            pair = (design.variables[u], first[both]), (design.variables[v], second[both])
            result[u, v] = result[v, u] = _associated(*pair)
    return result


def _associated(first: tuple[Variable, Array], second: tuple[Variable, Array]) -> float:
    (a, x_B), (b, y_B) = first, second
    if len(x_B) < 3 or np.ptp(x_B) == 0 or np.ptp(y_B) == 0:
        return float("nan")
    if a.has_slope and b.has_slope:
        ranks = pd.DataFrame({"x": x_B, "y": y_B}).rank()
        return abs(float(np.corrcoef(ranks["x"], ranks["y"])[0, 1]))
    if a.has_slope:
        return _ratio(y_B, x_B)
    return _ratio(x_B, y_B) if b.has_slope else cramers_v(x_B, y_B)


def cramers_v(x_B: Array, y_B: Array) -> float:
    """Cramér's V of two unordered variables, corrected for its bias (Bergsma 2013); NaN if it is undefined."""
    table = pd.crosstab(x_B, y_B).to_numpy()
    n, (rows, columns) = int(table.sum()), table.shape
    if n < 3 or min(rows, columns) < 2:
        return float("nan")
    phi2 = chi2_contingency(table, correction=False).statistic / n
    phi2 = max(0.0, phi2 - (rows - 1) * (columns - 1) / (n - 1))
    rows_, columns_ = rows - (rows - 1) ** 2 / (n - 1), columns - (columns - 1) ** 2 / (n - 1)
    smallest = min(rows_, columns_) - 1
    return float(min(1.0, np.sqrt(phi2 / smallest))) if smallest > SINGULAR else float("nan")


def _ratio(group_B: Array, value_B: Array) -> float:
    """Correlation ratio of ranks by group, corrected for the number of groups (Kelley's ε)."""
    rank = pd.Series(value_B).rank()
    total = float(((rank - rank.mean()) ** 2).sum())
    within = float(((rank - rank.groupby(group_B).transform("mean")) ** 2).sum())
    n, groups = len(rank), len(np.unique(group_B))
    if n <= groups or total <= 0:
        return float("nan")
    return float(np.sqrt(max(0.0, 1 - within / total * (n - 1) / (n - groups))))


def columns_of(variable: Variable, code_B: Array) -> Array:
    """A variable as columns for a linear model: its codes if ordered, else one column per level but the first."""
    if variable.has_slope:
        known = code_B[np.isfinite(code_B)]
        return np.where(np.isfinite(code_B), code_B, known.mean() if len(known) else 0.0)[:, None]
    rank_B = np.where(np.isnan(code_B), -1, np.round(code_B * (len(variable.levels) - 1)))
    present = np.unique(rank_B)[1:]
    return (rank_B[:, None] == present).astype(float)


def inflation(design: Design) -> Array:
    """Generalised variance inflation of each variable over backbones (Fox & Monette 1992), per column and squared (V,).

    For one column per variable it is the common variance inflation factor.
    """
    parts = [columns_of(v, shown(design, i)) for i, v in enumerate(design.variables)]
    factors = np.full(len(parts), np.nan)
    if not parts or len(design.point_B) <= sum(part.shape[1] for part in parts) + 1:
        return factors
    owner = np.repeat(np.arange(len(parts)), [part.shape[1] for part in parts])
    matrix = np.column_stack(parts)
    if (np.ptp(matrix, axis=0) == 0).any():
        return factors
    everything = np.column_stack([np.ones(len(matrix)), matrix])
    correlation = np.corrcoef(matrix, rowvar=False).reshape(len(owner), len(owner))
    rank = _rank(everything)
    for v in range(len(parts)):
        own = owner == v
        if rank < everything.shape[1] and rank < _rank(everything[:, np.r_[True, ~own]]) + own.sum():
            factors[v] = np.inf
        elif own.sum() == 1 and rank == everything.shape[1]:
            factors[v] = float(variance_inflation_factor(everything, 1 + int(np.flatnonzero(own)[0])))
        elif own.all():
            factors[v] = 1.0
        else:
            spread = _log_det(correlation[np.ix_(own, own)]) + _log_det(correlation[np.ix_(~own, ~own)])
            factors[v] = float(np.exp((spread - _log_det(correlation)) / own.sum()))
    return factors


def _rank(matrix: Array) -> int:
    return int(np.linalg.matrix_rank(matrix))


def _log_det(matrix: Array) -> float:
    values = np.linalg.eigvalsh(matrix)
    return float(np.log(values[values > SINGULAR]).sum())


def dependences(design: Design, *, most: int = 2) -> list[Dependence]:
    """Functional dependences, each with the fewest others whose values together give a variable.

    Sets of up to ``most`` variables are tried. A dependence counts only over values of the givers that hold at least
    two configurations, in at least two such values and half of the backbones: a value that stands once gives anything.
    """
    ranks = _ranks(design)
    configuration_B = combined(ranks) if ranks else np.zeros(0, dtype=np.int64)
    bundled = {name for bundle in _bundles(design) for name in bundle}
    found = []
    for v, name in enumerate(design.names):
        others = [o for o in range(len(design.names)) if o != v]
        for size in range(1, most + 1):
            sets = [s for s in combinations(others, size) if _gives([ranks[o] for o in s], ranks[v], configuration_B)]
            if size == 1:
                sets += [
                    (o,) for o in others
                    if name in bundled and (o,) not in sets and _one_to_one(ranks[o], ranks[v])
                ]  # fmt: skip
            sets.sort(key=lambda s: sum(len(design.variables[o].levels) for o in s))
            found += [Dependence(name, tuple(design.names[o] for o in s)) for s in sets]
            if sets:
                break
    return found


def _ranks(design: Design) -> list[npt.NDArray[np.int64]]:
    return [pd.factorize(shown(design, v), sort=True)[0].astype(np.int64) for v in range(len(design.variables))]


def _gives(givers: Sequence[Index], rank_B: Index, configuration_B: Index) -> bool:
    key_B = combined(givers)
    if combined([key_B, rank_B]).max(initial=-1) != key_B.max(initial=-1):
        return False
    frame = pd.DataFrame({"key": key_B, "value": rank_B, "configuration": configuration_B})
    by = frame.groupby("key").nunique()
    shared = by.index[by["configuration"] >= ENOUGH]
    if len(shared) < ENOUGH or frame["key"].isin(shared).mean() < COVERED:
        return False
    return frame.loc[frame["key"].isin(shared), "value"].nunique() >= ENOUGH


def _one_to_one(first_B: Index, second_B: Index) -> bool:
    """Whether each value of one stands with one value of the other, and values repeat."""
    n_first, n_second = len(np.unique(first_B)), len(np.unique(second_B))
    both = int(combined([first_B, second_B]).max(initial=-1)) + 1
    return n_first == n_second == both and ENOUGH * n_first <= len(first_B)


def _bundles(design: Design) -> tuple[tuple[str, ...], ...]:
    ranks = _ranks(design)
    left, found = list(range(len(ranks))), []
    while left:
        first = left.pop(0)
        members = [first, *(o for o in left if _one_to_one(ranks[first], ranks[o]))]
        left = [o for o in left if o not in members]
        if len(members) > 1:
            members.sort(key=lambda v: (not design.variables[v].ordered, design.variables[v].kind == "numeric"))
            found.append(tuple(design.names[v] for v in members))
    return tuple(found)


def _nested(design: Design) -> dict[str, str]:
    """Variables that do not apply everywhere, and the variable whose value decides where they do."""
    found = {}
    for u, name in enumerate(design.names):
        applies_B = np.isfinite(shown(design, u))
        if applies_B.all() or not applies_B.any():
            continue
        for v, giver in enumerate(design.names):
            code_B = shown(design, v)
            if v == u or not np.isfinite(code_B).all() or len(np.unique(code_B)) > len(code_B) / ENOUGH:
                continue
            if (pd.Series(applies_B).groupby(code_B).nunique() == 1).all():
                found[name] = giver
                break
    return found
