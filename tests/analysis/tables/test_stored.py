"""A store without an export reads as its export does: fragments under the labels of their plan."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis.tables import stored
from analysis.tables.errors import UserError
from analysis.tables.sweep import read_sweep
from sweep import table
from sweep.base import errors
from sweep.base.store import Store
from sweep.table.fragments import read_fragment
from sweep.table.schema import SCHEMA_VERSION
from tests import synthetic_tables
from tests.sweep.table.test_fragments import plan, row


@pytest.fixture
def store(tmp_path):
    found = Store(str(tmp_path))
    table.write_fragment(found, "k1", [row("k1", layer, trained_images=40) for layer in (1, 2)])
    table.write_fragment(found, "k2", [row("k2", layer) for layer in (1, 2)])
    return found


def test_fragments_under_their_plan_are_the_export(store, tmp_path):
    curves = [("k2", {"width": 0.5, "id_images": 50}), ("k1", {}), ("k2", {"width": 2.0})]
    asked = plan(*curves, roles={"width": "nuisance"})
    table.publish_plan(store, asked)
    bare = stored.find(str(tmp_path))
    rows = bare.table().to_pandas()
    exported = pq.read_table(table.export_probes(store, asked, done={"k1", "k2"})).to_pandas()
    for name in exported.columns.drop(["skipped_images", "top1_epochs", "heldout_top1_epochs", "finished_at"]):
        there = exported[name].astype(object).where(exported[name].notna(), None).tolist()
        assert rows[name].astype(object).where(rows[name].notna(), None).tolist() == there, name
    assert bare.about["variables"] == stored.find(str(tmp_path)).about["variables"] == {"width": {"role": "nuisance"}}
    assert bare.planned.to_pandas()["curve_key"].tolist() == ["k2", "k1"]


def test_a_fragment_under_another_name_and_a_changed_bit_are_refused(store, tmp_path):
    table.publish_plan(store, plan(("k1", {}), ("k2", {})))
    assert len(stored.find(str(tmp_path)).table()) == 4
    k2 = tmp_path / "fragments" / "k2.parquet"
    whole = k2.read_bytes()
    for copy in ("k2 copy", "old_k2"):
        (k2.parent / f"{copy}.parquet").write_bytes(whole)
    assert len(stored.find(str(tmp_path)).table()) == 4
    k2.write_bytes((tmp_path / "fragments" / "k1.parquet").read_bytes())
    with pytest.raises(UserError, match=r"fragments/k2\.parquet: it holds rows of k1; run the sweep with --verify"):
        stored.find(str(tmp_path))
    place = whole.index(2 * b"\0\0\0\0\0\0\xe0\x3f")  # top1, 0.5 in both rows
    k2.write_bytes(whole[:place] + b"\1" + whole[place + 1 :])
    with pytest.raises(UserError, match=r"fragments: a fragment is damaged .*checksum.*--verify"):
        stored.find(str(tmp_path))


def test_a_fragment_that_is_not_whole_or_of_a_newer_version_is_refused(store, tmp_path):
    """As the sweep refuses it, which analysis does not import."""
    table.publish_plan(store, plan(("k1", {}), ("k2", {})))
    file = tmp_path / "fragments" / "k2.parquet"
    last = [row("k2", layer, is_penultimate=layer == 3) for layer in (1, 2, 3)]
    table.write_fragment(store, "k2", last)
    whole = pq.read_table(file)
    newer = whole.append_column("new", [[1] * len(whole)]).replace_schema_metadata({"schema_version": "99"})
    damaged = {
        r"its layers are \[1, 2, 3, 1, 2, 3\]": pa.concat_tables([whole, whole]),
        "its last row is not the penultimate layer's": whole.slice(0, 2),
        "no column top1": whole.drop_columns(["top1"]),
        "written with schema 99, this version reads up to 2": newer,
    }
    for said, rows in damaged.items():
        pq.write_table(rows, file)
        with pytest.raises(UserError, match=rf"fragments/k2\.parquet: {said}"):
            stored.find(str(tmp_path))
        with pytest.raises(errors.UserError, match=r"fragments/k2\.parquet( is damaged)?: "):
            read_fragment(store, "k2")
    assert stored.SCHEMA_VERSION == SCHEMA_VERSION


def test_a_plan_that_is_not_what_was_written_is_refused(store, tmp_path):
    table.publish_plan(store, plan(("k1", {"depth": 17}), ("k2", {})))
    data = store.get("plans/t.json")
    assert stored.find(str(tmp_path)).table(["depth"])["depth"].to_pylist() == [17, 17, None, None]
    store.put("plans/t.json", data.replace(b'"depth": 17', b'"depth": 11'))
    with pytest.raises(UserError, match=r"t\.json: not a plan that can be read .*not those that were written"):
        stored.find(str(tmp_path))
    old = {name: value for name, value in json.loads(data).items() if name != "sha256"}
    old["backbones"][0][2]["parameters"] = "many"
    store.put("plans/t.json", json.dumps(old).encode())
    with pytest.raises(UserError, match="has labels that are none"):
        stored.find(str(tmp_path))


def test_side_files_that_are_none_end_in_words_or_are_left_out(store, tmp_path):
    asked = plan(("k1", {}), ("k2", {}))
    table.publish_plan(store, asked)
    odd = pa.table({"curve_key": ["k1"], "failed_at": ["yesterday"]})
    store.put("failures/k1/odd.parquet", table.serialised(odd))
    (record,) = stored.find(str(tmp_path)).failures.to_pylist()
    assert (record["curve_key"], "odd.parquet cannot be read" in record["message"]) == ("k1", True)
    for content in (b"{}", b"[1]", b"{half", b'{"files": [1]}', b'{"files": "probes.parquet"}'):
        Store(str(tmp_path / "big")).put("export.json", content)
        with pytest.raises(UserError, match=r"export\.json: not a list of an export's files"):
            stored.find(str(tmp_path / "big"))


def test_fragments_that_no_plan_or_two_plans_name_are_refused(store, tmp_path):
    with pytest.raises(UserError, match="one plan beside them has to say it, there are: none"):
        stored.find(str(tmp_path))
    for name in ("mine", "theirs"):
        table.publish_plan(store, plan(("k1", {}), name=name))
    with pytest.raises(UserError, match="there are: mine, theirs"):
        stored.find(str(tmp_path))
    store.put("plans/mine.json", b"{half")
    with pytest.raises(UserError, match=r"mine\.json: not a plan that can be read"):
        stored.find(str(tmp_path))


def test_fragments_of_version_0_1_0_carry_their_own_labels(tmp_path):
    frame = pd.DataFrame(
        {"curve_key": ["k1"], "layer": [1], "top1": [0.5], "is_id": [True], "architecture": ["vggm11"]}
    )
    (tmp_path / "fragments").mkdir()
    frame.to_parquet(tmp_path / "fragments" / "k1.parquet")
    Store(str(tmp_path)).put(
        "plans/old.json", b'{"blocks": {"0": ["k1"]}, "curves": {"k1": ["vggm11 seed 0", "glyphs", "r1"]}}'
    )
    found = stored.find(str(tmp_path))
    assert found.table(["architecture"]).to_pylist() == [{"architecture": "vggm11"}]
    assert found.planned.to_pylist() == [{"curve_key": "k1", "backbone": "vggm11 seed 0", "dataset": "glyphs"}]


def test_old_and_new_fragments_side_by_side_are_under_the_plan(store, tmp_path):
    """A store of version 0.1.0 that went on: its old fragment has labels, the new one none."""
    old = pq.read_table(tmp_path / "fragments" / "k1.parquet")
    labels = {"is_id": False, "dataset": "old", "width": 1.0}
    for name, value in labels.items():
        old = old.append_column(name, [[value] * len(old)])
    pq.write_table(old, tmp_path / "fragments" / "k1.parquet")
    table.publish_plan(store, plan(("k1", {"width": 0.5}), ("k2", {"width": 2.0})))
    rows = stored.find(str(tmp_path)).table(["curve_key", "width"]).to_pandas()
    assert rows.groupby("curve_key")["width"].unique().str[0].to_dict() == {"k1": 0.5, "k2": 2.0}


def test_a_table_from_elsewhere_is_not_relabelled_by_a_plan_that_lies_beside_it(store, tmp_path):
    table.publish_plan(store, plan(("k1", {})))
    frame = pd.DataFrame({"curve_key": ["other"], "layer": [1], "is_id": [True], "architecture": ["resnet18"]})
    frame.to_parquet(tmp_path / "probes.parquet")
    assert stored.find(str(tmp_path)).table(["architecture"]).to_pylist() == [{"architecture": "resnet18"}]


def test_a_table_that_is_not_what_the_sweep_wrote_is_refused(store, tmp_path):
    asked = plan(("k1", {}), ("k2", {}))
    table.publish_plan(store, asked)
    path = Path(table.export_probes(store, asked, done={"k1", "k2"}))
    assert len(stored.find(str(tmp_path)).table()) == 4
    whole = path.read_bytes()
    for place in range(0, len(whole), len(whole) // 10):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        for where in (tmp_path, path):
            with pytest.raises(UserError, match="is not what the sweep wrote"):
                stored.find(str(where))
    (tmp_path / "copy.parquet").write_bytes(whole)
    stored.find(str(tmp_path / "copy.parquet"))  # of which nothing is known


def test_a_table_whose_fragments_are_others_by_now_is_refused(store, tmp_path):
    asked = plan(("k1", {}), ("k2", {}))
    table.publish_plan(store, asked)
    path = Path(table.export_probes(store, asked, done={"k1", "k2"}))
    k2, before = tmp_path / "fragments" / "k2.parquet", (tmp_path / "fragments" / "k2.parquet").read_bytes()
    k2.write_bytes(before)  # as a copy of the folder has it: another time, the same bytes
    assert len(stored.find(str(tmp_path)).table()) == 4
    store.put("fragments/k3.parquet", before)  # a sweep that goes on
    assert len(stored.find(str(path)).table()) == 4
    k2.write_bytes(before[:60] + bytes([before[60] ^ 1]) + before[61:])
    with pytest.raises(UserError, match=r"was made from other fragments: k2 is another; run the sweep again"):
        stored.find(str(path))
    k2.unlink()  # quarantined
    with pytest.raises(UserError, match=r"was made from other fragments: k2 is gone"):
        stored.find(str(tmp_path))
    shutil.rmtree(k2.parent)  # the table alone stands for itself
    assert len(stored.find(str(path)).table()) == 4
    (tmp_path / "exports" / "probes.json").write_bytes(b"half")
    with pytest.raises(UserError, match=r"exports/probes\.json is damaged"):
        stored.find(str(path))


def test_plans_that_share_a_store_are_read_together(store, tmp_path):
    mine, theirs = (plan((key, {"width": width}), name=key) for key, width in (("k1", 0.5), ("k2", 2.0)))
    for each in (mine, theirs):
        table.publish_plan(store, each)
        table.export_probes(store, each, done={"k1", "k2"})
    found = stored.find(str(tmp_path))
    assert found.table(["width"])["width"].to_pylist() == [0.5, 0.5, 2.0, 2.0]
    assert found.planned["curve_key"].to_pylist() == ["k1", "k2"]


def test_what_weights_were_trained_for_is_a_variable_where_it_differs(tmp_path):
    backbones = synthetic_tables.grid(architecture=["vggm11", "vggm17"], pretraining=["a", "b"])
    for backbone in backbones:
        told = {"a": "views", "b": "crop"}[backbone["pretraining"]]
        backbone |= {"objective": "supervised", "weights_augmentation": told}
    roles = {"architecture": "treatment", "pretraining": "treatment"}
    folder = synthetic_tables.write_sweep(tmp_path, synthetic_tables.probe_table(backbones, varied=roles))
    found = read_sweep(str(folder), accuracy="heldout")
    assert "weights_augmentation" in found.variables
    assert "objective" not in found.variables
    assert "objective" not in found.constant
