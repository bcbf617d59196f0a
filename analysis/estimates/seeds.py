"""Means over seeds with their intervals, which seeds that tie on other images do not close.

What is independent is the seed; test images are the same for all. Between few seeds an accuracy may agree by chance:
two networks that are right on 812 images each, but not on the same ones, would differ if they were drawn again. Where
it is known which images were right, the error is therefore no smaller than that of images that each seed gets right
independently of each other. The larger of the two errors makes such intervals wider than 95 % asks for: with two to
four seeds and nothing but images to tell them apart they nearly always hold. Where seeds err on the same images, or
images go together, it is a lower bound. Legend: S seeds, N test images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from analysis.estimates.estimate import ALPHA, Estimate
from analysis.tables.variables import Array

_SAME = 1e-9  # points; differences of equal numbers that float arithmetic leaves


def mean_of(values: Sequence[float], images_SN: Array | None = None) -> Estimate:
    """Mean over seeds with its t interval; without one where there is a single seed, or nothing tells seeds apart.

    Parameters
    ----------
    values : one number per seed; NaN is left out.
    images_SN : what each test image adds to each seed's number, rows as ``values``; None: not known.
    """
    known_S = np.isfinite(np.asarray(values, float))
    own_S = np.asarray(values, float)[known_S]
    n = len(own_S)
    about: dict[str, Any] = {"unit": "seed", "n_units": n, "method": "mean over seeds, t interval"}
    if n == 0:
        return Estimate(None, **about)
    mean = float(own_S.mean())
    variance = float(own_S.var(ddof=1)) if n > 1 else 0.0
    if images_SN is not None and n > 1:
        variance = max(variance, float(images_SN[known_S].var(axis=0, ddof=1).sum()))
    error = float(np.sqrt(variance / n))
    if error < _SAME:
        return Estimate(mean, **about)
    reach = float(stats.t.ppf(1 - ALPHA / 2, n - 1)) * error
    p = float(2 * stats.t.sf(abs(mean) / error, n - 1))
    return Estimate(mean, mean - reach, mean + reach, p=p, df=n - 1.0, **about)


def images_of(rows: pd.DataFrame) -> Array | None:
    """Points of accuracy that each test image adds, (S, N), one row per row of a table of courses.

    Returns
    -------
    None where the table does not say which images were right, or not of the same number of images.
    """
    if "correct" not in rows or "n_test" not in rows or rows[["correct", "n_test"]].isna().any(axis=None):
        return None
    if rows["n_test"].nunique() != 1:
        return None
    count = int(rows["n_test"].iloc[0])
    bits = [np.unpackbits(np.frombuffer(each, np.uint8), count=count) for each in rows["correct"]]
    return 100 / count * np.asarray(bits, float)


def difference(left_SN: Array | None, right_SN: Array | None) -> Array | None:
    """What each image adds to a difference between two measurements of the same images; None: not known."""
    if left_SN is None or right_SN is None or left_SN.shape != right_SN.shape:
        return None
    return left_SN - right_SN
