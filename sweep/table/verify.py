"""Whether the fragments in a store are what their names say; what is not is set aside, so that it is done again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq

from sweep.base.store import Store
from sweep.table.continual import COURSES, problem_of_course
from sweep.table.fragments import FRAGMENTS, is_own, parse_parquet, problem_of_rows, written_by_newer

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
    """

    fragments: int
    quarantined: dict[str, str]
    newer: dict[str, str] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)


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
    """Parse every fragment of a store; a damaged one moves to ``quarantine/``, with the reason beside it.

    The copy is written before the original goes, so that nothing is lost by a kill in between.

    Parameters
    ----------
    each : told (done, total) after each fragment.
    """
    names = [name for folder in (FRAGMENTS, COURSES) for name in store.names(folder) if is_own(name)]
    quarantined, newer, digests = {}, {}, {}
    for done, name in enumerate(names, start=1):
        key = name.rpartition("/")[2].removesuffix(".parquet")
        judge = problem_of_course if name.startswith(COURSES) else problem_of
        try:
            data = store.get(name)
        except FileNotFoundError:
            continue
        if reason := judge(data, key):
            quarantined[_set_aside(store, name, key, data, reason)] = reason
        elif more := written_by_newer(pq.read_schema(pa.BufferReader(data))):
            newer[name] = more
        if not reason and name.startswith(FRAGMENTS):
            digests[key] = hashlib.sha256(data).hexdigest()
        each(done, len(names))
    return Verified(len(names), quarantined, newer, digests)


def _set_aside(store: Store, name: str, key: str, data: bytes, reason: str) -> str:
    moment = datetime.now(UTC)
    stem = f"{QUARANTINE}{key}-{hashlib.sha256(data).hexdigest()[:8]}"
    about = {"fragment": name, "reason": reason, "found_at": moment.isoformat(timespec="seconds")}
    store.put(f"{stem}.parquet", data)
    store.put(f"{stem}.json", json.dumps(about, indent=1).encode())
    store.delete(name)
    return f"{stem}.parquet"


def describe_verified(found: Verified) -> str:
    """What was found, for people."""
    head = f"verified {found.fragments} fragments: {len(found.quarantined)} damaged"
    damaged = [f"  {name}: {reason}; a run does it again" for name, reason in found.quarantined.items()]
    return "\n".join([head, *damaged, *(f"  {name}: {more}" for name, more in found.newer.items())])
