"""Tables with a known truth: the false sentence is gone, the true one stands."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from analysis import study
from analysis.findings.phrases import Finding
from analysis.page.figures.drawing import dependence
from analysis.study import Study
from analysis.tables.errors import UserError
from tests import synthetic_cases
from tests.bench.coverage import page
from tests.synthetic_cases import Case

QUICK = study.Options(bootstrap=0, jobs=1)
DRAWS = 20


def told(case: Case, folder: Path) -> Study:
    return study.analyse(case.read(folder), QUICK)


def text_of(found: Study) -> str:
    return " ".join(finding.text for finding in found.findings)


def asserted(found: Study, *variables: str) -> list[Finding]:
    """Findings that assert something of these variables."""
    return [
        finding for finding in found.findings
        if finding.kind in ("effect", "interaction") and finding.verdict in ("clear", "likely")
        and (not variables or set(variables) & set(finding.variables))
    ]  # fmt: skip


@pytest.mark.parametrize("seed", [0, 1])
def test_easy_datasets_are_no_effect(tmp_path: Path, seed: int) -> None:
    found = told(synthetic_cases.unequal_datasets(np.random.default_rng(seed)), tmp_path)
    assert asserted(found, "aug") == []
    assert "Backbones were not all probed on the same OOD datasets (4 to 8 of 8 each)" in text_of(found)
    effect = next(e for e in found.outcomes["retained"].effects if e.name == "aug")
    for own in (effect.adjusted, effect.pairs, effect.trees):
        assert own.value == pytest.approx(0, abs=3.5)


def test_unordered_levels_are_told_one_by_one(tmp_path: Path) -> None:
    found = told(synthetic_cases.unordered(np.random.default_rng(0)), tmp_path)
    sentence = next(f for f in asserted(found, "objective"))
    assert sentence.verdict == "clear"
    by = dict(re.findall(r"(\w+) is (\d+\.\d) points (?:below|above) supervised", sentence.text))
    assert float(by["ssl"]) == pytest.approx(25, abs=4)
    assert float(by["clip"]) == pytest.approx(10, abs=4)
    assert asserted(found, "layers") == []


@pytest.mark.parametrize(
    ("draw", "points"), [(synthetic_cases.two_levels, 12), (synthetic_cases.seeds_of_their_own, 11)]
)
def test_two_values_with_many_backbones_are_a_comparison(
    tmp_path: Path, draw: synthetic_cases.Draw, points: int
) -> None:
    found = told(draw(np.random.default_rng(0)), tmp_path)
    effect = found.outcomes["retained"].effects[0]
    assert effect.verdict == "clear"
    assert effect.adjusted.value == pytest.approx(points, abs=3)
    assert effect.pairs.low is not None
    assert "cannot be estimated" not in text_of(found)


@pytest.mark.parametrize("seed", range(3))
def test_a_property_of_eight_architectures_rests_on_eight(tmp_path: Path, seed: int) -> None:
    found = told(synthetic_cases.architectures(np.random.default_rng(seed)), tmp_path)
    effects = {e.name: e for e in found.outcomes["retained"].effects}
    assert (effects["depth"].adjusted.unit, effects["depth"].adjusted.n_units) == ("architecture", 8)
    assert asserted(found, "depth") == []
    assert effects["augmentation"].verdict == "clear"
    assert effects["augmentation"].adjusted.value == pytest.approx(14, abs=3)


def test_dependences_on_what_stands_once_are_no_finding(tmp_path: Path) -> None:
    found = told(synthetic_cases.nearly_unique(np.random.default_rng(0)), tmp_path)
    assert "determined by" not in text_of(found)
    assert {name for f in asserted(found) for name in f.variables} == {"resolution"}


def test_a_bend_is_seen(tmp_path: Path) -> None:
    found = told(synthetic_cases.bent(np.random.default_rng(0)), tmp_path)
    (sentence,) = asserted(found, "id_classes")
    assert re.search(r"50 is 3\d\.\d points above 10 .*50 is 3\d\.\d points above 100", sentence.text)
    assert asserted(found, "augmentation") == []


def test_not_to_apply_is_no_effect(tmp_path: Path) -> None:
    case = synthetic_cases.inapplicable(np.random.default_rng(0))
    found = told(case, tmp_path)
    effects = {e.name: e for e in found.outcomes["retained"].effects}
    for own in (effects["family"].adjusted, effects["family"].trees):
        assert own.value == pytest.approx(20, abs=2.5)
    assert effects["family"].slope.value == pytest.approx(20, abs=4)  # not half of it
    assert effects["patch"].verdict == "open"
    assert "Patch applies for some values of family only" in text_of(found)
    with pytest.raises(UserError, match="the paper's model takes no gaps, and patch has no value"):
        study.analyse(case.read(tmp_path), study.Options(protocol="paper", bootstrap=0, jobs=1))


def test_groups_are_not_pairs(tmp_path: Path) -> None:
    found = told(synthetic_cases.groups(np.random.default_rng(0)), tmp_path)
    (own,) = [c for c in found.contrasts if c.variable == "x"]
    assert (own.paired, own.n_first, own.n_second) == (False, 10, 10)
    assert "1 pair of backbones" not in text_of(found)
    (sentence,) = asserted(found, "x")
    assert "falls by" in sentence.text
    assert "It cannot be told apart from learning rate" in sentence.text


def test_dots_stand_over_their_ticks(tmp_path: Path) -> None:
    found = told(synthetic_cases.skewed(np.random.default_rng(0)), tmp_path)
    fit = found.fits["retained"]
    assert fit.attribution is not None
    (dots,) = dependence(fit, fit.attribution, np.zeros((1, 1)), 100.0)
    assert set(np.round(dots.x_P, 9)) == {round(x, 9) for x, _ in dots.ticks}
    steps = np.diff([x for x, _ in dots.ticks])
    assert steps == pytest.approx(np.diff(np.log([1.28, 14, 142, 2000])) / np.log(2000 / 1.28))  # a logarithmic axis
    effect = found.outcomes["retained"].effects[0]
    assert effect.verdict == "clear"
    assert effect.adjusted.value == pytest.approx(-4 * np.log10(2000 / 1.28), abs=4)


def test_nothing_is_asserted_where_nothing_acts(tmp_path: Path) -> None:
    """Twenty tables, trees aside, which only take from what is asserted: more than three would be a fault."""
    draws = [synthetic_cases.nothing(np.random.default_rng([seed, 1])) for seed in range(DRAWS)]
    assert sum(bool(page(draw.read(tmp_path)).asserted) for draw in draws) <= 3
    assert "opposite effects" not in text_of(told(draws[0], tmp_path))


def test_what_is_declared_is_held_equal_and_nothing_else(tmp_path: Path) -> None:
    """A mediator takes an effect away if it is held equal: the declared adjustment leaves it out."""
    rng = np.random.default_rng(0)
    year = rng.integers(0, 10, 120).astype(float)
    params = year + rng.normal(0, 2, 120)
    depth = params + rng.normal(0, 1, 120)
    frame = synthetic_cases.table(rng, {"year": year, "params": params, "depth": depth}, 4, 60 + 2 * depth + 3 * year)
    kinds = dict.fromkeys(("year", "params", "depth"), "numeric")
    declared = told(Case(frame, kinds, {"adjust": {"params": ["year"]}}), tmp_path)
    effect = next(e for e in declared.outcomes["retained"].effects if e.name == "params")
    width = params.max() - params.min()
    assert effect.adjusted.adjusted_for == ("year",)
    assert effect.adjusted.value == pytest.approx(2 * width, rel=0.15)
    assert effect.total.value is not None
    assert effect.total.value > 1.3 * 2 * width  # year confounds it
