"""Experiments → design: codes of the variables, distinct feature vectors, groups; how far they are confounded.

Legend: N experiments, V variables, F features (one-hot parts count apart), P design points (distinct feature
vectors), B backbones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.design.levels import Index, Level, levels
from analysis.tables.errors import UserError
from analysis.tables.variables import Array, Variable, code


@dataclass(frozen=True)
class Design:
    """The design of one target: which experiment has which feature vector.

    Attributes
    ----------
    code_PV : position of each level, scaled to [0, 1]; NaN where missing. One row per design point.
    point_N, backbone_N, dataset_N : design point, backbone and OOD dataset of each experiment.
    point_B : design point of each backbone.
    outcome_N : the target's values, in its own unit.
    levels : what backbones lie in, from coarse to fine; the last is the backbone itself.
    datasets, backbones : their names, by number.
    parts : declared group of each variable that has one.
    """

    variables: tuple[Variable, ...]
    code_PV: Array
    point_N: Index
    backbone_N: Index
    dataset_N: Index
    point_B: Index
    outcome_N: Array
    levels: tuple[Level, ...]
    datasets: tuple[str, ...]
    backbones: tuple[str, ...]
    parts: Mapping[str, str]

    @property
    def n_points(self) -> int:
        """Number of distinct feature vectors."""
        return len(self.code_PV)

    @property
    def names(self) -> tuple[str, ...]:
        """Variable names, in column order."""
        return tuple(v.name for v in self.variables)


def build(
    frame: pd.DataFrame,
    variables: Sequence[Variable],
    outcome: str,
    *,
    clusters: Mapping[str, str] | None = None,
    context: Sequence[str] = (),
    parts: Mapping[str, str] | None = None,
) -> Design:
    """Design of the rows that have this outcome.

    Parameters
    ----------
    clusters : levels above the backbone: name → column.
    context : columns that tell configurations apart though they are no variables.

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
    first = rows.assign(_number=backbone_N).drop_duplicates("_number").sort_values("_number")
    keys = [point_B, *(pd.factorize(first[name])[0] for name in context)]
    datasets = pd.factorize(rows["dataset"])
    return Design(
        variables=tuple(variables),
        code_PV=code_PV,
        point_N=point_N,
        backbone_N=backbone_N.astype(np.int64),
        dataset_N=datasets[0].astype(np.int64),
        point_B=point_B,
        outcome_N=rows[outcome].to_numpy(float),
        levels=levels(first, clusters or {}, combined(keys)) if len(first) else (),
        datasets=tuple(map(str, datasets[1])),
        backbones=tuple(map(str, names)),
        parts=parts or {},
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
    for level_N in codes:
        levels = int(level_N.max(initial=-1)) + 2
        if size * levels >= 2**62:  # close the gaps, so that the next number fits
            total, size = _dense(total)
        total, size = total * levels + level_N + 1, size * levels
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


def parts(design: Design) -> dict[str, list[int]]:
    """Variables of each declared group; variables of no group are left out."""
    grouped: dict[str, list[int]] = {}
    for v, name in enumerate(design.names):
        if name in design.parts:
            grouped.setdefault(design.parts[name], []).append(v)
    return dict(sorted(grouped.items()))


def shown(design: Design, v: int) -> Array:
    """Codes of a variable by backbone (B,)."""
    result: Array = design.code_PV[design.point_B, v]
    return result


def level_numbers(variable: Variable, code_B: Array) -> Index:
    """Number of each value among the variable's levels, from its code (B,)."""
    codes = code(variable, pd.Series(list(variable.levels), dtype=object))
    middle = (codes[1:] + codes[:-1]) / 2
    result: Index = np.searchsorted(middle, code_B).astype(np.int64)
    return result
