"""How far a sweep is, from its store alone: neither Ray nor the config nor the data are needed.

A run leaves its plan in the store; fragments, failure records and the workers' notes say the rest.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweep import table
from sweep.base.line import duration
from sweep.base.store import Store
from sweep.base.streams import draw, printable
from sweep.table import Plan, fresh_notes, readable_plans

STATES = ("done", "running", "failed", "missing")


_SHOWN = 8


_WATCH_SECONDS, _WATCH_REMOTE_SECONDS = 2.0, 15.0


@dataclass(frozen=True)
class Status:
    """State of every planned curve and course, by key, and the latest failure record of those that failed.

    Attributes
    ----------
    notes : of the workers that are at it.
    odd : what stands among notes and records and is none, in words.
    """

    plan: Plan
    states: Mapping[str, str]
    failures: Sequence[Mapping[str, Any]]
    notes: Sequence[Mapping[str, Any]]
    odd: Sequence[str] = ()

    @property
    def is_done(self) -> bool:
        """Whether every planned curve and course is in the store."""
        return all(state == "done" for state in self.states.values())


def look(store: Store, plan: Plan) -> Status:
    """State of each curve of a plan; a curve is running if its backbone's worker has left a note of late, also where an
    earlier attempt failed in passing and this one tries again. One that lacks a reading is not done.
    """
    found = table.listing(store)
    done = found.done | (table.done_courses(store) if plan.courses else frozenset())
    notes, odd = fresh_notes(store)
    under_way = {note.get("key") for note in notes}
    planned: list[table.PlannedCurve | table.LabelledCourse] = [*plan.curves, *plan.courses]
    unread = _unread(store, plan)
    lacking = [each for each in planned if each.key not in done or each.key in unread]
    recorded = found.failed | (found.outvoted & unread)
    failed = [curve.key for curve in lacking if curve.key in recorded]  # in the plan's order, as all of it
    records = {r["curve_key"]: r for r in table.read_failures(store, failed)}
    odd += table.odd_failures(store, failed)
    states = dict.fromkeys((each.key for each in planned), "done")
    for curve in lacking:
        record, busy = records.get(curve.key), curve.run in under_way
        stays = curve.key in recorded and not (record and record["transient"] and busy)
        states[curve.key] = "failed" if stays else "running" if busy else "missing"
    runs = {curve.run for curve in plan.curves}
    return Status(plan, states, list(records.values()), [note for note in notes if note.get("key") in runs], odd)


def _unread(store: Store, plan: Plan) -> set[str]:
    """Keys of the curves that lack what is to be measured beside their probes."""
    if not any(curve.readings for curve in plan.curves):
        return set()
    there = table.measured_keys(store)
    return {curve.key for curve in plan.curves if not there.issuperset(curve.readings)}


def table_of(status: Status) -> str:
    """A table of the blocks, what is under way, and why curves failed."""
    rows = [["", *STATES, "planned"]]
    for number, keys in sorted(status.plan.blocks.items()):
        rows.append([f"block {number}", *_counts(status, keys)])
    rows.append(["total", *_counts(status, status.plan.keys)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        status.plan.name,
        *("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows),
    ]
    if status.plan.courses:
        counts = Counter(status.states[course.key] for course in status.plan.courses)
        lines.append("series of tasks: " + ", ".join(f"{counts[state]:,} {state}" for state in STATES if counts[state]))
    lines += [f"running: {_note(note)}" for note in status.notes[:_SHOWN]]
    lines += _reasons(status)
    return "\n".join(lines)


def _counts(status: Status, keys: Sequence[str]) -> list[str]:
    counts = Counter(status.states[key] for key in dict.fromkeys(keys))
    return [f"{counts[state]:,}" for state in STATES] + [f"{counts.total():,}"]


def _note(note: Mapping[str, Any]) -> str:
    age = max(0.0, time.time() - note["time"])
    detail = f" ({note['detail']})" if note.get("detail") else ""
    place = f"on {note['host']}, {duration(age)} ago"
    return f"{note['backbone']}: {note['stage']} {note['done']}/{note['total']}{detail} {place}"


def _reasons(status: Status) -> list[str]:
    """Failures grouped by their reason, the most frequent first."""
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for record in status.failures:
        first = (record["message"] or "").partition("\n")[0]
        reason = f"{record['stage']}: {record['exception']}: {first}"
        again = "tried again by the next run" if record["transient"] else "not tried again without --retry-failed"
        retrying = status.states[record["curve_key"]] == "running"
        word = ("retrying", "being tried again now") if retrying else ("failed", again)
        groups.setdefault((reason, *word), []).append(record)
    lines = []
    for (reason, state, again), records in sorted(groups.items(), key=lambda item: -len(item[1]))[:_SHOWN]:
        example = f"{records[0]['backbone']} on {records[0]['dataset']}"
        more = f" and {len(records) - 1} more" if len(records) > 1 else ""
        lines.append(f"{state}: {reason} [{example}{more}; {again}]")
    if len(groups) > _SHOWN:
        lines.append(f"and {len(groups) - _SHOWN} more reasons, see failures/")
    return lines


def show(uri: str, name: str | None) -> str:
    """The status of every plan in a store, or of that of a name."""
    store = Store(uri)
    plans, damaged = readable_plans(store, name)
    return _shown([look(store, plan) for plan in plans], damaged)


def _shown(found: Sequence[Status], damaged: Sequence[str]) -> str:
    """The status of some plans, and which files of the store are not what their places say."""
    odd = dict.fromkeys(line for status in found for line in status.odd)
    return "\n\n".join([*map(table_of, found), *damaged, *odd])


def watch(uri: str, name: str | None) -> None:
    """Show the status again and again until every planned curve is done, or a key interrupts it."""
    store = Store(uri)
    while True:
        plans, damaged = readable_plans(store, name)
        found = [look(store, plan) for plan in plans]
        text = _shown(found, damaged)
        if sys.stdout.isatty():
            draw(sys.stdout, f"\x1b[H\x1b[2J{printable(text)}\n")
            sys.stdout.flush()
        else:
            print(f"{text}\n", flush=True)
        if all(status.is_done for status in found):
            return
        time.sleep(_WATCH_SECONDS if store.is_local else _WATCH_REMOTE_SECONDS)
