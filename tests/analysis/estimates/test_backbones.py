"""Intervals of shares that cannot be negative."""

import warnings

import numpy as np
import pytest
from scipy import stats

from analysis.estimates.additive import Additive
from analysis.estimates.backbones import possible


def test_intervals_are_students_on_the_logarithm_and_know_nothing_of_a_mean_near_0():
    mean_B, n_B = np.array([80.0, 1e-6, 0.0]), np.array([4, 4, 4])
    additive = Additive(mean_B, np.zeros(4), 6.0, 9, np.zeros(3, int), True)
    with warnings.catch_warnings(action="error"):
        low_B, high_B = possible(mean_B, n_B, additive, most=104.0)
    half = stats.t.ppf(0.975, 9) * 6.0 / 2
    assert low_B[0] == pytest.approx(80 * np.exp(-half / 80))
    assert high_B[0] == pytest.approx(80 * np.exp(half / 80))
    assert (low_B[1], high_B[1]) == (0.0, 104.0)
    assert np.isnan(low_B[2])
