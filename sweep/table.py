"""The probe table: one fragment per curve, failures beside them, one file to read.

A curve is done when its fragment is listed; there is no other ledger. Failures are records of their own and a
fragment always wins over them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sweep.base.errors import StorageError, UserError
from sweep.base.store import Store
from sweep.config import Role
from sweep.schema import FAILURE_SCHEMA, SCHEMA, SCHEMA_VERSION, is_statistic, statistic_field

FRAGMENTS, FAILURES, EXPORT = "fragments/", "failures/", "probes.parquet"


@dataclass(frozen=True)
class Listing:
    """What a store holds: keys of finished curves, of curves with failure records only, and of those with both."""

    done: frozenset[str]
    failed: frozenset[str]
    outvoted: frozenset[str] = frozenset()


def listing(store: Store) -> Listing:
    """One recursive listing of fragments and failures."""
    done = frozenset(_stem(name) for name in store.names(FRAGMENTS) if name.endswith(".parquet"))
    failed = frozenset(name.split("/")[1] for name in store.names(FAILURES) if name.endswith(".parquet"))
    return Listing(done, failed - done, failed & done)


def _stem(name: str) -> str:
    return name.rsplit("/", 1)[-1].removesuffix(".parquet")


def write_fragment(
    store: Store, curve_key: str, rows: Sequence[Mapping[str, Any]], *, statistics: Mapping[str, str] | None = None
) -> None:
    """Publish all probes of a curve at once, after reading back what would be published.

    Parameters
    ----------
    statistics : columns of registered statistics, with their descriptions.

    Raises
    ------
    ValueError
        If a row has an unknown column, or belongs to another curve.
    """
    schema = pa.schema([*SCHEMA, *(statistic_field(*item) for item in (statistics or {}).items())], SCHEMA.metadata)
    unknown = {name for row in rows for name in row} - set(schema.names)
    if unknown:
        raise ValueError(f"rows have columns that the schema lacks: {sorted(unknown)}")
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=schema)
    data = serialised(table)
    verified = parse(data)
    if verified.num_rows != len(rows) or set(verified["curve_key"].to_pylist()) != {curve_key}:
        raise ValueError(f"fragment {curve_key}: what was serialised is not what was given")
    store.put(f"{FRAGMENTS}{curve_key}.parquet", data)
    for name in store.names(f"{FAILURES}{curve_key}/"):
        store.delete(name)


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


def _read_failure(store: Store, name: str) -> dict[str, Any] | None:
    try:
        rows = _conform(_read(store, name), FAILURE_SCHEMA).to_pylist()
    except (UserError, FileNotFoundError):  # damaged, or cleared by a success in the meantime
        return None
    return rows[0] if rows and rows[0]["failed_at"] is not None else None


def read_fragments(store: Store, curve_keys: Iterable[str]) -> pa.Table:
    """All probes of these curves, in this order; columns a fragment lacks are null."""
    tables = [_read(store, f"{FRAGMENTS}{key}.parquet") for key in curve_keys]
    registered = {field.name: field for table in tables for field in table.schema if is_statistic(field)}
    schema = pa.schema([*SCHEMA, *registered.values()], SCHEMA.metadata)
    return pa.concat_tables([_conform(table, schema) for table in tables]) if tables else schema.empty_table()


def _read(store: Store, name: str) -> pa.Table:
    """A fragment or record; UserError if what stands there is not what was written."""
    data = store.get(name)
    try:
        return parse(data)
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        advice = "run the sweep with --verify: it is set aside and done again"
        raise UserError(f"{store.path(name)} is damaged: {reason}; {advice}") from error


def _conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = [
        table[field.name].cast(field.type) if field.name in table.schema.names else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def parse(data: bytes | pa.Buffer) -> pa.Table:
    """A Parquet file's bytes as a table; its pages must have their checksums. pa.ArrowException, OSError if not."""
    # without threads: files are small, and a thread still at work when a process ends may abort it
    return pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True).read(use_threads=False)


def serialised(table: pa.Table) -> pa.Buffer:
    """A table as the bytes of a Parquet file, with checksums of its pages."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=100_000, write_page_checksum=True)
    return sink.getvalue()


def export(
    store: Store,
    curve_keys: Sequence[str],
    *,
    name: str,
    roles: Mapping[str, Role],
    missing: Sequence[str] = (),
    failed: Sequence[str] = (),
) -> str:
    """Write ``probes.parquet``: the finished curves of this plan in plan order, with the varied variables' roles.

    A file that already holds exactly this is left alone.

    Parameters
    ----------
    curve_keys : keys of the finished curves, in plan order.
    roles : role of each variable that the grid varies.
    missing, failed : keys of planned curves that are not in the table.

    Returns
    -------
    path of the file, for people.
    """
    about = {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "variables": {variable: {"role": role} for variable, role in roles.items()},
        "planned_curves": len(curve_keys) + len(missing) + len(failed),
        "failed_curves": list(failed),
        "missing_curves": list(missing),
        "curves": hashlib.sha256("\n".join(curve_keys).encode()).hexdigest(),
    }
    text = json.dumps(about)
    if not _is_current(store, text):
        table = read_fragments(store, curve_keys)
        fields = [_with_role(field, roles) for field in table.schema]
        schema = pa.schema(fields, metadata={"schema_version": str(SCHEMA_VERSION), "tunnel_sweep": text})
        store.put(EXPORT, serialised(table.cast(schema)))
    return store.path(EXPORT)


def _is_current(store: Store, about: str) -> bool:
    try:
        metadata = pq.read_schema(pa.BufferReader(store.get(EXPORT))).metadata or {}
    except FileNotFoundError:
        return False
    except StorageError:
        raise
    except (pa.ArrowException, OSError, ValueError):
        return False  # a damaged export is written again from the fragments
    return metadata.get(b"tunnel_sweep") == about.encode()


def _with_role(field: pa.Field, roles: Mapping[str, Role]) -> pa.Field:
    metadata = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
    if "role" in metadata:
        metadata["varied"] = "true" if field.name in roles else "false"
        metadata["role"] = roles.get(field.name, metadata["role"])
    return field.with_metadata(metadata)


if __name__ == "__main__":  # python -m sweep.table export|verify
    from sweep.fragments import main

    sys.exit(main())
