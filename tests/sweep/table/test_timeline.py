"""Spans of stages, and what becomes of them: lanes, the table of hours, Chrome's trace."""

import json
import threading
import time
from types import SimpleNamespace

import pytest

from sweep import commands
from sweep.base.spans import recorded, span, still_there, waited
from sweep.base.store import Store
from sweep.table import DRIVER, finish_profile, saver
from sweep.table.timeline import hours, in_lanes, own_seconds, trace


def made(stage, start, seconds, depth=0, inside=0.0, **shares):
    about = {"stage": stage, "about": "", "start": start, "seconds": seconds, "depth": depth}
    return about | {"inside": inside, "shares": shares}


def slow(items):
    for item in items:
        time.sleep(0.02)
        yield item


def test_spans_nest_and_shares_are_what_the_wait_took():
    saved = []
    with recorded("task", saved.append, "net"):
        with span("training", "epoch 1"):
            assert list(waited(slow(range(3)), "images")) == [0, 1, 2]
            with span("scores"):
                time.sleep(0.01)
        elsewhere = threading.Thread(target=lambda: span("not of this thread").__enter__())
        elsewhere.start()
        elsewhere.join()
    with span("after"):
        pass
    ((scores, training, task),) = saved
    assert [each["stage"] for each in (scores, training, task)] == ["scores", "training", "task"]
    assert [each["depth"] for each in (scores, training, task)] == [2, 1, 0]
    assert training["inside"] == scores["seconds"] >= 0.01
    assert task["inside"] == training["seconds"]
    assert 0.06 <= training["shares"]["images"] <= training["seconds"] - scores["seconds"]


def test_an_error_ends_its_spans_and_a_task_that_dies_has_left_them(monkeypatch):
    saved = []
    with pytest.raises(ValueError, match="broken"), recorded("task", saved.append), span("probes"):
        raise ValueError("broken")
    assert [each["stage"] for each in saved[-1]] == ["probes", "task"]
    monkeypatch.setattr("sweep.base.spans._SAVE_SECONDS", 0.0)
    with recorded("task", saved.append), span("curve"):
        with span("embedding"):
            time.sleep(0.01)
        embedding, curve, task = saved[-1]  # as a kill at this moment would leave them
        assert curve["inside"] == embedding["seconds"] <= curve["seconds"] == task["inside"] <= task["seconds"]


def test_tasks_that_follow_each_other_share_a_lane_and_the_hours_add_up():
    tasks = [
        [made("training", 100, 40, 1, images=10), made("task", 100, 50, inside=40)],
        [made("task", 110, 50)],  # beside the first
        [made("probes", 151, 9, 1), made("task", 151, 9, inside=9)],  # after the first, in another process
        [made("task", 155, 5)],  # on another machine
    ]
    saved = [{"host": "b" if n == 3 else "a", "lane": "", "spans": spans} for n, spans in enumerate(tasks)]
    saved.append({"host": "a", "lane": DRIVER, "spans": [made("rest", 99, 70)]})
    parts = in_lanes(saved[::-1])
    lanes = {(part.host, part.lane) for part in parts}
    assert lanes == {("a", DRIVER), ("a", "worker 1"), ("a", "worker 2"), ("b", "worker 1")}
    own, times = own_seconds([part for part in parts if part.lane != DRIVER])
    assert own == {"training": 30, "images": 10, "task": 10 + 50 + 0 + 5, "probes": 9}
    assert (times["task"], times["training"]) == (4, 1)
    told = {line.split("  ")[0]: line.split() for line in hours(parts).splitlines()}
    # 3 places × 60 s, from the first beginning to the last end; 114 s of them in tasks
    assert told["no task"][2:5] == ["1", "min", "6"]
    assert told["training"][-2:] == ["16.7%", "1"]
    assert told["all of 3 places"][4:8] == ["3", "min", "0", "s"]
    events = trace(parts)["traceEvents"]
    slices = [event for event in events if event["ph"] == "X"]
    assert len(slices) == 7
    assert min(event["ts"] for event in slices) == 0
    threads = {(event["pid"], event["tid"]) for event in slices}
    assert threads == {(e["pid"], e["tid"]) for e in events if e["name"] == "thread_name"}
    assert len(threads) == 4


def test_slices_of_the_timeline_lie_within_each_other_to_the_microsecond():
    saved = []
    with recorded("task", saved.append):
        for _ in range(500):
            with span("a"), span("b"), span("c"):
                pass
    parts = in_lanes([{"host": "h", "lane": "", "spans": saved[-1]}])
    slices = [event for event in trace(parts)["traceEvents"] if event["ph"] == "X"]
    assert len(slices) == 1501
    ends = []
    for event in slices:  # viewers read them in this order
        while ends and ends[-1] <= event["ts"]:
            ends.pop()
        assert not ends or event["ts"] + event["dur"] <= ends[-1]
        ends.append(event["ts"] + event["dur"])


def test_a_long_span_is_kept_while_it_lasts(monkeypatch):
    monkeypatch.setattr("sweep.base.spans._SAVE_SECONDS", 0.0)
    saved = []
    with recorded("task", saved.append), span("training"):
        for _ in waited(slow(range(2)), "images"):
            pass
        training, task = saved[-1]  # as a kill in the middle of it would leave them
        assert [training["stage"], task["stage"]] == ["training", "task"]
        assert 0.04 <= training["shares"]["images"] <= training["seconds"] == task["inside"]
        still_there()
        assert len(saved) == 3


def test_the_files_of_tasks_become_one_timeline(tmp_path):
    store = Store(str(tmp_path))
    for _ in range(2):
        with recorded("task", saver(store, "run")), span("probes", "birds"):
            pass
    assert "probes" in finish_profile(store, "run")
    assert sorted(file.name for file in (tmp_path / "profile").rglob("*") if file.is_file()) == ["run.json", "run.txt"]
    told = json.loads((tmp_path / "profile" / "run.json").read_text())["traceEvents"]
    assert [event["args"]["of"] for event in told if event["name"] == "probes"] == ["birds"] * 2
    assert finish_profile(store, "none").startswith("profile: no task ran")


def test_a_profile_that_cannot_be_read_back_leaves_the_run_as_it_was(tmp_path, capsys):
    store = Store(str(tmp_path))

    def work():
        with recorded("task", saver(store, "run")):
            pass
        (tmp_path / "profile" / "run.json").mkdir()  # in the way of the timeline
        return "done"

    assert commands._profiled(SimpleNamespace(store=store, profile="run"), work) == "done"
    assert "notice: no profile: " in capsys.readouterr().err
