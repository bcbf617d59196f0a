"""The adjusted model against closed forms, statsmodels and simulated truth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats

from analysis.design import points, ties
from analysis.estimates import additive, adjusted, effects, interactions, linear, mixed
from analysis.estimates.adjusted import Adjusted
from analysis.tables.variables import describe
from tests import synthetic_cases


def fitted(case: synthetic_cases.Case, name: str, cluster: str | None = None) -> Adjusted:
    names = [n for n, entry in case.variables.items() if n != "seed"]
    kinds = {n: entry if isinstance(entry, str) else entry["kind"] for n, entry in case.variables.items() if n in names}
    frame = case.frame.assign(backbone=case.frame.backbone.astype(str))
    clusters = {cluster: cluster} if cluster else {}
    design = points.build(frame, describe(frame, names, kinds), "retained", clusters=clusters)
    apart = additive.fit(design)
    found = adjusted.estimate(design, ties.of(design), apart.mean_B, apart.component_B, name)
    assert found is not None
    return found


def test_pooled_and_clustered_errors_are_those_of_statsmodels() -> None:
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.normal(size=40), np.ones(40)])
    y = x @ [2.0, 1.0] + rng.normal(size=40)
    own, theirs = linear.fit(y, x).contrast(np.array([1.0, 0.0])), sm.OLS(y, x).fit()
    assert (own.value, own.se, own.p) == pytest.approx((theirs.params[0], theirs.bse[0], theirs.pvalues[0]))
    assert own.interval() == pytest.approx(theirs.conf_int()[0])
    single = linear.fit(y, x, np.arange(40)).contrast(np.array([1.0, 0.0]))
    assert single.se == pytest.approx(sm.OLS(y, x).fit(cov_type="HC2").bse[0])
    whole = linear.fit(y, x).joint_p(np.array([0]))
    assert whole == pytest.approx(theirs.f_test(np.eye(2)[:1]).pvalue)


def test_cr2_of_a_mean_is_students_t_over_cluster_means() -> None:
    """Of equal clusters CR2 with Satterthwaite's df is the t interval of their means: exact, by theory."""
    rng = np.random.default_rng(1)
    cluster = np.repeat(np.arange(9), 4)
    y = rng.normal(size=9).repeat(4) + rng.normal(size=36)
    own = linear.fit(y, np.ones((36, 1)), cluster).contrast(np.ones(1))
    means = y.reshape(9, 4).mean(1)
    assert own.df == pytest.approx(8)
    assert own.interval() == pytest.approx(stats.t.interval(0.95, 8, means.mean(), stats.sem(means)))


def test_two_groups_of_backbones_have_welchs_error() -> None:
    case = synthetic_cases.two_levels(np.random.default_rng(0))
    found = fitted(case, "x")
    means = case.frame.groupby("backbone").agg(x=("x", "first"), y=("retained", "mean"))
    one, other = means.y[means.x == 1], means.y[means.x == 0]
    expected = stats.ttest_ind(one, other, equal_var=False)
    assert found.headline.value == pytest.approx(one.mean() - other.mean())
    assert found.headline.value / found.headline.se == pytest.approx(expected.statistic)
    assert found.headline.df == pytest.approx(28)  # Satterthwaite's of equal groups, by theory
    assert found.headline.p == pytest.approx(expected.pvalue, rel=0.05)


def test_a_property_of_architectures_is_tested_between_them() -> None:
    case = synthetic_cases.architectures(np.random.default_rng(3))
    found = fitted(case, "depth", "architecture")
    means = case.frame.groupby("architecture").agg(depth=("depth", "first"), y=("retained", "mean"))
    expected = stats.ttest_ind(means.y[means.depth == 30], means.y[means.depth == 10])
    assert (found.unit.level.name, found.n_units) == ("architecture", 8)
    assert found.headline.df == pytest.approx(6)
    assert found.headline.p == pytest.approx(expected.pvalue)


def test_dataset_effects_are_out_and_parts_that_share_none_are_not_compared() -> None:
    case = synthetic_cases.unequal_datasets(np.random.default_rng(0))
    design = points.build(case.frame, describe(case.frame, ["aug", "depth"]), "retained")
    apart = additive.fit(design)
    dummies = pd.get_dummies(case.frame[["backbone", "dataset"]].astype(str), drop_first=True, dtype=float)
    fit = sm.OLS(case.frame.retained, sm.add_constant(dummies)).fit()
    rest = case.frame.retained.to_numpy() - apart.mean_B[design.backbone_N] - apart.effect_D[design.dataset_N]
    np.testing.assert_allclose(rest, fit.resid, atol=1e-8)
    assert apart.sd == pytest.approx(np.sqrt(fit.scale))
    split = case.frame[(case.frame.aug == 0) == (case.frame.dataset >= 4)]
    parts = additive.fit(points.build(split, describe(split, ["aug", "depth"]), "retained"))
    assert len(np.unique(parts.component_B)) == 2


def test_an_effect_that_does_not_depend_on_where_datasets_lie() -> None:
    case = synthetic_cases.unequal_datasets(np.random.default_rng(1))
    low, high = fitted(case, "aug").headline.interval()
    assert low is not None
    assert high is not None
    assert low < 0 < high
    assert high - low < 8


def test_the_mixed_model_agrees_on_a_balanced_table() -> None:
    case = synthetic_cases.architectures(np.random.default_rng(5))
    frame = case.frame.assign(backbone=case.frame.backbone.astype(str))
    names = list(case.variables)
    design = points.build(frame, describe(frame, names), "retained", clusters={"architecture": "architecture"})
    apart, bound = additive.fit(design), ties.of(design)
    for name in ("augmentation", "depth"):
        found = adjusted.estimate(design, bound, apart.mean_B, apart.component_B, name)
        assert found is not None
        assert mixed.value(design, apart.mean_B, name, found) == pytest.approx(found.headline.value, abs=0.5)


@pytest.mark.parametrize("seed", range(3))
def test_an_effect_that_turns_round_is_found_and_one_that_does_not_is_not(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 2, 80), rng.integers(0, 2, 80)
    for turn in (12.0, 0.0):
        mean = 70 + turn * (2 * a - 1) * (2 * b - 1) + rng.normal(0, 4, 80)
        frame = synthetic_cases.table(rng, {"a": a, "b": b}, 4, mean)
        design = points.build(frame, describe(frame, ["a", "b"]), "retained")
        found = interactions.found(design, ties.of(design), additive.fit(design).mean_B)
        made = next(i for i in found if i.variable == "a").corrected(None)
        assert made.estimate.p is not None
        assert (made.estimate.p < 1e-4) == bool(turn)
        if turn:
            low, high = (w.estimate for w in made.within)
            assert low.value is not None
            assert high.value is not None
            assert low.value < -15 < 15 < high.value
            assert next(i for i in found if i.variable == "a").corrected(1e-4).opposite


def test_a_level_of_one_unit_is_that_unit_and_no_level() -> None:
    """Of depths that stand in 1, 4 and 3 architectures two are compared; along a line all eight count."""
    case = synthetic_cases.answering(np.random.default_rng(0))
    found = fitted(case, "depth", "architecture")
    means = case.frame.groupby("architecture").agg(depth=("depth", "first"), y=("retained", "mean"))
    line = stats.linregress(means.depth, means.y)
    assert found.headline.value == pytest.approx(20 * line.slope)
    assert found.headline.p == pytest.approx(line.pvalue)
    tests = [pair for pair in found.pairs if pair.contrast.p is not None]
    assert [{pair.level, pair.against} for pair in tests] == [{"20", "30"}]
    two = stats.ttest_ind(means.y[means.depth == 20], means.y[means.depth == 30])
    assert tests[0].contrast.p == pytest.approx(two.pvalue)
    assert found.p == pytest.approx(min(1, 2 * min(two.pvalue, line.pvalue)))
    assert found.alone == ("10",)
    assert effects.headline(found).doubts == ("10 stands in one architecture only",)


def test_no_interaction_rests_on_one_cluster() -> None:
    """Architectures answer each its way: a depth of one architecture only would get its answer without any error."""
    for seed in range(3):
        case = synthetic_cases.answering(np.random.default_rng(seed))
        design = points.build(
            case.frame, describe(case.frame, list(case.variables)), "retained",
            clusters={"architecture": "architecture"},
        )  # fmt: skip
        found = interactions.found(design, ties.of(design), additive.fit(design).mean_B)
        assert found
        assert "depth" not in {name for i in found for name in (i.variable, i.partner)}
