"""Matched backbones: found by keys, called pairs where they are, compared as they should be."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis import study
from analysis.estimates import outcome, pairs
from analysis.estimates.pairs import Contrast
from analysis.tables.experiments import Experiments
from analysis.tables.mapped import read_mapped
from analysis.tables.names import TARGETS
from analysis.tables.variables import describe

REFERENCE = os.environ.get("TUNNEL_SWEEP_REFERENCE")
PUBLISHED_MAPPING = Path(__file__).parents[3] / "configs" / "tables" / "harun2024.yaml"


def made(frame: pd.DataFrame, variables: tuple[str, ...], **more: object) -> Experiments:
    return Experiments(frame, "t", "t", (TARGETS["retained"],), variables, **more)  # type: ignore[arg-type]


def compute(experiments: Experiments) -> list[Contrast]:
    variables = describe(experiments.frame, experiments.variables, experiments.kinds)
    fits = [outcome.prepared(experiments, variables, target, "default") for target in experiments.targets]
    table = outcome.backbones(experiments, fits)
    return study.contrasts_of(table, variables, [target.name for target in experiments.targets])


def _grid() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        {"backbone": f"{depth}-{aug}-{seed}", "dataset": dataset, "depth": depth, "augmentation": aug, "seed": seed,
         "retained": 80.0 - depth + 5 * (aug == "on") + 2 * seed + (dataset == "x") + rng.normal(0, 0.1)}
        for depth in (11, 17) for aug in ("off", "on") for seed in (0, 1) for dataset in ("x", "y")
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_pairs_hold_everything_else_equal_whatever_the_row_order() -> None:
    frame = _grid().sample(frac=1, random_state=0)
    found = next(
        c for c in compute(made(frame, ("depth", "augmentation"), replicates=("seed",))) if c.variable == "depth"
    )
    assert (found.low, found.high, found.together_with, found.paired) == (11, 17, (), True)
    assert (found.n_strata, found.by_experiment.n) == (4, 8)
    wide = frame.pivot_table(index=["augmentation", "seed"], columns="depth", values="retained")
    difference = (wide[17] - wide[11]).to_numpy()
    low, high = stats.t.interval(0.95, 3, difference.mean(), stats.sem(difference))
    assert found.estimate.value == pytest.approx(difference.mean())
    assert (found.estimate.low, found.estimate.high) == pytest.approx((low, high))
    assert found.estimate.p == pytest.approx(stats.ttest_1samp(difference, 0).pvalue)
    assert found.wilcoxon == pytest.approx(stats.wilcoxon(difference).pvalue)


def test_what_must_move_along_is_named_and_the_same_comparison_stands_once() -> None:
    frame = _grid().assign(gamma=lambda f: f.depth * 2)
    found = {c.variable: c for c in compute(made(frame, ("depth", "augmentation", "gamma"), replicates=("seed",)))}
    assert {name: c.together_with for name, c in found.items()} == {"depth": ("gamma",), "augmentation": ()}
    assert found["depth"].also == (("gamma", "22 → 34"),)


def test_context_must_be_equal_too() -> None:
    frame = _grid().assign(id_dataset=lambda f: np.where(f.augmentation == "on", "A", "B"))
    found = compute(made(frame, ("depth", "augmentation"), replicates=("seed",), context=("id_dataset",)))
    assert {c.variable: c.together_with for c in found} == {"depth": (), "augmentation": ("id_dataset",)}


def test_a_missing_outcome_breaks_only_its_experiment() -> None:
    frame = _grid()
    frame.loc[0, "retained"] = np.nan
    found = compute(made(frame, ("depth",), replicates=("seed",), context=("augmentation",)))
    assert [(c.by_experiment.n, c.n_strata) for c in found] == [(7, 4)]


def test_groups_are_called_groups_and_compared_as_two_samples() -> None:
    rng = np.random.default_rng(1)
    x, lr = np.repeat([0, 1], 10), np.linspace(1, 2, 20)
    frame = pd.DataFrame({"backbone": [f"b{i}" for i in range(20)], "dataset": "d", "x": x, "lr": lr})
    frame["retained"] = 70 - 8 * x + rng.normal(0, 3, 20)
    found = next(c for c in compute(made(frame, ("x", "lr"))) if c.variable == "x")
    assert (found.paired, found.n_first, found.n_second, found.together_with) == (False, 10, 10, ("lr",))
    expected = stats.ttest_ind(frame.retained[x == 1], frame.retained[x == 0])
    interval = expected.confidence_interval(0.95)
    assert (found.estimate.low, found.estimate.high) == pytest.approx((interval.low, interval.high))
    assert found.estimate.p == pytest.approx(expected.pvalue)
    assert found.wilcoxon is None


def test_seeds_that_do_not_match_are_compared_unpaired_and_those_that_do_in_pairs() -> None:
    frame = _grid().assign(seed=lambda f: f.groupby(["depth"]).ngroup() * 2 + f.seed)
    found = next(
        c for c in compute(made(frame, ("depth", "augmentation"), replicates=("seed",))) if c.variable == "depth"
    )
    assert (found.paired, found.n_strata, found.n_first) == (False, 2, 4)
    assert found.estimate.low is not None


def test_two_pairs_have_no_interval() -> None:
    frame = _grid()
    found = compute(made(frame[frame.seed == 0], ("depth", "augmentation")))
    assert [(c.n_strata, c.estimate.low, c.estimate.verdict) for c in found] == [(2, None, "cannot tell")] * 2


def test_enough_clusters_are_the_units_and_few_are_named() -> None:
    rng = np.random.default_rng(2)
    rows = [
        {"backbone": f"{a}-{aug}-{k}", "dataset": "d", "cluster": f"net{a}", "depth": 10 * (1 + a % 2),
         "aug": aug, "k": k, "retained": 60 + own + 10 * aug + more * aug + rng.normal(0, 0.5)}
        for a, own, more in zip(range(8), rng.normal(0, 5, 8), rng.normal(0, 3, 8), strict=True)
        for aug in (0, 1) for k in range(4)
    ]  # fmt: skip
    found = {
        c.variable: c for c in compute(made(pd.DataFrame(rows), ("aug", "depth", "k"), clusters={"net": "cluster"}))
    }
    frame = pd.DataFrame(rows).groupby(["cluster", "aug"]).retained.mean().unstack()
    apart = (frame[1] - frame[0]).to_numpy()
    low, high = stats.t.interval(0.95, 7, apart.mean(), stats.sem(apart))
    assert (found["aug"].estimate.low, found["aug"].estimate.high) == pytest.approx((low, high))
    assert (found["aug"].estimate.unit, found["aug"].estimate.n_units, found["aug"].clusters) == ("net", 8, ())
    assert found["depth"].clusters == ("net0, net2, net4, net6 against net1, net3, net5, net7",)
    assert found["depth"].estimate.verdict == "cannot tell"
    assert not found["depth"].searched


def test_cliffs_delta_by_definition() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, 30).astype(float), rng.integers(1, 6, 20).astype(float)
    expected = np.mean([np.sign(y - x) for x in a for y in b])
    assert pairs.cliffs_delta(a, b) == pytest.approx(expected)
    assert [pairs.cliffs_label(d) for d in (0.1, -0.2, 0.4, -0.9)] == ["negligible", "small", "medium", "large"]


def test_no_difference_at_all_is_p_one() -> None:
    assert pairs.wilcoxon_p(np.zeros(5)) == 1.0


@pytest.mark.skipif(not REFERENCE, reason="TUNNEL_SWEEP_REFERENCE is not set")
def test_published_contrasts() -> None:
    found = compute(read_mapped(f"{REFERENCE}/harun2024_experiments.csv", str(PUBLISHED_MAPPING)))
    by = {(c.target, c.variable, c.low, c.high): c for c in found}
    augmentation = by["retained", "augmentation", "off", "on"]
    experiments = augmentation.by_experiment
    assert experiments.n == 256
    assert experiments.means == pytest.approx((64.26, 78.41), abs=0.005)
    assert abs(experiments.delta) == pytest.approx(0.370, abs=5e-4)
    assert experiments.wilcoxon < 0.001
    assert augmentation.estimate.n_units == 8
    assert (augmentation.estimate.low, augmentation.estimate.high) == pytest.approx((7.5, 20.8), abs=1.2)
    resolution = by["retained", "resolution", 32, 64]
    assert (resolution.by_experiment.n, resolution.n_strata) == (48, 6)
    assert resolution.by_experiment.wilcoxon == pytest.approx(0.044, abs=5e-4)  # .315 if paired wrongly, as published
    reduction = by["retained", "spatial_reduction", 0.5, 1]
    assert (reduction.paired, reduction.n_strata, reduction.together_with) == (True, 8, ())
    assert (reduction.estimate.low, reduction.estimate.high) == pytest.approx((11.5, 27.6), abs=0.1)
