"""The adjusted model: what a variable changes, others held equal, over the units on which it varies.

OOD datasets are out of the outcome before (:mod:`analysis.estimates.additive`). A variable that is a property of its
units is estimated between them: what varies within is taken out first, unit means are fitted, and the interval is
Student's with the units left over. One that varies within its units is estimated within them, with an error that is
robust to effects which differ between units (CR2). Legend: B backbones, R rows that count, U units, K columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from analysis.design.levels import Unit, unit_of
from analysis.design.points import Design, Index, level_numbers, shown
from analysis.design.ties import Ties, columns_of
from analysis.estimates import linear
from analysis.estimates.linear import Contrast, Fit
from analysis.tables.variables import Array, Variable, level_text

MOST_LEVELS = 8  # an ordered variable with more is a curve of second degree
SPARE = 4  # units that must be left over when others are adjusted for
COMPONENT = " component"  # no variable: parts of the table that share no dataset
ROBUST = 4  # units that each level must hold for an error that allows levels of different spread
REPLICATED = 2  # units of a level that is compared: what one alone differs by may be its own, and no rest shows it


@dataclass(frozen=True)
class LevelEffect:
    """One level of a variable against another."""

    level: str
    against: str
    units: int
    backbones: int
    contrast: Contrast


@dataclass(frozen=True)
class Adjusted:
    """One variable in the adjusted model.

    Attributes
    ----------
    headline : from the lowest to the highest level, along a straight line if one of them stands in a single unit; of
        unordered levels from the lowest estimate to the highest.
    low, high : the levels that the headline compares.
    p : of the variable as a whole: all its levels, or their trend, are equal.
    levels : each level against the reference; one that stands in a single unit has no error.
    pairs : every two levels, the higher one second.
    alone : levels that stand in a single unit.
    """

    unit: Unit
    headline: Contrast
    low: str
    high: str
    p: float | None
    n_units: int
    levels: tuple[LevelEffect, ...]
    pairs: tuple[LevelEffect, ...]
    adjusted_for: tuple[str, ...]
    left_out: tuple[str, ...]
    method: str
    alone: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Rows:
    """Backbones that count for a variable, the columns of the variable, and what is absorbed."""

    used: Index
    y_R: Array
    level_R: Index  # position of the level among those present; of a curve always 0
    present: tuple[int, ...]  # the variable's levels that occur; of a curve its ends
    compared: tuple[int, ...]  # positions of the levels that more than one unit has; the first has no column
    own_RK: Array
    base_RK: Array
    unit_R: Index
    unit: Unit
    curve: bool


def estimate(
    design: Design, ties: Ties, y_B: Array, component_B: Index, name: str, *, adjust: Sequence[str] | None = None
) -> Adjusted | None:
    """Effect of one variable on an outcome of backbones (NaN: has none); None if it cannot be estimated at all.

    Parameters
    ----------
    component_B : parts of the table that must not be compared.
    adjust : variables to hold equal; None: all others that can be told apart from it. Those that cannot be are left
        out and named.
    """
    v = design.names.index(name)
    variable, rows = design.variables[v], _rows(design, v, y_B)
    if rows is None:
        return None
    tied = {*ties.together(name), *ties.inseparable(name)}  # to hold equal what goes along would leave nothing
    twins = {member for bundle in ties.bundles for member in bundle[1:]}  # the first of a bundle speaks for all
    wanted = [o for o in design.names if o != name and o not in tied | twins] if adjust is None else list(adjust)
    others = {o: _columns(design, ties, o, rows.used) for o in wanted}
    if np.ptp(component_B[rows.used]):
        others[COMPONENT] = _dummies(component_B[rows.used])
    fitted, kept, left = _fit(rows, others)
    if fitted is None:
        return None if len(rows.present) < 3 or not variable.ordered else _trend_only(variable, rows, others, ties)
    p, line = fitted.joint_p(_tested(rows)), None
    if variable.ordered and rows.own_RK.shape[1] > 1:
        line = _line(rows, {name: others[name] for name in kept})
        trend = None if line is None else line.joint_p(np.array([0]))
        known = [x for x in (p, trend) if x is not None]
        p = min(1.0, len(known) * min(known)) if known else None  # the better of levels and trend: paid for twice
    inseparable = [o for o in ties.inseparable(name) if o not in {*ties.together(name), *twins}]
    return _described(variable, rows, (fitted, line), p, [o for o in kept if o != COMPONENT], [*left, *inseparable])


def _trend_only(variable: Variable, rows: _Rows, others: dict[str, Array], ties: Ties) -> Adjusted | None:
    """An ordered variable whose levels are too many for its units: a straight line through them."""
    fitted, kept, left = _fit(replace(rows, own_RK=_score(rows)[:, None]), others)
    if fitted is None:
        return None
    texts, inseparable = _texts(variable, rows), ties.inseparable(variable.name)
    twins = {member for bundle in ties.bundles for member in bundle[1:]}
    left += [o for o in inseparable if o not in {*ties.together(variable.name), *twins}]
    kept = [o for o in kept if o != COMPONENT]
    headline, p = fitted.contrast(np.eye(fitted.x_NK.shape[1])[0]), fitted.joint_p(np.array([0]))
    return Adjusted(
        rows.unit, headline, texts[0], texts[-1], p, _informative(rows), (), (), tuple(kept), tuple(left),
        "a straight line " + _method(rows, fitted),
    )  # fmt: skip


def _rows(design: Design, v: int, y_B: Array) -> _Rows | None:
    variable, code_B = design.variables[v], shown(design, v)
    used = np.flatnonzero(np.isfinite(code_B) & np.isfinite(y_B))
    if len(used) < 2 or np.ptp(code_B[used]) == 0:
        return None
    unit = unit_of([level.only(used) for level in design.levels], code_B[used])
    curve = len(variable.levels) > MOST_LEVELS and variable.ordered
    code_R = code_B[used]
    if curve:
        z = code_R - code_R.mean()
        own, level_R = np.column_stack([code_R, z**2]), np.zeros(len(used), dtype=np.int64)
        present: tuple[int, ...] = (0, len(variable.levels) - 1)
        compared: tuple[int, ...] = (0, 1)
    else:
        level_R, found = pd.factorize(level_numbers(variable, code_R), sort=True)
        compared = _compared(level_R, unit)
        own, present = _dummies(level_R, compared[0] if compared else 0), tuple(int(k) for k in found)
    base = [np.ones((len(used), 1))]
    absorbed = unit.level if unit.within else unit.fixed
    if absorbed is not None:
        base.append(_dummies(absorbed.unit_B))
    return _Rows(
        used, y_B[used], level_R.astype(np.int64), present, compared, own, np.column_stack(base), unit.level.unit_B,
        unit, curve,
    )  # fmt: skip


def _compared(level_R: Index, unit: Unit) -> tuple[int, ...]:
    """Levels that stand in more than one unit; all, if the variable varies within them."""
    n_levels = int(level_R.max()) + 1
    held = [len(np.unique(unit.level.unit_B[level_R == k])) for k in range(n_levels)]
    return tuple(k for k in range(n_levels) if unit.within or held[k] >= REPLICATED)


def _tested(rows: _Rows) -> Index:
    """Columns that are zero if the levels that can be compared are equal."""
    if rows.curve:
        return np.arange(rows.own_RK.shape[1])
    first = rows.compared[0] if rows.compared else 0
    return np.array([k - (k > first) for k in rows.compared[1:]], dtype=np.int64)


def _dense(code_R: Index) -> Index:
    return pd.factorize(code_R, sort=True)[0].astype(np.int64)


def _dummies(code_R: Index, without: int = 0) -> Array:
    dense = _dense(code_R)
    return (dense[:, None] == np.delete(np.arange(dense.max(initial=0) + 1), without)).astype(float)


def _columns(design: Design, ties: Ties, name: str, used: Index) -> Array:
    """Columns of a variable that is held equal; where it does not apply it is at its mean, told apart if need be."""
    o = design.names.index(name)
    code_R = shown(design, o)[used]
    columns = columns_of(design.variables[o], code_R)
    if np.isnan(code_R).any() and name not in ties.nested:
        columns = np.column_stack([columns, np.isnan(code_R)])
    return columns[:, np.ptp(columns, axis=0) > 0]


def _fit(rows: _Rows, others: dict[str, Array]) -> tuple[Fit | None, list[str], list[str]]:
    """Fit with as many of the others as the units allow, those first that are least bound up with the variable."""
    unit_R = rows.unit_R
    n_units = int(unit_R.max()) + 1
    within = rows.unit.within or n_units == len(unit_R)
    base = rows.base_RK[:, linear.independent(rows.base_RK[:, :0], rows.base_RK)]
    y_R, inner = rows.y_R, {}
    if not within:  # a property of its units: first take out what varies within them
        inner = {name: columns for name, columns in others.items() if _varies_within(columns, unit_R)}
        y_R = _taken_out(y_R, inner, unit_R)
    outer = {name: columns for name, columns in others.items() if name not in inner}
    if not within:
        first = np.unique(unit_R, return_index=True)[1]
        y_R = np.bincount(unit_R, weights=y_R) / np.bincount(unit_R)
        base, own = base[first], rows.own_RK[first]
        outer = {name: columns[first] for name, columns in outer.items()}
        base = base[:, linear.independent(base[:, :0], base)]
    else:
        own = rows.own_RK
    if not linear.independent(base, own).all() or len(y_R) - base.shape[1] - own.shape[1] < 1:
        return None, [], []
    kept, left, matrix = list(inner), [], np.column_stack([own, base])
    spare = len(y_R) if rows.unit.within else len(y_R) - SPARE
    for name, columns in sorted(outer.items(), key=lambda item: _bound(item[1], own, base)):
        new = linear.independent(matrix, columns)
        if not new.any():
            if not _absorbed(columns, base):
                left.append(name)
            continue
        if matrix.shape[1] + new.sum() > spare:
            left.append(name)
            continue
        matrix = np.column_stack([matrix, columns[:, new]])
        kept.append(name)
    cluster = unit_R if rows.unit.within else None
    if cluster is None and len(y_R) == len(rows.y_R) and not rows.curve and _enough(rows.level_R):
        cluster = np.arange(len(y_R))
    return linear.fit(y_R, matrix, cluster), kept, left


def _enough(level_R: Index) -> bool:
    return int(np.bincount(level_R).min()) >= ROBUST


def _bound(columns: Array, own: Array, base: Array) -> float:
    """How much of an other's columns the variable's own explain, beyond the base."""
    if not columns.shape[1]:
        return 0.0
    rest = columns - base @ np.linalg.lstsq(base, columns, rcond=None)[0]
    total = float((rest**2).sum())
    apart = own - base @ np.linalg.lstsq(base, own, rcond=None)[0]
    left = rest - apart @ np.linalg.lstsq(apart, rest, rcond=None)[0]
    return 1 - float((left**2).sum()) / total if total > 0 else 0.0


def _absorbed(columns: Array, base: Array) -> bool:
    return not columns.shape[1] or not linear.independent(base, columns).any()


def _varies_within(columns: Array, unit_R: Index) -> bool:
    means = np.array([np.bincount(unit_R, weights=column) for column in columns.T]).T / np.bincount(unit_R)[:, None]
    return bool(columns.shape[1]) and bool(np.abs(columns - means[unit_R]).max(initial=0.0) > 1e-12)


def _taken_out(y_R: Array, inner: dict[str, Array], unit_R: Index) -> Array:
    """The outcome without what varies within units, by regression within them."""
    if not inner:
        return y_R
    matrix = np.column_stack(list(inner.values()))
    centred = np.column_stack([matrix, y_R])
    means = np.array([np.bincount(unit_R, weights=column) for column in centred.T]).T / np.bincount(unit_R)[:, None]
    centred = centred - means[unit_R]
    beta = np.linalg.lstsq(centred[:, :-1], centred[:, -1], rcond=None)[0]
    result: Array = y_R - (matrix - matrix.mean(axis=0)) @ beta
    return result


def _line(rows: _Rows, others: dict[str, Array]) -> Fit | None:
    """The fit with a straight line through the levels."""
    return _fit(replace(rows, own_RK=_score(rows)[:, None]), others)[0]


def _score(rows: _Rows) -> Array:
    """Position from 0 at the lowest level to 1 at the highest (R,)."""
    if rows.curve:
        result: Array = (rows.own_RK[:, 0] - rows.own_RK[:, 0].min()) / np.ptp(rows.own_RK[:, 0])
        return result
    return rows.level_R / (len(rows.present) - 1)


def _described(
    variable: Variable,
    rows: _Rows,
    fits: tuple[Fit, Fit | None],
    p: float | None,
    kept: Sequence[str],
    left: Sequence[str],
) -> Adjusted:
    fitted, line = fits
    size = fitted.x_NK.shape[1]
    texts = _texts(variable, rows)
    levels: list[LevelEffect] = []
    pairs: list[LevelEffect] = []
    c_LK, rank = np.zeros((0, size)), list[int]()
    straight = line is not None and (rows.curve or not {0, len(texts) - 1} <= set(rows.compared))
    if not rows.curve:
        c_LK = np.insert(np.eye(size)[: len(texts) - 1], rows.compared[0] if rows.compared else 0, 0.0, axis=0)
        reference = _reference(variable, texts, rows)
        levels = [_effect(rows, fitted, texts, c_LK, reference, k) for k in range(len(texts))]
        rank = [int(k) for k in np.argsort(c_LK @ fitted.beta_K, kind="stable")]
        pairs = [
            _effect(rows, fitted, texts, c_LK, rank[i], rank[j])
            for i in range(len(rank)) for j in range(i + 1, len(rank))
        ]  # fmt: skip
    if straight and line is not None:
        headline, low, high = line.contrast(np.eye(line.x_NK.shape[1])[0]), texts[0], texts[-1]
    else:
        a, b = _ends(variable, rows, rank)
        headline, low, high = _contrast(rows, fitted, c_LK, a, b), texts[a], texts[b]
    return Adjusted(
        rows.unit, headline, low, high, p, _informative(rows), tuple(levels), tuple(pairs), tuple(kept), tuple(left),
        f"a straight line {_method(rows, line)}" if straight and line is not None else _method(rows, fitted),
        () if rows.curve else tuple(text for k, text in enumerate(texts) if k not in rows.compared),
    )  # fmt: skip


def _ends(variable: Variable, rows: _Rows, rank: Sequence[int]) -> tuple[int, int]:
    """The two levels that a headline compares; ``rank``: levels by their estimates."""
    if variable.has_slope:
        return 0, len(rows.present) - 1
    able = [k for k in rank if k in rows.compared]
    return (able[0], able[-1]) if len(able) > 1 else (rank[0], rank[-1])


def _informative(rows: _Rows) -> int:
    """Units that the estimate rests on: all, or those within which the variable varies."""
    if not rows.unit.within:
        if rows.unit.fixed is None:
            return int(rows.unit_R.max()) + 1
        spread = pd.DataFrame(rows.own_RK).groupby(rows.unit.fixed.unit_B).nunique().max(axis=1)
        inside = np.isin(rows.unit.fixed.unit_B, spread.index[spread > 1])
        return len(np.unique(rows.unit_R[inside]))
    spread = pd.DataFrame(rows.own_RK).groupby(rows.unit_R).nunique().max(axis=1)
    return int((spread > 1).sum())


def _texts(variable: Variable, rows: _Rows) -> list[str]:
    return [level_text(variable.levels[k]) for k in rows.present]


def _reference(variable: Variable, texts: Sequence[str], rows: _Rows) -> int:
    if variable.reference in texts:
        return list(texts).index(str(variable.reference))
    if variable.ordered:
        return rows.compared[0] if rows.compared else 0
    return int(np.argmax(np.bincount(rows.level_R)))


def _effect(rows: _Rows, fitted: Fit, texts: Sequence[str], c_LK: Array, against: int, level: int) -> LevelEffect:
    own = rows.level_R == level
    return LevelEffect(
        texts[level], texts[against], len(np.unique(rows.unit_R[own])), int(own.sum()),
        _contrast(rows, fitted, c_LK, against, level),
    )  # fmt: skip


def _contrast(rows: _Rows, fitted: Fit, c_LK: Array, against: int, level: int) -> Contrast:
    """Of two levels; without an error if either stands in one unit only."""
    made = fitted.contrast(c_LK[level] - c_LK[against])
    return made if {against, level} <= set(rows.compared) else replace(made, se=float("nan"), df=0)


def _method(rows: _Rows, fitted: Fit) -> str:
    if rows.unit.within:
        return "within units; CR2 error by unit, Satterthwaite degrees of freedom"
    if fitted.cluster_N is not None:
        return "between units; HC2 error, Satterthwaite degrees of freedom"
    return f"between units; pooled error, t({fitted.df})"
