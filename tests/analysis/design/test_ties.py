"""What a design cannot tell apart: from measures that know neither names nor codes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis import study
from analysis.design import points, ties
from analysis.tables.variables import describe
from tests import synthetic_cases


def design_of(frame: pd.DataFrame, names: list[str], kinds: dict | None = None) -> points.Design:
    frame = frame.assign(backbone=[str(i) for i in range(len(frame))], dataset="x", y=np.arange(len(frame)) * 1.0)
    return points.build(frame, describe(frame, names, kinds), "y")


def test_exact_dependence_is_found_and_named() -> None:
    frame = pd.DataFrame({"stem": [3, 3, 7, 7, 8, 8], "family": ["CNN"] * 4 + ["ViT"] * 2, "aug": [0, 1] * 3})
    found = ties.of(design_of(frame, ["stem", "family", "aug"]))
    assert ties.Dependence("family", ("stem",)) in found.dependences
    assert not any(d.variable == "aug" for d in found.dependences)
    assert found.inseparable("family") == ("stem",)
    assert found.bundles == ()  # stem gives family, but not the other way round


def test_what_always_changes_together_is_one_bundle() -> None:
    frame = pd.DataFrame({"depth": [11, 17, 12] * 2, "family": ["CNN", "CNN", "ViT"] * 2, "aug": [0, 0, 0, 1, 1, 1]})
    frame = frame.assign(stem=frame.family.map({"CNN": 3, "ViT": 8}))
    found = ties.of(design_of(frame, ["depth", "family", "stem", "aug"]))
    assert found.bundles == (("family", "stem"),)
    assert ties.Dependence("family", ("depth",)) in found.dependences


def test_a_value_that_stands_once_determines_nothing() -> None:
    rng = np.random.default_rng(0)
    case = synthetic_cases.nearly_unique(rng)
    frame = case.frame.drop_duplicates("backbone")
    found = ties.of(design_of(frame, list(case.variables), dict(case.variables)))
    assert found.dependences == ()
    assert found.bundles == ()


def test_association_does_not_depend_on_names(tmp_path: Path) -> None:
    case = synthetic_cases.families_and_sizes(np.random.default_rng(0))
    frame = case.frame.drop_duplicates("backbone")
    names = ["arch_family", "params"]
    strong = ties.association(design_of(frame, names, dict(case.variables)))[0, 1]
    rng = np.random.default_rng(1)
    renamed = dict(zip(frame.arch_family.unique(), rng.permutation(frame.arch_family.unique()), strict=True))
    other = ties.association(
        design_of(frame.assign(arch_family=frame.arch_family.map(renamed)), names, dict(case.variables))
    )
    assert strong > 0.95
    assert other[0, 1] == pytest.approx(strong)
    inflation = [
        ties.inflation(design_of(f, names, dict(case.variables)))
        for f in (frame, frame.assign(arch_family=frame.arch_family.map(renamed)))
    ]
    np.testing.assert_allclose(*inflation)
    text = " ".join(f.text for f in study.analyse(case.read(tmp_path), study.Options(bootstrap=0, jobs=1)).findings)
    assert "arch family with params" in text


def test_association_of_what_is_independent_is_near_zero_however_many_levels() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.choice(list("abcdefghij"), 200), "b": rng.choice(list("klmnop"), 200)})
    frame = frame.assign(n=rng.integers(0, 9, 200))
    found = ties.association(design_of(frame, ["a", "b", "n"]))
    assert found[np.triu_indices(3, 1)].max() < 0.2


def test_two_ordered_variables_have_spearmans_rho() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.integers(0, 5, 60)}).assign(b=lambda f: -f.a + rng.integers(0, 3, 60))
    expected = abs(stats.spearmanr(frame.a, frame.b).statistic)
    assert ties.association(design_of(frame, ["a", "b"]))[0, 1] == pytest.approx(expected)


def test_variance_inflation_by_hand() -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(0, 5, 200)
    b = np.clip(a + rng.integers(-1, 2, 200), 0, 4)
    frame = pd.DataFrame({"a": a, "b": b, "c": a})
    rho = np.corrcoef(a, b)[0, 1]
    np.testing.assert_allclose(ties.inflation(design_of(frame, ["a", "b"])), 1 / (1 - rho**2))
    assert np.isinf(ties.inflation(design_of(frame, ["a", "b", "c"]))[[0, 2]]).all()


def test_what_does_not_apply_is_nested_under_what_decides_it() -> None:
    case = synthetic_cases.inapplicable(np.random.default_rng(0))
    frame = case.frame.drop_duplicates("backbone")
    assert ties.of(design_of(frame, ["family", "patch"])).nested == {"patch": "family"}
