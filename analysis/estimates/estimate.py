"""What makes a number certain: its interval, its p, one rule for both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from analysis.tables.variables import Array

FEWEST_DRAWS = 20  # defined draws that an interval needs


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


def permutation_p(observed: float, null_Q: Array) -> float | None:
    """Share of shuffles with a slope at least as large, the observed one counted; None without shuffles."""
    finite = null_Q[np.isfinite(null_Q)]
    if not np.isfinite(observed) or not len(finite):
        return None
    return float((1 + (np.abs(finite) >= abs(observed) - 1e-12).sum()) / (1 + len(finite)))


def certain(entry: Mapping[str, Any]) -> bool:
    """Whether both intervals of a slope exclude zero (the wider one where there is one)."""
    bounds = [(entry["low"], entry["high"]), (entry["low_with_datasets"], entry["high_with_datasets"])]
    known = [(low, high) for low, high in bounds if low is not None and high is not None]
    return bool(known) and all(low > 0 or high < 0 for low, high in known)


def number(value: float | None) -> float | None:
    """A float for JSON: None instead of NaN and infinity."""
    return None if value is None or not np.isfinite(value) else float(value)
