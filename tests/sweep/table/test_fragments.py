import json
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sweep import table
from sweep.base.errors import UserError
from sweep.base.store import Store
from sweep.table.schema import FAILURE_SCHEMA, FRAGMENT_SCHEMA, LABELS, SCHEMA, data_dictionary


def row(key="k1", layer=1, **more):
    return {"curve_key": key, "layer": layer, "top1": 0.5, "n_test": 4, **more}


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
    assert back.schema.equals(FRAGMENT_SCHEMA)
    assert back["layer"].to_pylist() == [1, 2]


def test_bad_rows_are_not_published(tmp_path):
    store = Store(str(tmp_path))
    with pytest.raises(ValueError, match="lacks"):
        table.write_fragment(store, "k1", [row(nonsense=1)])
    with pytest.raises(ValueError, match="lacks"):  # a label: the key does not determine it
        table.write_fragment(store, "k1", [row(architecture="vggm11")])
    with pytest.raises(ValueError, match="not what was given"):
        table.write_fragment(store, "k1", [row(key="k2")])
    with pytest.raises(pa.ArrowInvalid):
        table.write_fragment(store, "k1", [row(n_test="four")])
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


LABELS_OF = dict.fromkeys(LABELS) | {"architecture": "vggm11", "seed": 0, "parameters": 100, "is_id": False}


def plan(*curves, name="t", roles=None):
    """A plan of curves given as (key, labels that differ from LABELS_OF)."""
    planned = [table.PlannedCurve(key, "run", "b", "d", LABELS_OF | {"dataset": "d"} | more) for key, more in curves]
    return table.Plan(name, {0: [key for key, _ in curves]}, tuple(planned), roles or {})


def test_labels_come_from_the_plan_and_one_fragment_may_serve_several_curves(tmp_path):
    store = Store(str(tmp_path))
    table.write_fragment(store, "k1", [row("k1", layer, trained_images=40) for layer in (1, 2)])
    table.write_fragment(store, "k2", [row("k2", layer) for layer in (1, 2)])
    asked = plan(("k2", {"width": 0.5, "id_images": 50}), ("k1", {}), ("k2", {"width": 2.0}), ("k3", {}))
    path = table.export_probes(store, asked, done={"k1", "k2"})
    frame = pd.read_parquet(path)
    assert frame.curve_key.tolist() == ["k2", "k2", "k1", "k1", "k2", "k2"]
    assert frame.layer.tolist() == [1, 2] * 3
    assert frame.width.fillna(0).tolist() == [0.5, 0.5, 0, 0, 2, 2]
    assert frame.id_images.fillna(0).tolist() == [50, 50, 40, 40, 0, 0]
    assert frame.overparametrization.fillna(0).tolist() == [2, 2, 2.5, 2.5, 0, 0]
    about = json.loads(pq.read_schema(path).metadata[b"tunnel_sweep"])
    assert (about["planned_curves"], about["missing_curves"]) == (4, ["k3"])


def test_two_plans_on_one_store_do_not_relabel_each_others_rows(tmp_path):
    store = Store(str(tmp_path))
    table.write_fragment(store, "k1", [row()])
    paths = {}
    for name, width in (("mine", 0.5), ("theirs", 2.0), ("mine", 0.5)):
        table.publish_plan(store, plan(("k1", {"width": width}), name=name))
        paths[name] = pd.read_parquet(table.export_probes(store, table.read_plans(store, name)[0], done={"k1"}))
    assert [paths[name].width.tolist() for name in ("mine", "theirs")] == [[0.5], [2.0]]
    both = table.copy_sorted(store, Store(str(tmp_path / "big")))
    assert sorted(pd.read_parquet(tmp_path / "big" / both[0]).width) == [0.5, 2.0]


def test_plans_that_share_a_store_have_a_table_each_and_one_together(tmp_path):
    store = Store(str(tmp_path))
    for key in ("k1", "k2", "k3"):
        table.write_fragment(store, key, [row(key)])
    mine = plan(("k1", {"width": 0.5}), ("k2", {}), name="mine", roles={"width": "treatment"})
    theirs = plan(("k1", {"width": 2.0}), ("k2", {}), ("k3", {}), name="theirs", roles={"seed": "replicate"})
    done = {"k1", "k2", "k3"}
    table.publish_plan(store, mine)
    assert Path(table.export_probes(store, mine, done=done)).name == "probes.parquet"
    table.publish_plan(store, theirs)
    assert Path(table.export_probes(store, theirs, done=done)).name == "probes-theirs.parquet"
    rows = {name: pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("probes-mine", "probes-theirs", "probes")}
    assert {name: frame.curve_key.tolist() for name, frame in rows.items()} == {
        "probes-mine": ["k1", "k2"],
        "probes-theirs": ["k1", "k2", "k3"],
        "probes": ["k1", "k2", "k1", "k3"],  # k1 under both labels, k2 and k3 once
    }
    assert sorted(rows["probes"].query("curve_key == 'k1'").width) == [0.5, 2.0]
    about = json.loads(pq.read_schema(tmp_path / "probes.parquet").metadata[b"tunnel_sweep"])
    assert set(about["variables"]) == {"width", "seed"}


def test_another_plan_of_the_same_name_is_kept_and_said(tmp_path, capsys):
    store = Store(str(tmp_path))
    table.publish_plan(store, plan(("k1", {}), name="mine"))
    table.publish_plan(store, plan(("k1", {}), ("k2", {}), name="mine"))  # a grid that has grown
    assert capsys.readouterr().err == ""
    table.publish_plan(store, plan(("k3", {}), name="mine"))
    assert "asked for 2 curves that this one does not" in capsys.readouterr().err
    assert [found.keys for found in table.read_plans(store)] == [("k3",)]
    (kept,) = [name for name in store.names("plans/") if name.startswith("plans/replaced/mine-")]
    assert set(json.loads(store.get(kept))["blocks"]["0"]) == {"k1", "k2"}


def test_a_plan_with_one_changed_digit_is_damaged_and_older_ones_without_a_digest_stay(tmp_path, monkeypatch):
    store, asked = Store(str(tmp_path)), plan(("k1", {"depth": 17}), name="mine")
    table.publish_plan(store, asked)
    data = store.get("plans/mine.json")
    store.put("plans/mine.json", data.replace(b'"depth": 17', b'"depth": 11'))
    with pytest.raises(UserError, match=r"mine\.json is damaged .*not those that were written"):
        table.read_plans(store)
    old = {name: value for name, value in json.loads(data).items() if name != "sha256"}
    store.put("plans/mine.json", json.dumps(old).encode())
    assert table.read_plans(store)[0].curves == asked.curves
    monkeypatch.setattr(Store, "put", lambda *_: pytest.fail("nothing is written"))  # the store may be read-only
    table.publish_plan(store, asked)
    monkeypatch.undo()
    for name, odd in (("depth", "deep"), ("architecture", 5), ("width", [])):  # of another type
        old["backbones"][0][2] |= {name: odd}
        store.put("plans/mine.json", json.dumps(old).encode())
        with pytest.raises(UserError, match=r"mine\.json is damaged"):
            table.read_plans(store)


def test_fragments_of_version_0_1_0_are_read_and_their_labels_give_way_to_a_plan(tmp_path, capsys):
    store = Store(str(tmp_path))
    old = {
        "curve_key": "k1",
        "layer": 1,
        "is_penultimate": True,
        "top1": 0.5,
        "architecture": "resnet18",
        "epochs": 5,
        "id_images": 40,
    }
    schema = SCHEMA.remove(SCHEMA.get_field_index("backbone_key"))
    store.put("fragments/k1.parquet", table.serialised(pa.Table.from_pylist([old], schema=schema)))
    assert table.verify_fragments(store).quarantined == {}
    (name,) = table.copy_sorted(store, Store(str(tmp_path / "big")))
    assert pd.read_parquet(tmp_path / "big" / name).architecture.tolist() == ["resnet18"]
    assert capsys.readouterr().err == ""
    frame = pd.read_parquet(table.export_probes(store, plan(("k1", {"epochs": 5})), done={"k1"}))
    assert (frame.architecture[0], frame.id_images[0], frame.overparametrization[0]) == ("vggm11", 40, 2.5)
    assert "architecture of 1 curves stands otherwise in fragments of version 0.1.0" in capsys.readouterr().err


def test_plans_of_version_0_1_0_are_read(tmp_path):
    store = Store(str(tmp_path))
    store.put("plans/old.json", b'{"blocks": {"0": ["k1"]}, "curves": {"k1": ["vggm11 seed 0", "glyphs", "r1"]}}')
    (found,) = table.read_plans(store)
    assert found == table.Plan("old", {0: ["k1"]}, (table.PlannedCurve("k1", "r1", "vggm11 seed 0", "glyphs"),))


def test_grid_grown_by_a_variable_reads_in_pandas_and_duckdb(tmp_path):
    store = Store(str(tmp_path))
    old = FRAGMENT_SCHEMA.remove(FRAGMENT_SCHEMA.get_field_index("top5"))  # as written before the column existed
    store.put(f"{table.FRAGMENTS}k1.parquet", table.serialised(pa.Table.from_pylist([row("k1")], schema=old)))
    table.write_fragment(store, "k2", [row("k2", top5=0.9)])
    path = table.export_probes(store, plan(("k1", {}), ("k2", {})), done={"k1", "k2"})
    assert pd.read_parquet(path)["top5"].isna().tolist() == [True, False]
    assert duckdb.sql(f"select top5 from '{path}' order by curve_key").fetchall() == [(None,), (0.9,)]
    pattern = f"{tmp_path}/fragments/*.parquet"
    raw = duckdb.sql(f"select top5 from read_parquet('{pattern}', union_by_name=true) order by curve_key")
    assert raw.fetchall() == [(None,), (0.9,)]


def test_export_says_what_varies_and_is_left_alone_when_current(tmp_path):
    store = Store(str(tmp_path))
    table.write_fragment(store, "k1", [row()])
    roles, more = {"seed": "replicate"}, {"done": {"k1"}, "failed": {"k9"}}
    asked = plan(("k1", {}), ("k9", {}), roles=roles)
    path = table.export_probes(store, asked, **more)
    schema = pq.read_schema(path)
    assert schema.field("seed").metadata[b"varied"] == b"true"
    assert schema.field("lr").metadata[b"varied"] == b"false"
    assert b'"failed_curves": ["k9"]' in schema.metadata[b"tunnel_sweep"]
    before = (tmp_path / "probes.parquet").stat().st_mtime_ns
    table.export_probes(store, asked, **more)
    assert (tmp_path / "probes.parquet").stat().st_mtime_ns == before
    table.export_probes(store, plan(("k1", {"depth": 12}), ("k9", {}), roles=roles), **more)  # a label was corrected
    assert pq.read_table(path)["depth"].to_pylist() == [12]
    whole = (tmp_path / "probes.parquet").read_bytes()
    for place in range(0, len(whole), max(1, len(whole) // 20)):  # no changed bit is taken for what was written
        (tmp_path / "probes.parquet").write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        table.export_probes(store, plan(("k1", {"depth": 12}), ("k9", {}), roles=roles), **more)
        assert (tmp_path / "probes.parquet").read_bytes() == whole
    table.write_fragment(store, "k1", [row(top1=0.25)])  # set aside and made again: other rows under the same key
    table.export_probes(store, asked, **more)
    assert pq.read_table(path)["top1"].to_pylist() == [0.25]
    (tmp_path / "probes.parquet").write_bytes(b"half a file")
    table.export_probes(store, asked, **more)
    assert pq.read_table(path).num_rows == 1
