"""A store that version 0.1.0 left is resumed and exported, and nothing is computed again."""

import shutil
from pathlib import Path

import pyarrow.parquet as pq

from sweep import driver, table
from sweep.study import read_config
from sweep.table.schema import RUN_COLUMNS

OLD = Path(__file__).resolve().parents[2] / "fixtures" / "store-0.1.0"


def test_a_store_of_version_0_1_0_is_exported_without_computing(tmp_path, capsys):
    shutil.copytree(OLD, tmp_path / "out")
    (tmp_path / "out" / "probes.parquet").unlink()
    sweep = driver.prepare(read_config(OLD / "old.yaml"), str(tmp_path / "out"))
    found = table.listing(sweep.store)
    assert not driver.missing_cells(sweep, found.done)
    assert [plan.keys for plan in table.read_plans(sweep.store)] == [tuple(sweep.curves)]
    table.publish_plan(sweep.store, driver.plan_of(sweep))
    before, after = (pq.read_table(place) for place in (OLD / "probes.parquet", driver.export(sweep, done=found.done)))
    assert set(before.schema.names) < set(after.schema.names)
    common = [name for name in before.schema.names if name not in RUN_COLUMNS]
    assert after.select(common).to_pylist() == before.select(common).to_pylist()
    assert "stands otherwise" not in capsys.readouterr().err
