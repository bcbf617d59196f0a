"""Whether the fragments in a store are what their names say; what is not is set aside, so that it is done again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa

from sweep.base.store import Store
from sweep.table.fragments import FRAGMENTS, parse_parquet
from sweep.table.schema import FRAGMENT_SCHEMA, SCHEMA, is_statistic

QUARANTINE = "quarantine/"
_NEEDED = ("curve_key", "layer", "is_penultimate")  # no row is a probe without them


@dataclass(frozen=True)
class Verified:
    """What was looked at: number of fragments, and the reason for each that was set aside, by its new name."""

    fragments: int
    quarantined: dict[str, str]


def problem_of(data: bytes, curve_key: str) -> str | None:
    """Why these bytes are not the fragment of a curve; None if they are: parsed, of the schema, complete."""
    try:
        table = parse_parquet(data)
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        return f"not a readable Parquet file: {str(error).splitlines()[0]}"
    known = {field.name: field.type for field in (*SCHEMA, *FRAGMENT_SCHEMA)}  # labels too: version 0.1.0 wrote them
    unknown = [f.name for f in table.schema if f.name not in known and not is_statistic(f)]
    if unknown:
        return f"columns that the schema does not know: {', '.join(unknown)}"
    wrong = [f.name for f in table.schema if f.type != known.get(f.name, f.type)]
    if wrong:
        return f"columns of another type: {', '.join(wrong)}"
    if lacking := [name for name in _NEEDED if name not in table.schema.names]:
        return f"no column {', '.join(lacking)}"
    if set(table["curve_key"].to_pylist()) != {curve_key}:
        return f"rows of {(table.num_rows and 'another curve') or 'no curve'}"
    found = table["layer"].to_pylist()
    each = found.count(found[0])  # probes of a layer
    last = len(found) // each
    if found != [layer for layer in range(1, last + 1) for _ in range(each)]:
        return f"layers {found} instead of 1 to {last}" + (f", {each} of each" if each > 1 else "")
    if table["is_penultimate"].to_pylist() != [layer == last for layer in found]:
        return "the last row is not the penultimate layer: rows are missing"
    return None


def verify_fragments(store: Store, *, each: Callable[[int, int], None] = lambda done, total: None) -> Verified:
    """Parse every fragment of a store; a damaged one moves to ``quarantine/``, with the reason beside it.

    The copy is written before the original goes, so that nothing is lost by a kill in between.

    Parameters
    ----------
    each : told (done, total) after each fragment.
    """
    names = [name for name in store.names(FRAGMENTS) if name.endswith(".parquet")]
    quarantined = {}
    for done, name in enumerate(names, start=1):
        key = name.removeprefix(FRAGMENTS).removesuffix(".parquet")
        try:
            data = store.get(name)
        except FileNotFoundError:
            continue
        if reason := problem_of(data, key):
            quarantined[_set_aside(store, name, key, data, reason)] = reason
        each(done, len(names))
    return Verified(len(names), quarantined)


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
    return "\n".join(
        [head, *(f"  {name}: {reason}; a run does it again" for name, reason in found.quarantined.items())]
    )
