"""How far a sweep is, read from its store alone."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

from sweep import table
from sweep.base.errors import UserError
from sweep.base.store import Store
from sweep.driver import status
from sweep.table.notes import STALE_SECONDS, Progress
from tests.sweep.table.test_fragments import failure, row

ROOT = Path(__file__).resolve().parents[3]
CURVES = tuple(
    table.PlannedCurve(f"k{number}", f"run{number}", f"vggm11 seed {number}", "glyphs") for number in range(6)
)
BLOCKS = {0: ["k0", "k1", "k2", "k3"], 1: ["k3", "k4", "k5"]}
PLAN = table.Plan("mine", BLOCKS, CURVES)


@pytest.fixture
def store(tmp_path):
    """Of six curves two are done, one is running, one failed for good, one in passing, one is missing."""
    found = Store(str(tmp_path / "out"))
    table.publish_plan(found, PLAN)
    for key in ("k0", "k3", "of another plan"):
        table.write_fragment(found, key, [row(key)])
    table.write_failure(found, failure("k1", "no image of class cat"))
    table.write_failure(found, failure("k4", "connection reset", transient=True))
    table.write_failure(found, failure("k0", "a zombie's"))
    Progress(found, "run2", "vggm11 seed 2").say("training", 3, 10)
    return found


def look(store):
    (plan,) = table.read_plans(store)
    return status.look(store, plan)


def test_each_curve_has_one_state(store):
    expected = {"k0": "done", "k1": "failed", "k2": "running", "k3": "done", "k4": "failed", "k5": "missing"}
    assert look(store).states == expected
    assert not look(store).is_done


def test_the_text_counts_blocks_and_gives_reasons(store):
    text = status.table_of(look(store))
    assert [line.split() for line in text.splitlines()[1:5]] == [
        ["done", "running", "failed", "missing", "planned"],
        ["block", "0", "2", "1", "1", "0", "4"],
        ["block", "1", "1", "0", "1", "1", "3"],
        ["total", "2", "1", "2", "1", "6"],
    ]
    assert "running: vggm11 seed 2: training 3/10" in text
    assert "ValueError: no image of class cat [b on d; not tried again without --retry-failed]" in text
    assert "ValueError: connection reset [b on d; tried again by the next run]" in text


def test_a_curve_that_a_worker_tries_again_is_running_and_why_is_said(store):
    Progress(store, "run4", "vggm11 seed 4").say("probing", 0, 1)
    Progress(store, "run1", "vggm11 seed 1").say("probing", 0, 1)
    found = look(store)
    assert (found.states["k4"], found.states["k1"]) == ("running", "failed")  # k1 failed for a reason that stays
    text = status.table_of(found)
    assert "retrying: probe: ValueError: connection reset [b on d; being tried again now]" in text
    assert "failed: probe: ValueError: no image of class cat [b on d; not tried" in text


def test_a_note_of_a_dead_worker_is_not_running(store):
    name = "running/run2.json"
    note = json.loads(store.get(name))
    store.put(name, json.dumps(note | {"time": time.time() - STALE_SECONDS - 1}).encode())
    assert look(store).states["k2"] == "missing"
    store.put(name, b"{half a no")
    assert look(store).states["k2"] == "missing"


def test_a_clock_ahead_is_still_running(store):
    note = json.loads(store.get("running/run2.json"))
    store.put("running/run2.json", json.dumps(note | {"time": time.time() + 3600}).encode())
    assert look(store).states["k2"] == "running"
    assert "0 s ago" in status.table_of(look(store))


def test_plans_are_told_apart_and_a_damaged_one_is_named(store):
    table.publish_plan(store, table.Plan("other", {0: ["k5"]}, CURVES[5:]))
    assert [plan.name for plan in table.read_plans(store)] == ["mine", "other"]
    assert [plan.name for plan in table.read_plans(store, "other")] == ["other"]
    store.put("plans/other.json", b'{"blocks": [')
    with pytest.raises(UserError, match=r"plans/other\.json is damaged"):
        table.read_plans(store)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("running/run2.json", b"{}"),
        ("running/run2.json", b"[1]"),
        ("running/run2.json", b'{"key": "run2", "time": "now"}'),
        ("running/run2.json", b"[" * 99_999),
        ("plans/.DS_Store", b"\0\0"),
        ("plans/old/notes.txt", b"mine"),
        ("failures/.DS_Store", b"\0"),
    ],
)
def test_what_lies_beside_does_not_matter(store, name, content):
    store.put(name, content)
    assert look(store).states["k0"] == "done"
    shown = status.show(store.uri, None)
    assert "block 1" in shown
    assert (f"{name} is no note of a worker that can be read; it is left out" in shown) == name.endswith(".json")


@pytest.mark.parametrize("content", [b"half", b"{}", b'{"blocks": {"0": ["k9"]}, "curves": {}}', b'{"version": 3}'])
def test_a_damaged_plan_is_named_and_the_others_are_shown(store, content):
    store.put("plans/other.json", content)
    shown = status.show(store.uri, None)
    assert "block 1" in shown
    assert "plans/other.json is damaged" in shown


def test_a_failure_record_of_another_type_is_left_out(store):
    odd = pa.table({"curve_key": ["k1"], "failed_at": ["yesterday"], "transient": ["perhaps"]})
    store.put("failures/k1/odd.parquet", table.serialised(odd))
    assert [record["curve_key"] for record in look(store).failures] == ["k1", "k4"]
    said = "failures/k1/odd.parquet is no record of a failure that can be read; it is left out"
    assert status.show(store.uri, None).count(said) == 1


def run(*arguments):
    command = [sys.executable, str(ROOT / "sweep" / "run.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=150)


def test_from_the_command_line_without_config_data_or_ray(store, tmp_path):
    done = run("--out", tmp_path / "out", "--status")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("mine\n")
    nothing = run("--out", tmp_path / "nothing", "--status")
    assert (nothing.returncode, "is --out right?" in nothing.stderr) == (2, True)
    code = "import sys, sweep.driver.status; print({'ray', 'torch'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stdout == "set()\n"


def test_watch_ends_when_all_is_done(store, tmp_path, capsys):
    for key in PLAN.keys:
        table.write_fragment(store, key, [row(key)])
    status.watch(store.uri, None)
    assert "total     6        0       0        0        6" in capsys.readouterr().out


def test_watch_refreshes_until_then(store, capsys, monkeypatch):
    def meanwhile(_seconds):
        for key in PLAN.keys:
            table.write_fragment(store, key, [row(key)])

    monkeypatch.setattr(status.time, "sleep", meanwhile)
    status.watch(store.uri, None)
    first, second = (text for text in capsys.readouterr().out.split("mine\n") if text)
    assert "total     2        1       2        1        6" in first
    assert "total     6        0       0        0        6" in second
