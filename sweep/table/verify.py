"""Whether fragments and records in a store are what their names say; what is not is set aside, and is done again."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq

from sweep.base.store import Store
from sweep.table.continual import COURSES, problem_of_course
from sweep.table.failures import problem_of_failure
from sweep.table.fragments import (
    FAILURES,
    FRAGMENTS,
    is_own,
    own_fragments,
    parse_parquet,
    problem_of_rows,
    written_by_newer,
)
from sweep.table.notes import RUNNING, problem_of_note
from sweep.table.plans import plan_places, problem_of_plan
from sweep.table.readings import READINGS, problem_of_reading

QUARANTINE = "quarantine/"


@dataclass(frozen=True)
class Verified:
    """What was looked at.

    Attributes
    ----------
    fragments : how many.
    quarantined : the reason for each that was set aside, by its new name.
    newer : what each fragment of a newer version has that this one does not know; they stay where they are.
    digests : SHA-256 of each curve's fragment that stays, by its key.
    records : plans, readings, failure records and notes among what was set aside.
    """

    fragments: int
    quarantined: dict[str, str]
    newer: dict[str, str] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    records: frozenset[str] = frozenset()


def problem_of(data: bytes, curve_key: str) -> str | None:
    """Why these bytes are not the fragment of a curve; None if they are: parsed, of the schema, complete."""
    try:
        table = parse_parquet(data)
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        return f"not a readable Parquet file: {str(error).splitlines()[0]}"
    if written_by_newer(table.schema):
        return None  # not damage, and not for this version to judge
    if problem := problem_of_rows(table, curve_key):
        return problem
    flags = table["is_penultimate"].to_pylist() if "is_penultimate" in table.schema.names else [None]
    return None if flags[-1] else "no row says that it is the penultimate layer's: rows are missing"


def verify_fragments(store: Store, *, each: Callable[[int, int], None] = lambda done, total: None) -> Verified:
    """Parse every fragment and record of a store; a damaged one moves to ``quarantine/``, with the reason beside it.

    The copy is written before the original goes, so that nothing is lost by a kill in between.

    Parameters
    ----------
    each : told (done, total) after each fragment.
    """
    names = [name for folder in (FRAGMENTS, COURSES) for name in own_fragments(store.names(folder))]
    quarantined, newer, digests = {}, {}, {}
    for done, name in enumerate(names, start=1):
        key = _stem(name)
        judge = problem_of_course if name.startswith(COURSES) else problem_of
        try:
            data = store.get(name)
        except FileNotFoundError:
            continue
        if reason := judge(data, key):
            quarantined[_set_aside(store, name, data, reason)] = reason
        elif more := written_by_newer(pq.read_schema(pa.BufferReader(data))):
            newer[name] = more
        if not reason and name.startswith(FRAGMENTS):
            digests[key] = hashlib.sha256(data).hexdigest()
        each(done, len(names))
    records = _records(store)
    return Verified(len(names), quarantined | records, newer, digests, frozenset(records))


def _records(store: Store) -> dict[str, str]:
    """Set aside plans, readings, failure records and notes that are none; the reason for each, by its new name."""
    judged: list[tuple[str, Callable[[bytes, str], str | None]]] = [
        *((name, lambda data, key: problem_of_plan(data)) for name in plan_places(store)),
        *((name, problem_of_reading) for name in store.names(READINGS) if is_own(name)),
        *((n, lambda data, key: problem_of_failure(data)) for n in store.names(FAILURES) if n.endswith(".parquet")),
        *((n, lambda data, key: problem_of_note(data)) for n in store.names(RUNNING) if n.endswith(".json")),
    ]
    found = {}
    for name, judge in judged:
        with contextlib.suppress(FileNotFoundError):  # a worker is done, a failure is cleared
            data = store.get(name)
            if reason := judge(data, _stem(name)):
                found[_set_aside(store, name, data, reason)] = reason
    return found


def _stem(name: str) -> str:
    return name.rpartition("/")[2].rpartition(".")[0]


def _set_aside(store: Store, name: str, data: bytes, reason: str) -> str:
    """Move a file to quarantine, the reason beside it; its new name."""
    moment = datetime.now(UTC)
    stem = f"{QUARANTINE}{_stem(name)}-{hashlib.sha256(data).hexdigest()[:8]}"
    place = f"{stem}{'.damaged' if name.endswith('.json') else ''}.{name.rpartition('.')[2]}"
    about = {"fragment": name, "reason": reason, "found_at": moment.isoformat(timespec="seconds")}
    store.put(place, data)
    store.put(f"{stem}.json", json.dumps(about, indent=1).encode())
    store.delete(name)
    return place


def describe_verified(found: Verified) -> str:
    """What was found, for people."""
    bad, others = len(found.quarantined) - len(found.records), len(found.records)
    head = f"verified {found.fragments} fragments: {bad} damaged" + (f", and {others} records" if others else "")
    head += "; set aside, a run does again what its config asks for" if found.quarantined else ""
    damaged = [f"  {name}: {reason}" for name, reason in found.quarantined.items()]
    return "\n".join([head, *damaged, *(f"  {name}: {more}" for name, more in found.newer.items())])
