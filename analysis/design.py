"""Experiments → design: codes of the variables, distinct feature vectors, groups; how far they are confounded.

Legend: N experiments, V variables, F features (one-hot parts count apart), P design points (distinct feature
vectors), B backbones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis import vocabulary
from analysis.errors import UserError

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]
Kind = Literal["numeric", "ordinal", "categorical"]
CONFOUNDED = 0.8  # |ρ| above which a pair of variables is called confounded


@dataclass(frozen=True)
class Variable:
    """A column that outcomes are attributed to.

    Attributes
    ----------
    kind : ordinal values enter as ranks ([H24] A.9), numeric ones keep their spacing, categorical ones one-hot.
    levels : its values, low to high. A missing value is not a level.
    """

    name: str
    kind: Kind
    levels: tuple[object, ...]

    @property
    def label(self) -> str:
        """Name for people."""
        return vocabulary.label(self.name)

    @property
    def has_slope(self) -> bool:
        """Whether 'from low to high' means something: ordered, or two levels only."""
        return self.kind != "categorical" or len(self.levels) == 2

    @property
    def text(self) -> str:
        """'from → to' of its scale."""
        return f"{level_text(self.levels[0])} → {level_text(self.levels[-1])}"


def level_text(value: object) -> str:
    """A level in words: numbers without trailing zeros."""
    if isinstance(value, float | np.floating):
        if not np.isfinite(value):
            return "all" if value > 0 else "unknown"
        number = float(value)
        return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.4g}"
    return str(value)


@dataclass(frozen=True)
class Design:
    """The design of one target: which experiment has which feature vector.

    Attributes
    ----------
    code_PV : position of each level, scaled to [0, 1]; NaN where missing. One row per design point.
    point_N, backbone_N, dataset_N : design point, backbone and OOD dataset of each experiment.
    point_B : design point of each backbone.
    outcome_N : the target's values, in its own unit.
    """

    variables: tuple[Variable, ...]
    code_PV: Array
    point_N: Index
    backbone_N: Index
    dataset_N: Index
    point_B: Index
    outcome_N: Array

    @property
    def n_points(self) -> int:
        """Number of distinct feature vectors."""
        return len(self.code_PV)

    @property
    def names(self) -> tuple[str, ...]:
        """Variable names, in column order."""
        return tuple(v.name for v in self.variables)


def describe(
    frame: pd.DataFrame, names: Sequence[str], kinds: Mapping[str, Kind] | None = None
) -> tuple[Variable, ...]:
    """Levels and kind of each variable; columns of words without a known order are categorical."""
    return tuple(_variable(name, frame[name], (kinds or {}).get(name)) for name in sorted(names))


def _variable(name: str, column: pd.Series, kind: Kind | None) -> Variable:
    if isinstance(column.dtype, pd.CategoricalDtype) and column.dtype.ordered:
        present = set(column.dropna().unique())
        return Variable(name, kind or "ordinal", tuple(level for level in column.dtype.categories if level in present))
    levels = list(column.dropna().unique())
    order = vocabulary.KNOWN[name].order if name in vocabulary.KNOWN else ()
    if pd.api.types.is_numeric_dtype(column):
        return Variable(name, kind or "ordinal", tuple(sorted(levels)))
    if order and set(map(str, levels)) <= set(order):
        return Variable(name, kind or "ordinal", tuple(sorted(levels, key=lambda v: order.index(str(v)))))
    return Variable(name, "categorical", tuple(sorted(levels, key=str)))


def code(variable: Variable, column: pd.Series) -> Array:
    """Values of a variable as positions in [0, 1] (ranks, or the values' own spacing if numeric); NaN if missing."""
    if variable.kind == "numeric":
        values = np.asarray(column, dtype=np.float64)
        low, high = float(variable.levels[0]), float(variable.levels[-1])  # type: ignore[arg-type]
        return (values - low) / (high - low)
    ranks = {level: i / max(len(variable.levels) - 1, 1) for i, level in enumerate(variable.levels)}
    return np.asarray(column.map(ranks), dtype=np.float64)


def build(frame: pd.DataFrame, variables: Sequence[Variable], outcome: str) -> Design:
    """Design of the rows that have this outcome.

    Raises
    ------
    UserError
        If a backbone has two values of one variable.
    """
    rows = frame[np.isfinite(frame[outcome].to_numpy(float))]
    code_NV = np.column_stack([code(v, rows[v.name]) for v in variables]) if variables else np.zeros((len(rows), 0))
    code_PV, point_N = distinct(code_NV)
    backbone_N, names = pd.factorize(rows["backbone"])
    point_B = np.zeros(len(names), dtype=np.int64)
    point_B[backbone_N] = point_N
    clash = np.flatnonzero(point_B[backbone_N] != point_N)
    if len(clash):
        raise UserError(
            f"backbone {names[backbone_N[clash[0]]]}: its rows differ in {_differing(rows, variables, clash[0])}"
        )
    return Design(
        variables=tuple(variables),
        code_PV=code_PV,
        point_N=point_N,
        backbone_N=backbone_N.astype(np.int64),
        dataset_N=pd.factorize(rows["dataset"])[0].astype(np.int64),
        point_B=point_B,
        outcome_N=rows[outcome].to_numpy(float),
    )


def _differing(rows: pd.DataFrame, variables: Sequence[Variable], at: int) -> str:
    own = rows[rows["backbone"] == rows["backbone"].iloc[at]]
    name = next(v.name for v in variables if own[v.name].nunique(dropna=False) > 1)
    return f"column {name}; the group must be the backbone, and a variable a property of it"


def distinct(code_NV: Array) -> tuple[Array, Index]:
    """Distinct rows, in lexicographic order, and the index of each row's; missing values are equal to one another."""
    if code_NV.shape[1] == 0:
        return np.zeros((min(len(code_NV), 1), 0)), np.zeros(len(code_NV), dtype=np.int64)
    point_N = combined([pd.factorize(column, sort=True)[0] for column in code_NV.T])
    first_P = np.zeros(int(point_N.max(initial=-1)) + 1, dtype=np.int64)
    first_P[point_N[::-1]] = np.arange(len(point_N))[::-1]
    return code_NV[first_P], point_N


def combined(codes: Sequence[npt.NDArray[Any]]) -> Index:
    """One number per distinct combination of codes (−1: missing), from 0 without gaps, in lexicographic order."""
    total, size = np.zeros(len(codes[0]), dtype=np.int64), 1
    for code in codes:
        levels = int(code.max(initial=-1)) + 2
        if size * levels >= 2**62:  # close the gaps, so that the next number fits
            total, size = _dense(total)
        total, size = total * levels + code + 1, size * levels
    return _dense(total)[0]


def _dense(key_N: Index) -> tuple[Index, int]:
    """Keys renumbered from 0 without gaps in their order, and how many there are."""
    top = int(key_N.max(initial=-1)) + 1
    if top <= 4 * len(key_N):  # few enough to count: no need to sort
        present = np.zeros(top, dtype=bool)
        present[key_N] = True
        return (np.cumsum(present) - 1)[key_N], int(present.sum())
    code_N, keys = pd.factorize(key_N)
    rank = np.empty(len(keys), dtype=np.int64)
    rank[np.argsort(keys)] = np.arange(len(keys))
    return rank[code_N], len(keys)


def totals(group_N: Index, value_N: npt.NDArray[Any], size: int) -> Array:
    """Sum of the values of each group (size,)."""
    result: Array = np.bincount(group_N, weights=value_N, minlength=size).astype(float)
    return result


def features(design: Design, *, full_one_hot: bool) -> tuple[Array, Index]:
    """Model inputs of the design points, and the variable that each input belongs to.

    Categorical variables become one column per level. Two levels need one column only; ``full_one_hot`` makes two, as
    [H24] does.
    """
    columns, owner = [], []
    for v, variable in enumerate(design.variables):
        code_P = design.code_PV[:, v]
        if variable.kind == "categorical" and (full_one_hot or len(variable.levels) > 2):
            rank_P = np.where(np.isnan(code_P), -1, np.round(code_P * max(len(variable.levels) - 1, 1)))
            columns += [(rank_P == level).astype(float) for level in range(len(variable.levels))]
            owner += [v] * len(variable.levels)
        else:
            columns.append(code_P)
            owner.append(v)
    matrix = np.column_stack(columns) if columns else np.zeros((design.n_points, 0))
    return matrix, np.array(owner, dtype=np.int64)


def correlation(design: Design) -> Array:
    """Spearman-like correlation of the variables over backbones: Pearson on codes; NaN where undefined (V, V)."""
    code_BV = design.code_PV[design.point_B]
    frame = pd.DataFrame(code_BV, columns=list(design.names))
    result: Array = frame.corr(min_periods=3).to_numpy()
    return result


def inflation(design: Design) -> Array:
    """Variance inflation factor of each variable over backbones; inf where the others give it exactly (V,)."""
    code_BV = design.code_PV[design.point_B]
    code_BV = code_BV[np.isfinite(code_BV).all(axis=1)]
    factors = np.full(len(design.variables), np.nan)
    if len(code_BV) <= len(design.variables):
        return factors
    for v in range(len(design.variables)):
        others = np.column_stack([np.ones(len(code_BV)), np.delete(code_BV, v, axis=1)])
        centred = code_BV[:, v] - code_BV[:, v].mean()
        rest = code_BV[:, v] - others @ np.linalg.lstsq(others, code_BV[:, v], rcond=None)[0]
        total = float(centred @ centred)
        if total > 0:
            share = float(rest @ rest) / total
            factors[v] = 1 / share if share > 1e-9 else np.inf
    return factors


def dependences(design: Design, *, most: int = 2) -> list[tuple[str, tuple[str, ...]]]:
    """Exact functional dependences: (variable, the fewest others whose values together give it).

    Only sets of up to ``most`` variables are tried, and sets whose values are all different among the design points
    (which would 'give' anything) do not count.
    """
    ranks = [pd.factorize(column, sort=True)[0] for column in design.code_PV.T]
    found = []
    for v, name in enumerate(design.names):
        others = [o for o in range(len(design.names)) if o != v]
        for size in range(1, most + 1):
            sets = [s for s in combinations(others, size) if _gives([ranks[o] for o in s], ranks[v])]
            sets.sort(key=lambda s: sum(len(design.variables[o].levels) for o in s))
            found += [(name, tuple(design.names[o] for o in s)) for s in sets]
            if sets:
                break
    return found


def _gives(givers: Sequence[npt.NDArray[Any]], rank_P: npt.NDArray[Any]) -> bool:
    key_P = combined(givers)
    n_keys = int(key_P.max(initial=-1)) + 1
    return n_keys < len(rank_P) and n_keys == int(combined([key_P, rank_P]).max(initial=-1)) + 1


def parts(design: Design) -> dict[str, list[int]]:
    """Variables of each group (data, architecture, training) that is not empty."""
    grouped: dict[str, list[int]] = {}
    for part in vocabulary.PARTS:
        members = [v for v, name in enumerate(design.names) if vocabulary.part(name) == part]
        if members:
            grouped[part] = members
    return grouped
