"""The claims: what the papers say, the difference of ours that answers it, and when it agrees."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pandas as pd

from .layout import Difference, between, weighted

YES, NO, OPEN = "yes", "no", "open"


@dataclass(frozen=True)
class Claim:
    """A sentence of a paper and the outcome that decides it.

    Attributes
    ----------
    papers : what it rests on there, with its number where the paper has one.
    outcome : column of the finding's frame.
    low, high : the two sides that are compared; without them the outcome's mean is the answer.
    only : without sides, the cells that count.
    sign : the direction that the paper claims; 0: no difference larger than ``margin``.
    """

    text: str
    papers: str
    outcome: str
    sign: int
    low: Mapping[str, object] = field(default_factory=dict)
    high: Mapping[str, object] = field(default_factory=dict)
    only: Mapping[str, object] = field(default_factory=dict)
    margin: float = 0.0
    unit: str = "points"


@dataclass(frozen=True)
class Finding:
    """A question, the frame that answers it, and its claims.

    Attributes
    ----------
    frame : store → one row per independent unit.
    varied : columns that make its cells; within a cell only the seed differs.
    unit : what the rows are.
    outcomes : columns whose cell means are kept; of the first also the differences between cells.
    """

    name: str
    title: str
    frame: Callable[[str], pd.DataFrame]
    varied: tuple[str, ...]
    claims: tuple[Claim, ...]
    unit: str = "backbones"
    outcomes: tuple[str, ...] = ("retained", "id_start", "id_length", "id_top1", "id_best", "last_rank")


def answer(found: Finding, frame: pd.DataFrame, claim: Claim) -> Difference:
    """The claim's difference, or the mean of its outcome over the cells."""
    if claim.low or claim.high:
        return between(frame, claim.outcome, found.varied, claim.low, claim.high)
    cell_B = pd.Series("all", frame.index)
    if found.varied:
        cell_B = frame[list(found.varied)].astype(str).agg(" ".join, axis=1)
    counts = pd.Series(True, frame.index)
    for column, value in claim.only.items():
        counts &= frame[column] == value
    cells = cell_B[counts].unique()
    return weighted(frame[claim.outcome], cell_B, {cell: 1 / len(cells) for cell in cells})


def agrees(claim: Claim, found: Difference) -> str:
    """``yes``, ``no`` or ``open``: whether the interval lies on the claim's side, on the other, or on both."""
    if claim.sign:
        low, high = sorted((claim.sign * found.low, claim.sign * found.high))
        return YES if low > 0 else NO if high < 0 else OPEN
    if -claim.margin <= found.low and found.high <= claim.margin:
        return YES
    return NO if found.low > claim.margin or found.high < -claim.margin else OPEN
