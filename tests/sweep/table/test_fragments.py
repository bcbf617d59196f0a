import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sweep import table
from sweep.base.store import Store
from sweep.table.schema import FAILURE_SCHEMA, SCHEMA, data_dictionary


def row(key="k1", layer=1, **more):
    return {"curve_key": key, "layer": layer, "top1": 0.5, "seed": 0, "architecture": "vggm11", **more}


def failure(key="k1", message="boom", when="2026-01-01", transient=False):
    return {
        "curve_key": key,
        "backbone": "b",
        "dataset": "d",
        "stage": "probe",
        "exception": "ValueError",
        "message": message,
        "transient": transient,
        "traceback": "",
        "seconds": 1.0,
        "host": "h",
        "failed_at": pd.Timestamp(when, tz="UTC").to_pydatetime(),
    }


def test_every_field_is_described():
    for schema in (SCHEMA, FAILURE_SCHEMA):
        assert all(field.metadata[b"description"] for field in schema)
    assert len(set(SCHEMA.names)) == len(SCHEMA.names)
    assert all(f"`{name}`" in data_dictionary() for name in SCHEMA.names)
    assert SCHEMA.field("seed").metadata[b"role"] == b"replicate"


def test_fragment_round_trip_and_listing(tmp_path):
    store = Store(str(tmp_path))
    table.write_fragment(store, "k1", [row(layer=1), row(layer=2)])
    assert table.listing(store) == table.Listing(frozenset({"k1"}), frozenset())
    back = table.read_fragments(store, ["k1"])
    assert back.schema.equals(SCHEMA)
    assert back["layer"].to_pylist() == [1, 2]


def test_bad_rows_are_not_published(tmp_path):
    store = Store(str(tmp_path))
    with pytest.raises(ValueError, match="lacks"):
        table.write_fragment(store, "k1", [row(nonsense=1)])
    with pytest.raises(ValueError, match="not what was given"):
        table.write_fragment(store, "k1", [row(key="k2")])
    with pytest.raises(pa.ArrowInvalid):
        table.write_fragment(store, "k1", [row(seed="zero")])
    assert table.listing(store).done == frozenset()


def test_success_wins_over_failure(tmp_path):
    store = Store(str(tmp_path))
    table.write_failure(store, failure("k1", "first", "2026-01-01"))
    table.write_failure(store, failure("k1", "second", "2026-01-02"))
    table.write_failure(store, failure("k2"))
    assert table.listing(store).failed == {"k1", "k2"}
    assert [r["message"] for r in table.read_failures(store, ["k1"])] == ["second"]
    table.write_fragment(store, "k1", [row()])
    assert table.listing(store) == table.Listing(frozenset({"k1"}), frozenset({"k2"}))
    table.write_failure(store, failure("k1", "a zombie's"))
    assert "k1" not in table.listing(store).failed


def test_grid_grown_by_a_variable_reads_in_pandas_and_duckdb(tmp_path):
    store = Store(str(tmp_path))
    old = SCHEMA.remove(SCHEMA.get_field_index("width"))  # as written before the column existed
    store.put(f"{table.FRAGMENTS}k1.parquet", table.serialised(pa.Table.from_pylist([row("k1")], schema=old)))
    table.write_fragment(store, "k2", [row("k2", width=0.5)])
    path = table.export_probes(store, ["k1", "k2"], name="t", roles={"width": "treatment"})
    frame = pd.read_parquet(path)
    assert frame["width"].isna().tolist() == [True, False]
    assert duckdb.sql(f"select width from '{path}' order by curve_key").fetchall() == [(None,), (0.5,)]
    pattern = f"{tmp_path}/fragments/*.parquet"
    raw = duckdb.sql(f"select width from read_parquet('{pattern}', union_by_name=true) order by curve_key")
    assert raw.fetchall() == [(None,), (0.5,)]


def test_export_says_what_varies_and_is_left_alone_when_current(tmp_path):
    store = Store(str(tmp_path))
    table.write_fragment(store, "k1", [row()])
    path = table.export_probes(store, ["k1"], name="t", roles={"seed": "replicate"}, failed=["k9"])
    schema = pq.read_schema(path)
    assert schema.field("seed").metadata[b"varied"] == b"true"
    assert schema.field("lr").metadata[b"varied"] == b"false"
    assert b'"failed_curves": ["k9"]' in schema.metadata[b"tunnel_sweep"]
    before = (tmp_path / "probes.parquet").stat().st_mtime_ns
    table.export_probes(store, ["k1"], name="t", roles={"seed": "replicate"}, failed=["k9"])
    assert (tmp_path / "probes.parquet").stat().st_mtime_ns == before
    (tmp_path / "probes.parquet").write_bytes(b"half a file")
    table.export_probes(store, ["k1"], name="t", roles={"seed": "replicate"}, failed=["k9"])
    assert pq.read_table(path).num_rows == 1
