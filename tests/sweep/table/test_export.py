"""The copy in few sorted files, and verification from the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from analysis.tables import errors, stored
from sweep import table
from sweep.base.errors import UserError
from sweep.base.store import Store
from sweep.table.origins import Origins
from sweep.table.schema import LABELS
from sweep.table.spool import Spool

ROOT = Path(__file__).resolve().parents[3]


def row(key, layer):
    return {"curve_key": key, "weights_key": key, "top1": 0.5, "layer": layer, "is_penultimate": layer == 3}


@pytest.fixture
def store(tmp_path):
    found = Store(str(tmp_path / "out"))
    architectures = {f"k{number}": architecture for number, architecture in enumerate("cab")}
    for key in architectures:
        table.write_fragment(found, key, [row(key, layer) for layer in (1, 2, 3)])
    labels = dict.fromkeys(LABELS) | {"dataset": "d", "id_dataset": "i", "is_id": False}
    curves = [
        table.PlannedCurve(key, "r", "b", "d", labels | {"architecture": architecture})
        for key, architecture in architectures.items()
    ]
    table.publish_plan(found, table.Plan("mine", {0: list(architectures)}, tuple(curves)))
    return found


def test_few_sorted_files_that_cut_no_curve(store, tmp_path):
    target = Store(str(tmp_path / "big"))
    names = table.copy_sorted(store, target, rows_per_file=4)
    parts = [pq.read_table(tmp_path / "big" / name).to_pylist() for name in names]
    assert [[(r["architecture"], r["layer"]) for r in part] for part in parts] == [
        [("a", 1), ("a", 2), ("a", 3), ("b", 1), ("b", 2), ("b", 3)],
        [("c", 1), ("c", 2), ("c", 3)],
    ]
    assert json.loads(target.get("export.json"))["files"] == names
    assert duckdb.sql(f"select count(*) from '{tmp_path}/big/*.parquet'").fetchall() == [(9,)]


def test_an_export_replaces_the_older_one_and_nothing_else(store, tmp_path):
    target = Store(str(tmp_path / "big"))
    first = table.copy_sorted(store, target)
    assert table.copy_sorted(store, target) == first
    mine = ["notes.txt", "probes-backup/thesis.txt", "probes-0000-0123456789ab.parquet", "probes-mine.parquet"]
    for name in mine:
        target.put(name, b"mine")
    listed = json.loads(target.get("export.json"))
    target.put("export.json", json.dumps(listed | {"files": [*first, "notes.txt", "../out/plans/mine.json"]}).encode())
    table.write_fragment(store, "k9", [row("k9", layer) for layer in (1, 2, 3)])
    second = table.copy_sorted(store, target)
    assert target.names() == sorted(["export.json", *mine, *second])
    assert first != second
    assert store.exists("plans/mine.json")


def test_impossible_exports_are_refused(store, tmp_path):
    for place in ("/", "/../out", "/fragments", "/plans/mine"):
        with pytest.raises(UserError, match="where the fragments are"):
            table.copy_sorted(store, Store(store.uri + place))
    with pytest.raises(UserError, match="at least one row"):
        table.copy_sorted(store, Store(str(tmp_path / "big")), rows_per_file=0)
    with pytest.raises(UserError, match="no fragment"):
        table.copy_sorted(Store(str(tmp_path / "nothing")), store)


def test_tables_beside_come_along_and_those_of_others_are_not_written_over(store, tmp_path):
    target = Store(str(tmp_path / "big"))
    target.put("readings.parquet", b"mine")
    table.copy_sorted(store, target)  # which has no readings
    store.put("readings.parquet", b"ours")
    with pytest.raises(UserError, match=r"readings\.parquet there is of no earlier export"):
        table.copy_sorted(store, target)
    assert target.get("readings.parquet") == b"mine"
    target.delete("readings.parquet")
    assert table.copy_sorted(store, target)[-1] == "readings.parquet"
    assert target.get("readings.parquet") == b"ours"
    assert table.copy_sorted(store, target)[-1] == "readings.parquet"
    store.delete("readings.parquet")
    table.copy_sorted(store, target)
    assert not target.exists("readings.parquet")
    for listed in (b"[1]", b'{"files": ["notes.txt"]}', b"half"):
        target.put("export.json", listed)
        with pytest.raises(UserError, match=r"export\.json there is no list of an export"):
            table.copy_sorted(store, target)
        assert target.get("export.json") == listed
    target.delete("export.json")
    (name,) = (name for name in target.names() if name.startswith("probes-"))
    target.put(name, b"mine")
    with pytest.raises(UserError, match=rf"{name} there is of no earlier export"):
        table.copy_sorted(store, target)
    assert target.get(name) == b"mine"
    other = Store(str(tmp_path / "other"))
    table.write_fragment(other, "k1", [row("k1", layer) for layer in (1, 2, 3)])
    with pytest.raises(UserError, match="or another sweep"):
        table.copy_sorted(store, other)


def test_parts_of_the_copy_keep_to_their_bytes(store, tmp_path, monkeypatch):
    """Bits of many images: 512 curves of them would be more than the 2 GiB that an array of bytes may have."""
    size = 1 << 16
    for number in range(40):
        bits = bytes([number]) * size
        rows = [row(f"many{number:02d}", layer) | {"correct": bits} for layer in (1, 2, 3)]
        table.write_fragment(store, f"many{number:02d}", rows)
    monkeypatch.setattr("sweep.table.spool._BYTES", 2 * 3 * size)
    kept = []
    keep = Spool._keep
    monkeypatch.setattr(Spool, "_keep", lambda spool, rows: (kept.append(rows.nbytes), keep(spool, rows)))
    (name,) = table.copy_sorted(store, Store(str(tmp_path / "big")))
    written = pq.read_table(tmp_path / "big" / name, columns=["curve_key", "correct"]).to_pylist()
    assert {(r["curve_key"], r["correct"]) for r in written if r["curve_key"].startswith("many")} == {
        (f"many{number:02d}", bytes([number]) * size) for number in range(40)
    }
    assert len(written) == 3 * 43
    assert max(kept[2:]) < 3 * 3 * size  # after the first two, whose size nobody knows


def test_a_store_of_several_processors_says_so(store, tmp_path, capsys):
    assert not Origins().mixed
    for number, (device, precision) in enumerate([("NVIDIA H100", "float32"), ("AMD EPYC", None)]):
        rows = [row(f"m{number}", 1) | {"is_penultimate": True, "device": device, "extraction_precision": precision}]
        table.write_fragment(store, f"m{number}", rows)
    table.copy_sorted(store, Store(str(tmp_path / "big")))
    said = capsys.readouterr().err
    assert "computed on 2 kinds of processor (NVIDIA H100: 1; AMD EPYC: 1)" in said or "AMD EPYC: 1; NVIDIA" in said
    assert "4 of 5 curves do not record the precision" in said
    assert "1 were computed on NVIDIA H100: 1, this run is on AMD" in table.said_before(store, ["AMD"], "float32")
    assert "computed on" not in table.said_before(store, [], "float32")


def run(*arguments):
    command = [sys.executable, "-m", "sweep.table", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=150)


def test_from_the_command_line(store, tmp_path):
    exported = run("export", tmp_path / "out", "--to", tmp_path / "big")
    assert exported.returncode == 0, exported.stderr
    assert "1 files and export.json" in exported.stdout
    assert run("verify", tmp_path / "out").stdout == "verified 3 fragments: 0 damaged\n"
    (plan,) = table.read_plans(store)
    path = Path(table.export_probes(store, plan, done=table.listing(store).done))
    assert run("verify", tmp_path / "out").returncode == 0
    path.write_bytes(path.read_bytes().replace(b"k2", b"k9"))
    changed = run("verify", tmp_path / "out")
    assert (changed.returncode, "probes.parquet: it is not what was written" in changed.stdout) == (1, True)
    path.unlink()
    store.put("fragments/k1.parquet", b"half")
    damaged = run("verify", tmp_path / "out")
    assert damaged.returncode == 1
    assert "1 damaged" in damaged.stdout
    assert run("verify", tmp_path / "out").stdout == "verified 2 fragments: 0 damaged\n"
    assert run("export", tmp_path / "nowhere", "--to", tmp_path / "big").returncode == 2


def test_a_fragment_replaced_by_one_of_its_size_and_time_reaches_the_table_after_a_verify(store, tmp_path):
    (plan,) = table.read_plans(store)
    done = table.listing(store).done
    place = tmp_path / "out" / "fragments" / "k1.parquet"

    def written(top1):
        table.write_fragment(store, "k1", [row("k1", layer) | {"top1": top1} for layer in (1, 2, 3)])
        os.utime(place, ns=(10**18, 10**18))
        return place.stat().st_size

    def exported():
        table.export_probes(store, plan, done=done)
        return set(pq.read_table(tmp_path / "out" / "probes.parquet", filters=[("curve_key", "=", "k1")])["top1"])

    size = written(0.25)
    assert {each.as_py() for each in exported()} == {0.25}
    assert table.changed_tables(store, table.verify_fragments(store).digests) == []
    assert written(0.75) == size
    assert {each.as_py() for each in exported()} == {0.25}  # nothing that a listing says has changed
    for _ in range(2):  # looking changes nothing: until a run writes it again the table is refused
        (said,) = table.changed_tables(store, table.verify_fragments(store).digests)
        assert said.startswith("probes.parquet: fragment k1 is not the one it was made from")
        with pytest.raises(errors.UserError, match="k1 is another"):
            stored.find(str(tmp_path / "out"))
    assert {each.as_py() for each in exported()} == {0.75}


def test_a_table_whose_fragment_is_gone_is_named(store, tmp_path):
    (plan,) = table.read_plans(store)
    table.export_probes(store, plan, done=table.listing(store).done)
    store.delete("fragments/k1.parquet")
    (said,) = table.changed_tables(store, table.verify_fragments(store).digests)
    assert said.startswith("probes.parquet: fragment k1 is gone")
    assert run("verify", tmp_path / "out").returncode == 1
