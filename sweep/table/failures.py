"""Failures beside the probes: a record for every failed attempt at a curve, until a fragment wins over it."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from sweep.base.errors import StorageError, UserError
from sweep.base.store import Store
from sweep.table.fragments import FAILURES, conform, parse_parquet, read_file, serialised
from sweep.table.schema import FAILURE_SCHEMA

_NEEDED = ("curve_key", "failed_at", "stage", "exception", "transient")  # no record says anything without them


def write_failure(store: Store, record: Mapping[str, Any]) -> None:
    """Record a failed attempt at a curve, beside the probes."""
    attempt = uuid.uuid4().hex[:8]
    table = pa.Table.from_pylist([dict(record) | {"attempt": attempt}], schema=FAILURE_SCHEMA)
    store.put(f"{FAILURES}{record['curve_key']}/{attempt}.parquet", serialised(table))


def clear_failures(store: Store, stale: Iterable[str]) -> None:
    """Remove all failure records of these curves; a read-only store keeps them."""
    keys = set(stale)
    for name in store.names(FAILURES) if keys else ():
        if name.split("/")[1] in keys:
            with contextlib.suppress(StorageError):
                store.delete(name)


def read_failures(store: Store, curve_keys: Iterable[str]) -> list[dict[str, Any]]:
    """The latest failure record of each of these curves; a record that cannot be read is left out."""
    wanted = dict.fromkeys(curve_keys)
    latest: dict[str, dict[str, Any]] = {}
    for name in store.names(FAILURES):
        key = name.split("/")[1]
        if key in wanted and name.endswith(".parquet"):
            record = _read_failure(store, name)
            if record and (key not in latest or record["failed_at"] > latest[key]["failed_at"]):
                latest[key] = record
    return [latest[key] for key in wanted if key in latest]


def odd_failures(store: Store, curve_keys: Iterable[str]) -> list[str]:
    """Records of these curves that say nothing, each with its place, in words."""
    wanted = set(curve_keys)
    names = [name for name in store.names(FAILURES) if name.split("/")[1] in wanted and name.endswith(".parquet")]
    odd = [name for name in names if _read_failure(store, name) is None and store.exists(name)]
    return [f"{store.path(name)} is no record of a failure that can be read; it is left out" for name in odd]


def _read_failure(store: Store, name: str) -> dict[str, Any] | None:
    try:
        return _parsed(read_file(store, name))
    except (UserError, FileNotFoundError):  # damaged, or cleared by a success in the meantime
        return None


def _parsed(table: pa.Table) -> dict[str, Any] | None:
    try:
        rows = conform(table, FAILURE_SCHEMA).to_pylist()
    except pa.ArrowException:
        return None
    return rows[0] if rows and all(rows[0][name] is not None for name in _NEEDED) else None


def problem_of_failure(data: bytes) -> str | None:
    """Why these bytes are no record of a failure; None if they are."""
    try:
        found = _parsed(parse_parquet(data))
    except (pa.ArrowException, OSError, ValueError) as error:
        return f"not a readable Parquet file: {str(error).splitlines()[0]}"
    return None if found else "it does not say what failed, when and where"
