"""What an interval rests on: the coarsest level on which a variable varies."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.design.levels import BACKBONE, CONFIGURATION, levels, unit_of
from analysis.tables.errors import UserError


def backbones(clusters: int, each: int, seeds: int = 1) -> pd.DataFrame:
    n = clusters * each * seeds
    return pd.DataFrame(
        {"net": np.repeat([f"n{i}" for i in range(clusters)], each * seeds), "own": np.arange(n) // seeds}
    )


@pytest.mark.parametrize(
    ("clusters", "varies", "unit", "fixed"),
    [
        (8, "between", "net", None),  # a property of architectures: they are the units
        (3, "between", "net", None),
        (2, "between", BACKBONE, None),  # two that are named: which of the two is higher
        (8, "within", "net", None),  # within enough of them: each shows its own effect
        (5, "within", BACKBONE, "net"),  # within few: it holds for these
    ],
)
def test_units_of_a_variable(clusters: int, varies: str, unit: str, fixed: str | None) -> None:
    frame = backbones(clusters, 6)
    number = pd.factorize(frame.net)[0]
    code_B = (number % 2 if varies == "between" else np.arange(len(frame)) % 2).astype(float)
    found = unit_of(levels(frame, {"net": "net"}, frame.own.to_numpy()), code_B)
    assert (found.level.name, found.fixed.name if found.fixed else None) == (unit, fixed)
    assert found.within == (varies == "within" and clusters >= 8)
    assert found.named == (("n0", "n1") if clusters == 2 else ())


def test_repeated_configurations_are_the_units_where_there_are_enough() -> None:
    many, few = backbones(1, 20, seeds=3), backbones(1, 4, seeds=3)
    for frame, unit in ((many, CONFIGURATION), (few, BACKBONE)):
        found = unit_of(levels(frame, {}, frame.own.to_numpy()), (frame.own % 2).to_numpy(float))
        assert found.level.name == unit


def test_levels_lie_in_each_other_or_are_refused() -> None:
    frame = backbones(4, 4).assign(family=lambda f: f.net.map({"n0": "a", "n1": "a", "n2": "b", "n3": "b"}))
    found = levels(frame, {"net": "net", "family": "family"}, frame.own.to_numpy())
    assert [level.name for level in found] == ["family", "net", BACKBONE]
    crossed = frame.assign(family=np.arange(16) % 2)
    with pytest.raises(UserError, match=r"(family and net|net and family) cross"):
        levels(crossed, {"net": "net", "family": "family"}, frame.own.to_numpy())
