"""The three doors on a real S3 server: a finished table, fragments, the page written there, no secret in it."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from analysis import browse, load, sql
from analysis.tables import storage
from sweep.table.__main__ import main as table_command
from tests.s3_server import KEYS, Faults, s3_server
from tests.synthetic_tables import grid, probe_table, write_sweep

OLD = Path(__file__).resolve().parents[1] / "fixtures" / "store-0.1.0"


@pytest.fixture
def served(monkeypatch):
    faults = Faults()
    with s3_server(faults) as environment:
        for key in [key for key in os.environ if key.startswith("AWS_")]:
            monkeypatch.delenv(key)
        for key, value in environment.items():
            monkeypatch.setenv(key, value)
        yield faults


def test_a_sweep_on_s3(served, tmp_path, capsys):
    write_sweep(tmp_path, probe_table(grid(id_classes=[10, 50]), datasets=["glyphs", "digits"]))
    data = (tmp_path / "probes.parquet").read_bytes()
    storage.write("s3://bucket/done/probes.parquet", data)
    rows = pq.read_table(tmp_path / "probes.parquet")
    for key in rows["curve_key"].unique().to_pylist():
        sink = pa.BufferOutputStream()
        pq.write_table(rows.filter(pc.equal(rows["curve_key"], key)), sink)
        storage.write(f"s3://bucket/running/fragments/{key}.parquet", sink.getvalue())
    ours = load.experiments(str(tmp_path)).retained.mean()
    for place in ("s3://bucket/done", "s3://bucket/running"):
        assert load.experiments(place).retained.mean() == ours
        assert sql.main([place, "-c", "SELECT avg(retained) AS r FROM experiments", "--csv"]) == 0
        assert float(capsys.readouterr().out.split()[-1]) == pytest.approx(ours, abs=1e-12)
    assert browse.main(["--results", "s3://bucket/done"]) == 0
    assert capsys.readouterr().out == "page: s3://bucket/done/report/browse.html\n"
    page = storage.read("s3://bucket/done/report/browse.html").decode()
    assert not any(secret in page for secret in KEYS.values())
    # an export, whose files are listed in export.json
    assert table_command(["export", str(OLD), "--to", "s3://bucket/big", "--rows-per-file", "400"]) == 0
    capsys.readouterr()
    assert sql.main(["s3://bucket/big", "-c", "SELECT avg(retained) AS r FROM experiments", "--csv"]) == 0
    expected = load.experiments(str(OLD))["retained"].mean()
    assert float(capsys.readouterr().out.split()[-1]) == pytest.approx(expected, abs=1e-12)
