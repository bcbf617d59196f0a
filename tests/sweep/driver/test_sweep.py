"""A run removes what nobody will ask for, and nothing else."""

import os
import time

import pytest

from sweep import table
from sweep.base.store import Store
from sweep.driver import sweep as driver
from sweep.study.check import read_config
from tests.sweep.table.test_fragments import failure, row

TINY = """
name: tiny
grid: [{architecture: vggm11, id_dataset: fractals}]
datasets: {fractals: {classes: 3, train_per_class: 4, test_per_class: 2}}
"""


@pytest.fixture
def sweep(tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY)
    return driver.prepare(read_config(tmp_path / "tiny.yaml"), str(tmp_path / "out"))


def test_failures_of_done_and_of_unplanned_curves_go(sweep):
    (mine,), store = sweep.curves, sweep.store
    table.publish_plan(store, driver.plan_of(sweep))
    table.publish_plan(store, table.Plan("other", {0: ["theirs"]}, (table.PlannedCurve("theirs", "r", "b", "d"),)))
    table.write_fragment(store, "done", [row("done")])
    for key in (mine, "theirs", "done", "of an older plan"):
        table.write_failure(store, failure(key))
    found = table.listing(store)
    assert found.outvoted == {"done"}
    driver._tidy(sweep, found)
    assert {name.split("/")[1] for name in store.names("failures/")} == {mine, "theirs"}
    store.put("plans/other.json", b"{half a plan")
    driver._tidy(sweep, table.listing(store))
    assert {name.split("/")[1] for name in store.names("failures/")} == {mine, "theirs"}


def test_files_of_killed_writers_go_after_a_day(tmp_path):
    store = Store(str(tmp_path))
    store.tidy("fragments/")
    store.put("fragments/k1.parquet", b"whole")
    for name, age in ((".tmp-1-old", 100_000), (".tmp-2-new", 1000), ("k0.parquet", 100_000)):
        (tmp_path / "fragments" / name).write_bytes(b"half")
        os.utime(tmp_path / "fragments" / name, (time.time() - age,) * 2)
    store.tidy("fragments/")
    assert {path.name for path in (tmp_path / "fragments").iterdir()} == {".tmp-2-new", "k0.parquet", "k1.parquet"}
