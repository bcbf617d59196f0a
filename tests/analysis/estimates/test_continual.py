"""Several tasks: means, paired changes and forgetting of a table whose numbers are known."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.estimates.continual import mean_of, place, summarised
from analysis.page import tasks
from analysis.tables import continual
from tests.synthetic_courses import SEEDS, TRUTH, course_table


@pytest.fixture(scope="module")
def courses():
    return course_table()


def test_changes_are_paired_by_seed(courses):
    found = summarised(courses)
    own = {row.combination: row for row in found.rows if row.configuration == "vggm11"}
    assert list(own) == list(TRUTH)  # as [H24] lists them
    assert own["E1+T1"].change.value is None
    for combination, row in own.items():
        if combination != "E1+T1":
            assert row.change.value == pytest.approx(100 * (TRUTH[combination] - 0.9), abs=0.05)
            assert 0 < row.change.high - row.change.low < 0.1  # the noise is the seed's, and gone
            assert row.change.p_adjusted < 1e-6
    known = courses[(courses["architecture"] == "vggm11") & (courses["combination"] == "E2+T1")]
    values = 100 * known[known["split_by"] == "id95"]["top1"].to_numpy()
    low, high = stats.t.interval(0.95, SEEDS - 1, values.mean(), stats.sem(values))
    assert (own["E2+T1"].accuracy.low, own["E2+T1"].accuracy.high) == (pytest.approx(low), pytest.approx(high))


def test_forgetting_and_transfer_follow_from_the_matrix(courses):
    deep = {each.configuration: each for each in summarised(courses).memory}
    assert [each.depth for each in deep.values()] == [11, 17]
    assert deep["vggm11"].forgetting.value == pytest.approx(100 * np.mean([0.2, 0.21, 0.22, 0.23]))
    assert deep["vggm17"].features.value == pytest.approx(10 * np.mean([0.4, 0.41, 0.42, 0.43]))
    assert deep["vggm17"].transfer.value == pytest.approx(20)
    assert deep["vggm17"].forgetting.low > deep["vggm11"].forgetting.high


def test_one_seed_has_no_interval_and_nor_have_seeds_that_nothing_tells_apart():
    assert (mean_of([3.0]).value, mean_of([3.0]).low) == (3.0, None)
    assert (mean_of([3.0, 3.0]).low, mean_of([3.0, 3.0]).p) == (None, None)
    assert mean_of([0.1 + 0.2, 0.3]).low is None  # equal but for the arithmetic
    assert mean_of([float("nan")]).value is None
    assert sorted(["E2 fine-tuned", "E2+T1", "E2+T2", "E2+T1 fine-tuned", "E1+T2", "E1+T1"], key=place) == list(TRUTH)


def test_intervals_of_few_seeds_hold_as_often_as_they_say():
    rng, held = np.random.default_rng(0), 0
    share_N = rng.uniform(0.6, 1, 200)  # how often each image is right
    for _ in range(1000):
        found = mean_of(100 * (rng.random((3, 200)) < share_N).mean(1))
        held += found.low is not None and found.low <= 100 * share_N.mean() <= found.high
    assert stats.binomtest(held, 1000, 0.95).pvalue > 1e-3


def test_a_course_of_three_tasks_counts_a_seed_once():
    two, three = (summarised(course_table(tasks)) for tasks in (2, 3))
    own = {(row.configuration, row.combination): row for row in three.rows if row.task == 1}
    for row in two.rows:
        assert own[row.configuration, "E1+T1"].accuracy.n_units == row.accuracy.n_units == SEEDS
        if row.combination == "E1+T1":
            assert own[row.configuration, "E1+T1"].accuracy == row.accuracy
    assert set(three.layers[three.layers["combination"] == "E1+T1"]["task"]) == {1, 2, 3}
    level = [layers[layers["combination"] == "E1+T1"].query("task == 1") for layers in (two.layers, three.layers)]
    assert level[0][["accuracy", "low", "high"]].to_numpy() == pytest.approx(level[1][["accuracy", "low", "high"]])
    shown = [row for row in tasks.of(three)["table"] if row["combination"] == "E1+T1"][:2]
    assert [(row["first"] is None, row["later"]["task"]) for row in shown] == [(False, 2), (True, 3)]


def test_courses_that_differ_in_any_variable_are_configurations_of_their_own(courses):
    label = "label_noise"
    mixed = pd.concat([courses.assign(label_noise=0.0), courses.assign(label_noise=0.5).assign(**_renamed(courses))])
    found = summarised(mixed)
    assert {f"vggm11, {label} 0", f"vggm17, {label} 0.5"} < {each.configuration for each in found.memory}
    assert {each.forgetting.n_units for each in found.memory} == {SEEDS}
    alike = mixed.drop(columns=label).assign(lr=[0.004] * len(courses) + [0.0040001] * len(courses))
    assert {each.forgetting.n_units for each in summarised(alike).memory} == {SEEDS}
    assert "vggm11, lr 0.0040001" in {each.configuration for each in summarised(alike).memory}
    silent = summarised(mixed.drop(columns=label))  # something that has no column
    assert {each.forgetting.n_units for each in silent.memory} == {1}
    assert all(", course " in each.configuration for each in silent.memory)
    planned = summarised(mixed.drop(columns=label).assign(plan=["a"] * len(courses) + ["b"] * len(courses)))
    assert {each.configuration for each in planned.memory} == {f"vggm{n}, sweep {p}" for n in (11, 17) for p in "ab"}


def _renamed(courses):
    return {"course_key": courses["course_key"] + "other"}


def test_rows_for_the_page_and_the_table_of_others(courses, tmp_path):
    (row, *_) = tasks.of(summarised(courses))["table"]
    assert (row["combination"], row["later"], row["first"]["seeds"]) == ("E1+T1", None, SEEDS)
    assert continual.read(str(tmp_path), "known") is None
    twice = pd.concat([courses, courses.assign(plan="other")])  # two plans that share a store
    twice.to_parquet(tmp_path / "continual.parquet")
    for plan in ("known", "other", "a third"):
        found = continual.read(str(tmp_path / "probes.parquet"), plan)
        assert len(found) == len(courses)
