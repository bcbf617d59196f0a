"""Fragments that are not what their names say are set aside with the reason, and nothing else is."""

import hashlib
import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweep import table
from sweep.base.errors import UserError
from sweep.base.store import Store
from sweep.table.schema import FRAGMENT_SCHEMA, SCHEMA


def rows(key="k1", layers=3):
    return [{"curve_key": key, "layer": n, "is_penultimate": n == layers, "top1": 0.5} for n in range(1, layers + 1)]


def fragment(given_rows, schema=SCHEMA):
    return table.serialised(pa.Table.from_pylist(given_rows, schema=schema)).to_pybytes()


WHOLE = fragment(rows())
WHOLE_ROWS = pq.read_table(pa.BufferReader(WHOLE)).to_pylist()


def test_whole_fragments_stay(tmp_path):
    store = Store(str(tmp_path))
    table.write_fragment(store, "k1", rows())
    found = table.verify_fragments(store)
    digest = hashlib.sha256(store.get("fragments/k1.parquet")).hexdigest()
    assert found == table.Verified(1, {}, {}, {"k1": digest})
    assert store.names() == ["fragments/k1.parquet"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (WHOLE[: len(WHOLE) // 2], "not a readable Parquet file"),
        (b"", "not a readable Parquet file"),
        (fragment(rows("k2")), "rows of another curve"),
        (fragment([]), "rows of no curve"),
        (fragment(rows()[:2]), "rows are missing"),
        (fragment(rows()[1:]), r"layers \[2, 3\] instead of 1 to 2"),
        (
            fragment(rows(), SCHEMA.set(SCHEMA.get_field_index("top1"), pa.field("top1", pa.float32()))),
            "another type: top1",
        ),
        (fragment(rows(), SCHEMA.remove(SCHEMA.get_field_index("layer"))), "no column layer"),
        (fragment(rows(), SCHEMA.set(SCHEMA.get_field_index("top1"), pa.field("top9", pa.float64()))), "know: top9"),
    ],
)
def test_a_damaged_fragment_is_set_aside_with_its_reason(tmp_path, data, reason):
    store = Store(str(tmp_path))
    table.write_fragment(store, "k0", rows("k0"))
    store.put("fragments/k1.parquet", data)
    found = table.verify_fragments(store)
    assert found.fragments == 2
    ((place, said),) = found.quarantined.items()
    assert re.search(reason, said)
    assert store.get(place) == data
    assert json.loads(store.get(place.replace(".parquet", ".json")))["fragment"] == "fragments/k1.parquet"
    assert table.listing(store).done == {"k0"}


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (FRAGMENT_SCHEMA.append(pa.field("extra", pa.int64())), r"columns that this version does not know \(extra\)"),
        (SCHEMA.with_metadata({"schema_version": "99"}), "written with schema 99"),
    ],
)
def test_a_fragment_of_a_newer_version_is_named_and_left_alone(tmp_path, schema, said):
    store = Store(str(tmp_path))
    store.put("fragments/k1.parquet", fragment(rows(), schema))
    found = table.verify_fragments(store)
    assert found.quarantined == {}
    assert re.search(said, found.newer["fragments/k1.parquet"])
    assert "fragments/k1.parquet" in table.describe_verified(found)
    assert table.listing(store).done == {"k1"}
    with pytest.raises(UserError, match=said):
        table.read_fragments(store, ["k1"])


def test_a_fragment_under_another_name_is_not_read(tmp_path):
    store = Store(str(tmp_path))
    store.put("fragments/k2.parquet", WHOLE)
    with pytest.raises(UserError, match=r"k2\.parquet is damaged: it does not hold the rows of k2"):
        table.read_fragments(store, ["k2"])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (rows()[:2], "rows are missing"),
        (rows()[1:], r"layers \[2, 3\] instead of 1 to 2"),
        ([row | {"top1": "half"} for row in rows()], "columns of another type: top1"),
    ],
)
def test_a_fragment_of_other_rows_is_not_read(tmp_path, changed, said):
    """A whole Parquet file of the right key: somebody filtered it, or wrote it by another program."""
    store = Store(str(tmp_path))
    at, kind = FRAGMENT_SCHEMA.get_field_index("top1"), pa.array([changed[0]["top1"]]).type
    store.put("fragments/k1.parquet", fragment(changed, FRAGMENT_SCHEMA.set(at, pa.field("top1", kind))))
    with pytest.raises(UserError, match=rf"k1\.parquet is damaged: .*{said}.*--verify"):
        table.read_fragments(store, ["k1"])


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("plans/other.json", b'{"blocks": [', "not JSON"),
        ("plans/other.json", b"{}", "it has no blocks"),
        ("plans/other.json", b'{"blocks": 5, "curves": {}}', "not those of a plan"),
        ("failures/k1/odd.parquet", b"half", "not a readable Parquet file"),
        ("readings/k5.parquet", WHOLE, "not what k5 was"),
        ("running/run2.json", b"[1]", "does not say who works"),
    ],
)
def test_damaged_records_are_set_aside_each_alone_and_said_in_words(tmp_path, name, content, said):
    store = Store(str(tmp_path))
    table.publish_plan(store, table.Plan("mine", {0: ["k1"]}, (table.PlannedCurve("k1", "r", "b", "d"),)))
    store.put(name, content)
    found = table.verify_fragments(store)
    ((place, reason),) = found.quarantined.items()
    assert said in reason
    assert "Error" not in reason
    assert (store.get(place), store.exists(name)) == (content, False)
    assert [plan.name for plan in table.read_plans(store)] == ["mine"]
    assert table.describe_verified(found).startswith("verified 0 fragments: 0 damaged, and 1 records; set aside")
    assert table.verify_fragments(store).quarantined == {}


def test_a_plan_of_a_newer_version_is_named_and_left_alone(tmp_path):
    store = Store(str(tmp_path))
    store.put("plans/newer.json", b'{"version": 99, "blocks": {}, "curves": []}')
    assert table.verify_fragments(store).quarantined == {}
    with pytest.raises(UserError, match=r"version 99, .*: use the version that wrote it"):
        table.read_plans(store)


def test_copies_in_a_folder_below_are_no_fragments(tmp_path):
    store = Store(str(tmp_path))
    for name in ("old/k1", "._k2"):
        store.put(f"fragments/{name}.parquet", WHOLE)
    assert table.listing(store).done == frozenset()
    assert table.verify_fragments(store) == table.Verified(0, {})
    for name in ("k1", "k1 copy", "old_k1", "k1 (1)"):
        store.put(f"fragments/{name}.parquet", WHOLE)
    assert table.listing(store).done == {"k1"}
    found = table.verify_fragments(store)
    assert (found.fragments, found.quarantined) == (1, {})


def test_an_export_names_the_damaged_fragment(tmp_path):
    store = Store(str(tmp_path))
    store.put("fragments/k1.parquet", WHOLE[:-20])
    plan = table.Plan("t", {0: ["k1"]}, (table.PlannedCurve("k1", "r", "b", "d"),))
    with pytest.raises(UserError, match=r"fragments/k1\.parquet is damaged.*--verify"):
        table.export_probes(store, plan, done={"k1"})


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255))
def test_no_damage_passes_for_whole(place, change):
    """A cut is always found; a changed byte is found, or is one that changes no value."""
    assert table.problem_of(WHOLE[:place], "k1")
    changed = bytearray(WHOLE)
    changed[place] ^= change
    if table.problem_of(bytes(changed), "k1") is None:
        assert pq.read_table(pa.BufferReader(bytes(changed))).to_pylist() == WHOLE_ROWS
