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
            assert row.change.value == pytest.approx(100 * (TRUTH[combination] - 0.9))
            assert row.change.high - row.change.low == pytest.approx(0, abs=1e-9)  # the noise is the seed's, and gone
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


def test_one_seed_has_no_interval_and_equal_seeds_no_width():
    assert (mean_of([3.0]).value, mean_of([3.0]).low) == (3.0, None)
    assert (mean_of([3.0, 3.0]).low, mean_of([3.0, 3.0]).high) == (3.0, 3.0)
    assert mean_of([float("nan")]).value is None
    assert sorted(["E2 fine-tuned", "E2+T1", "E2+T2", "E2+T1 fine-tuned", "E1+T2", "E1+T1"], key=place) == list(TRUTH)


def test_rows_for_the_page_and_the_table_of_others(courses, tmp_path):
    (row, *_) = tasks.of(summarised(courses))["table"]
    assert (row["combination"], row["later"], row["first"]["seeds"]) == ("E1+T1", None, SEEDS)
    assert continual.read(str(tmp_path), "known") is None
    twice = pd.concat([courses, courses.assign(plan="other")])  # two plans that share a store
    twice.to_parquet(tmp_path / "continual.parquet")
    for plan in ("known", "other", "a third"):
        found = continual.read(str(tmp_path / "probes.parquet"), plan)
        assert len(found) == len(courses)
