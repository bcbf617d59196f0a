"""One typed estimate and the one rule for its verdict; what is asserted anywhere asks here."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from statsmodels.stats.multitest import multipletests

from analysis.design.levels import FEWEST_UNITS
from analysis.tables.variables import Array

Verdict = Literal["clear", "likely", "open", "cannot tell"]
ALPHA = 0.05
FEWEST_DRAWS = 20  # defined draws that a bootstrap interval needs
# shares of the error that a page may make: variables; interactions, and comparisons of clusters, that are searched for
CONFIRMED, INTERACTIONS, COMPARISONS = 0.8, 0.1, 0.1


@dataclass(frozen=True)
class Estimate:
    """A number that a sentence, a figure or a table may assert.

    Attributes
    ----------
    value, low, high : in the outcome's own unit, with its 95 % interval; None where it cannot be had.
    p, p_adjusted : of this test alone, and after correction for all that the page looked at.
    unit, n_units : what was taken as independent, and how many of them there are.
    df : degrees of freedom of the t distribution behind the interval.
    method : how it was estimated.
    adjusted_for, left_out : other variables that are held equal, and those that could not be.
    scope : where it holds, if not in general ("these 4 architectures").
    doubts : what speaks against it; more than nothing keeps it from being clear.
    against : estimates of the same thing that point the other way; what does not hold in all is not asserted.
    exploratory : found by searching, or in an outcome that is not the primary one.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_adjusted: float | None = None
    unit: str = ""
    n_units: int = 0
    df: float | None = None
    method: str = ""
    adjusted_for: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    scope: str = ""
    doubts: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    exploratory: bool = False

    @property
    def excludes_zero(self) -> bool:
        """Whether there is an interval, and zero lies outside of it."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    @property
    def verdict(self) -> Verdict:
        """``clear`` and ``likely`` may be asserted; ``open`` may not; ``cannot tell``: no interval or no correction.

        Asserted is what excludes zero, survives the correction and is not contradicted by another estimate of the
        same; it is clear if it rests on at least :data:`FEWEST_UNITS` units and nothing else speaks against it.
        """
        if self.value is None or self.low is None or self.p_adjusted is None:
            return "cannot tell"
        if not self.excludes_zero or self.p_adjusted >= ALPHA or self.against:
            return "open"
        return "likely" if self.n_units < FEWEST_UNITS or self.doubts else "clear"

    @property
    def asserted(self) -> bool:
        """Whether a sentence may state it."""
        return self.verdict in ("clear", "likely")

    def corrected(self, p_adjusted: float | None) -> Estimate:
        """The same with its p corrected."""
        return replace(self, p_adjusted=p_adjusted)

    def doubted(self, *doubts: str, against: Sequence[str] = ()) -> Estimate:
        """The same with more that speaks against it."""
        return replace(self, doubts=(*self.doubts, *doubts), against=(*self.against, *against))

    def plain(self, scale: float = 1.0) -> dict[str, Any]:
        """For JSON, divided by ``scale``."""
        numbers = {name: number(getattr(self, name)) for name in ("value", "low", "high")}
        return {
            **{name: None if x is None else x / scale for name, x in numbers.items()},
            "p": number(self.p), "p_adjusted": number(self.p_adjusted), "unit": self.unit, "n_units": self.n_units,
            "df": number(self.df), "method": self.method, "adjusted_for": list(self.adjusted_for),
            "left_out": list(self.left_out), "scope": self.scope, "doubts": [*self.doubts, *self.against],
            "exploratory": self.exploratory, "verdict": self.verdict,
        }  # fmt: skip


NOTHING = Estimate(None)


def holm(p_values: Sequence[float | None], *, share: float = 1.0) -> list[float | None]:
    """Holm's step-down correction in the order given, within a share of the allowed error; None stays None."""
    at = [i for i, p in enumerate(p_values) if p is not None]
    adjusted: list[float | None] = [None] * len(p_values)
    if not at:
        return adjusted
    gc.freeze()  # statsmodels collects garbage at every call: 0.15 s of looking at what is loaded, thousands of times
    try:
        _, corrected, _, _ = multipletests([p_values[i] for i in at], method="holm")
    finally:
        gc.unfreeze()
    for i, p in zip(at, corrected, strict=True):
        adjusted[i] = float(min(1.0, p / share))
    return adjusted


def reachable(smallest: Sequence[float]) -> list[bool]:
    """Tests that could survive a correction for each other, by their smallest possible p (Tarone 1990).

    A test that could not reach it, whatever its data, takes no part in the family.
    """
    for members in range(1, len(smallest) + 1):
        able = [p <= ALPHA / members for p in smallest]
        if sum(able) <= members:
            return able
    return [True] * len(smallest)


def number(value: float | None) -> float | None:
    """A float for JSON: None instead of NaN and infinity."""
    return None if value is None or not np.isfinite(value) else float(value)


def interval(draws_R: Array, *, level: float = 0.95, least: float = 0.8) -> tuple[float | None, float | None]:
    """Percentile interval; None if fewer than ``least`` of the draws are defined, or there are too few."""
    finite = draws_R[np.isfinite(draws_R)]
    if len(finite) < max(FEWEST_DRAWS, least * len(draws_R)):
        return None, None
    tail = 50 * (1 - level)
    low, high = np.percentile(finite, [tail, 100 - tail])
    return float(low), float(high)


def basic_interval(estimate: float, draws_R: Array) -> tuple[float | None, float | None]:
    """Basic (reverse percentile) bootstrap interval of an estimate (Davison & Hinkley 1997, §5.2).

    Boosted trees shrink slopes, and shrink those of a resample, which has fewer distinct rows, the more: percentiles
    of the draws would lie nearer to zero than the truth does (``tests/bench/coverage.py`` shows by how much).
    """
    low, high = interval(draws_R)
    return (None, None) if low is None or high is None else (2 * estimate - high, 2 * estimate - low)
