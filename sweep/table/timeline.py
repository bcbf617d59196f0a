"""Where the hours of a run went: the spans that its processes leave in the store, as a timeline and as a table.

Each task leaves a file of its own under ``profile/<run>/``; when the run ends they become ``profile/<run>.json``, which
https://ui.perfetto.dev and chrome://tracing open, and ``profile/<run>.txt``. Nothing depends on them.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sweep.base.errors import StorageError
from sweep.base.line import duration
from sweep.base.spans import Save
from sweep.base.store import Store

PROFILES = "profile/"
DRIVER = "driver"
_IDLE = "no task"


@dataclass(frozen=True)
class Part:
    """Spans of one task, or of the driver, in a lane of its machine's timeline; the one around all others is last."""

    host: str
    lane: str
    spans: Sequence[Mapping[str, Any]]

    @property
    def start(self) -> float:
        """When it began, seconds since 1970."""
        return min(span["start"] for span in self.spans)

    @property
    def seconds(self) -> float:
        """How long it lasted."""
        return sum(span["seconds"] for span in self.spans if span["depth"] == 0)


def new_profile() -> str:
    """A name for the profile of a run that begins."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")


def saver(store: Store, run: str, *, lane: str = "") -> Save:
    """What keeps the spans of this process in the store, as one part of a run's profile."""
    name = f"{PROFILES}{run}/{uuid.uuid4().hex}.json"

    def save(spans: Sequence[dict[str, Any]]) -> None:
        """Put them there; what else depends on the store will say if that fails."""
        part = {"host": socket.gethostname(), "pid": os.getpid(), "lane": lane, "spans": spans}
        with contextlib.suppress(StorageError):
            store.put(name, json.dumps(part).encode())

    return save


def finish_profile(store: Store, run: str) -> str:
    """Make timeline and table of what the tasks of a run left; returns the table, and where both are."""
    names = store.names(f"{PROFILES}{run}/")
    parts = in_lanes([json.loads(store.get(name)) for name in names])
    text = hours(parts)
    store.put(f"{PROFILES}{run}.json", json.dumps(trace(parts)).encode())
    store.put(f"{PROFILES}{run}.txt", f"{text}\n".encode())
    for name in names:
        store.delete(name)
    return f"{text}\ntimeline: {store.path(f'{PROFILES}{run}.json')} (open it in https://ui.perfetto.dev)"


def in_lanes(saved: Sequence[Mapping[str, Any]]) -> list[Part]:
    """Parts by their beginning; tasks of a machine that followed each other share a lane, whatever their process."""
    parts: list[Part] = []
    ends: dict[str, list[float]] = defaultdict(list)
    for each in sorted(saved, key=lambda each: min(span["start"] for span in each["spans"])):
        part = Part(each["host"], each["lane"], each["spans"])
        if not part.lane:
            lanes = ends[part.host]
            number = next((n for n, end in enumerate(lanes) if end <= part.start), len(lanes))
            lanes[number : number + 1] = [part.start + part.seconds]
            part = Part(part.host, f"worker {number + 1}", part.spans)
        parts.append(part)
    return parts


def trace(parts: Sequence[Part]) -> dict[str, Any]:
    """The timeline in Chrome's trace format: a process per machine, a thread per lane, a slice per span."""
    hosts = list(dict.fromkeys(part.host for part in parts))
    lanes = list(dict.fromkeys((part.host, part.lane) for part in parts))
    events: list[dict[str, Any]] = [
        {"ph": "M", "name": "process_name", "pid": number, "tid": 0, "args": {"name": host}}
        for number, host in enumerate(hosts)
    ]
    for number, (host, lane) in enumerate(lanes):
        about: dict[str, Any] = {"pid": hosts.index(host), "tid": number}
        events.append({"ph": "M", "name": "thread_name", **about, "args": {"name": lane}})
    start = min((part.start for part in parts), default=0.0)
    for part in parts:
        about = {"ph": "X", "pid": hosts.index(part.host), "tid": lanes.index((part.host, part.lane))}
        for span, begin, end in _microseconds(part.spans, since=start):
            shares = {f"{stage}, s": round(seconds, 6) for stage, seconds in span["shares"].items()}
            when = {"ts": begin, "dur": end - begin}
            events.append({"name": span["stage"], **about, **when, "args": {"of": span["about"], **shares}})
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _microseconds(spans: Sequence[Mapping[str, Any]], *, since: float) -> Iterator[tuple[Mapping[str, Any], int, int]]:
    """Spans in their order with begin and end in whole µs, each within the one around it and after the one before:
    viewers cut or drop slices that overlap by less than a rounding.
    """
    around, before = dict[int, int](), dict[int, int]()  # depth → the end of the span that is open there, or was last
    for span in sorted(spans, key=lambda span: (span["start"], span["depth"])):
        depth = span["depth"]
        begin, end = (int(1e6 * (at - since)) for at in (span["start"], span["start"] + span["seconds"]))
        limit = around.get(depth - 1, end)
        end = min(end, limit)
        begin = min(max(begin, before.get(depth, 0)), end)
        around[depth] = before[depth] = end
        yield span, begin, end


def hours(parts: Sequence[Part]) -> str:
    """The table: each stage's own time, what it holds of others taken off; the stages of tasks add up to all places.

    A place is a lane of the timeline, from the first task's beginning to the last one's end.
    """
    tasks = [part for part in parts if part.lane != DRIVER]
    if not tasks:
        return "profile: no task ran"
    begun, ended = min(part.start for part in tasks), max(part.start + part.seconds for part in tasks)
    places = len({(part.host, part.lane) for part in tasks})
    total = places * (ended - begun)
    own, times = own_seconds(tasks)
    own[_IDLE] = max(0.0, total - sum(part.seconds for part in tasks))
    rows = [("stage", "time", "share", "times")]
    for stage, seconds in sorted(own.items(), key=lambda item: -item[1]):
        rows.append((stage, _said(seconds), f"{seconds / total:.1%}", f"{times.get(stage, 0):,}"))
    rows.append((f"all of {places} places", _said(total), "100.0%", ""))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]:>{widths[3]}}".rstrip()
        for row in rows
    ]
    by_driver, _ = own_seconds([part for part in parts if part.lane == DRIVER])
    beside = ", ".join(f"{stage} {_said(seconds)}" for stage, seconds in by_driver.items())
    return "\n".join(["where the time went:", *lines, *([f"the driver beside them: {beside}"] if beside else [])])


def own_seconds(parts: Sequence[Part]) -> tuple[dict[str, float], dict[str, int]]:
    """Seconds of each stage without those of the stages in it, and how often it was entered."""
    own: dict[str, float] = defaultdict(float)
    times: dict[str, int] = defaultdict(int)
    for part in parts:
        for span in part.spans:
            own[span["stage"]] += span["seconds"] - span["inside"] - sum(span["shares"].values())
            times[span["stage"]] += 1
            for stage, seconds in span["shares"].items():
                own[stage] += seconds
    return own, times


def _said(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else duration(seconds)
