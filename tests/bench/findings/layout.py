"""Differences between cells of backbones that differ in their seed alone: a one-way layout with pooled spread."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """A weighted sum of cell means with its Student interval.

    Attributes
    ----------
    value, low, high : in the outcome's unit; low and high are NaN where no cell has two backbones.
    n : backbones in the cells that have a weight.
    freedom : degrees of freedom, over all cells.
    """

    value: float
    low: float
    high: float
    n: int
    freedom: int


def weighted(outcome_B: pd.Series, cell_B: pd.Series, weight: Mapping[Hashable, float]) -> Difference:
    """Σ weight × mean of a cell, with a 95 % interval from the spread within all cells.

    Parameters
    ----------
    outcome_B : one number per backbone; NaN is left out.
    cell_B : the cell of each backbone.
    weight : cell → weight; each must have a backbone.

    Raises
    ------
    KeyError
        If a cell of ``weight`` has no backbone.
    """
    own: dict[Hashable, list[float]] = {}
    for cell, outcome in zip(cell_B, outcome_B.astype(float), strict=True):
        if not np.isnan(outcome):
            own.setdefault(cell, []).append(outcome)
    mean = {cell: float(np.mean(values)) for cell, values in own.items()}
    freedom = sum(len(values) - 1 for values in own.values())
    squares = sum(float(np.sum((np.asarray(values) - mean[cell]) ** 2)) for cell, values in own.items())
    value = sum(w * mean[cell] for cell, w in weight.items())
    reach = np.nan
    if freedom:
        error = np.sqrt(squares / freedom * sum(w * w / len(own[cell]) for cell, w in weight.items()))
        reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * error)
    return Difference(value, value - reach, value + reach, sum(len(own[cell]) for cell in weight), freedom)


def between(
    frame: pd.DataFrame, outcome: str, varied: tuple[str, ...], low: Mapping[str, object], high: Mapping[str, object]
) -> Difference:
    """Backbones of ``high`` less those of ``low``, averaged over what else varies.

    Parameters
    ----------
    frame : one row per backbone, with ``outcome`` and the columns ``varied``.
    varied : the columns that make the cells.
    low, high : values of some of these columns; cells that agree in all others are compared.

    Raises
    ------
    ValueError
        If the two sides have no cells in common but for these values.
    """
    cell_B = pd.Series(list(map(tuple, frame[list(varied)].to_numpy(object))), frame.index)
    rest = [column for column in varied if column not in low and column not in high]
    strata = [set(map(tuple, _rows(frame, side)[rest].to_numpy(object))) for side in (low, high)]
    common = strata[0] & strata[1]
    if not common:
        raise ValueError(f"no cells to compare: {dict(low)} with {dict(high)}")
    weight = {
        cell: sign / len(common)
        for sign, side in ((1.0, high), (-1.0, low))
        for cell in cell_B[_rows(frame, side).index].unique()
        if tuple(value for column, value in zip(varied, cell, strict=True) if column in rest) in common
    }
    return weighted(frame[outcome], cell_B, weight)


def _rows(frame: pd.DataFrame, side: Mapping[str, object]) -> pd.DataFrame:
    keep = pd.Series(True, frame.index)
    for column, value in side.items():
        keep &= frame[column] == value
    return frame[keep]
