"""The one rule for a verdict, and what it is corrected for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from analysis.estimates.estimate import Estimate, holm, reachable

SURE = Estimate(5.0, 2.0, 8.0, p=0.001, p_adjusted=0.01, unit="architecture", n_units=8)


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "clear"),
        ({"n_units": 7}, "likely"),
        ({"doubts": ("it cannot be told apart",)}, "likely"),
        ({"p_adjusted": 0.05}, "open"),
        ({"low": -0.1}, "open"),
        ({"against": ("matched pairs give less",)}, "open"),
        ({"low": None, "high": None}, "cannot tell"),
        ({"p_adjusted": None}, "cannot tell"),
        ({"value": None}, "cannot tell"),
    ],
)
def test_the_verdict(changes: dict, verdict: str) -> None:
    own = replace(SURE, **changes)
    assert own.verdict == own.plain()["verdict"] == verdict
    assert own.asserted == (verdict in ("clear", "likely"))


def test_holm_by_hand_and_within_a_share_of_the_error() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.01, None, 0.03]) == pytest.approx([0.02, None, 0.03], nan_ok=True)
    assert holm([0.01], share=0.5) == pytest.approx([0.02])
    assert holm([]) == []


def test_tests_that_cannot_reach_it_are_left_out() -> None:
    assert reachable([0.5, 0.25, 0.001]) == [False, False, True]
    assert reachable([2.0**-5] * 3) == [False] * 3
    assert reachable([2.0**-10] * 3) == [True] * 3
