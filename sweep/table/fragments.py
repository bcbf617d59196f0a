"""The probe table: one fragment per curve, failures beside them, one file to read.

A curve is done when its fragment is listed; there is no other ledger. Failures are records of their own and a
fragment always wins over them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sweep.base.errors import UserError
from sweep.base.store import Store
from sweep.table.schema import FRAGMENT_SCHEMA, SCHEMA, SCHEMA_VERSION, is_statistic, statistic_field

FRAGMENTS, FAILURES = "fragments/", "failures/"
_TYPES = {field.name: field.type for field in (*SCHEMA, *FRAGMENT_SCHEMA)}  # labels too: version 0.1.0 wrote them
_NEEDED = ("curve_key", "layer", "n_test", "top1", "heldout_top1")  # no row is a probe without them
_ADVICE = "run the sweep with --verify: it is set aside and done again"
_UPDATE = "use the version that wrote it, or a newer one"


@dataclass(frozen=True)
class Listing:
    """What a store holds: keys of finished curves, of curves with failure records only, and of those with both."""

    done: frozenset[str]
    failed: frozenset[str]
    outvoted: frozenset[str] = frozenset()


def listing(store: Store) -> Listing:
    """One recursive listing of fragments and failures."""
    names = own_fragments(store.names(FRAGMENTS))
    done = frozenset(name.removeprefix(FRAGMENTS).removesuffix(".parquet") for name in names)
    failed = frozenset(name.split("/")[1] for name in store.names(FAILURES) if name.endswith(".parquet"))
    return Listing(done, failed - done, failed & done)


def is_own(name: str) -> bool:
    """Whether a name is that of a fragment: a copy in a folder below, or a hidden file, is none."""
    folder, _, own = name.rpartition("/")
    return "/" not in folder and own.endswith(".parquet") and not own.startswith(".")


def own_fragments(names: Iterable[str]) -> list[str]:
    """Names of fragments, without copies whose name is more than a key that stands there: "KEY copy", "old_KEY"."""
    stems = {name: name.rpartition("/")[2].removesuffix(".parquet") for name in names if is_own(name)}
    keys = [stem for stem in stems.values() if stem.isalnum()]
    return [name for name, stem in stems.items() if stem.isalnum() or not any(key in stem for key in keys)]


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
    registered = [statistic_field(*item) for item in (statistics or {}).items()]
    schema = pa.schema([*FRAGMENT_SCHEMA, *registered], FRAGMENT_SCHEMA.metadata)
    unknown = {name for row in rows for name in row} - set(schema.names)
    if unknown:
        raise ValueError(f"rows have columns that the schema lacks: {sorted(unknown)}")
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=schema)
    data = serialised(table)
    verified = parse_parquet(data)
    if verified.num_rows != len(rows) or set(verified["curve_key"].to_pylist()) != {curve_key}:
        raise ValueError(f"fragment {curve_key}: what was serialised is not what was given")
    store.put(f"{FRAGMENTS}{curve_key}.parquet", data)
    for name in store.names(f"{FAILURES}{curve_key}/"):
        store.delete(name)


def read_fragment(store: Store, curve_key: str) -> pa.Table:
    """The probes of a curve; those that version 0.1.0 wrote carry labels too.

    What that version called ``id_images`` is measured where this program trained the backbone.

    Raises
    ------
    UserError
        If it is damaged, holds rows of another curve, or was written by a version that knows more.
    """
    return read_digested(store, curve_key)[0]


def read_digested(store: Store, curve_key: str) -> tuple[pa.Table, str]:
    """The same, and the SHA-256 of the file."""
    name = f"{FRAGMENTS}{curve_key}.parquet"
    data = store.get(name)
    table = _parsed(store, name, data)
    if newer := written_by_newer(table.schema):
        raise UserError(f"{store.path(name)}: {newer}")
    if problem := problem_of_rows(table, curve_key):
        raise UserError(f"{store.path(name)} is damaged: {problem}; {_ADVICE}")
    if "trained_images" not in table.schema.names and "id_images" in table.schema.names:
        import pyarrow.compute as pc  # see sweep.table.labels

        trained = pc.if_else(pc.is_valid(table["epochs"]), table["id_images"], None)
        table = table.append_column(FRAGMENT_SCHEMA.field("trained_images"), trained)
    return table, hashlib.sha256(data).hexdigest()


def problem_of_rows(table: pa.Table, curve_key: str) -> str | None:
    """Why a table is not the fragment of a curve: other columns or rows, or not all; None if it is.

    Of tables in which no row says whether it is the last layer's, the last one may be missing.
    """
    if not table.schema.equals(FRAGMENT_SCHEMA) and (problem := _problem_of_columns(table.schema)):
        return problem
    if set(table["curve_key"].to_pylist()) != {curve_key}:
        return f"it does not hold the rows of {curve_key} but rows of {'another' if table.num_rows else 'no'} curve"
    found = table["layer"].to_pylist()
    each = found.count(found[0])  # probes of a layer
    last = len(found) // each
    if found != [layer for layer in range(1, last + 1) for _ in range(each)]:
        return f"layers {found} instead of 1 to {last}" + (f", {each} of each" if each > 1 else "")
    flags = table["is_penultimate"].to_pylist() if "is_penultimate" in table.schema.names else []
    if any(flag is not None for flag in flags) and flags != [layer == last for layer in found]:
        return "the last row is not the penultimate layer: rows are missing"
    return None


def _problem_of_columns(schema: pa.Schema) -> str | None:
    if unknown := unknown_columns(schema):
        return f"columns that the schema does not know: {', '.join(unknown)}"
    wrong = [each.name for each in schema if each.type != _TYPES.get(each.name, each.type)]
    if wrong:
        return f"columns of another type: {', '.join(wrong)}"
    lacking = [name for name in _NEEDED if name not in schema.names]
    return f"no column {', '.join(lacking)}" if lacking else None


def read_fragments(store: Store, curve_keys: Iterable[str]) -> pa.Table:
    """What was measured for these curves, in this order, without labels; columns a fragment lacks are null."""
    tables = [read_fragment(store, key) for key in curve_keys]
    registered = {field.name: field for table in tables for field in table.schema if is_statistic(field)}
    schema = pa.schema([*FRAGMENT_SCHEMA, *registered.values()], FRAGMENT_SCHEMA.metadata)
    return pa.concat_tables([conform(table, schema) for table in tables]) if tables else schema.empty_table()


def read_file(store: Store, name: str) -> pa.Table:
    """A fragment or record; UserError if what stands there is not what was written."""
    return _parsed(store, name, store.get(name))


def _parsed(store: Store, name: str, data: bytes) -> pa.Table:
    try:
        return parse_parquet(data)
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{store.path(name)} is damaged: {reason}; {_ADVICE}") from error


def written_by_newer(schema: pa.Schema) -> str | None:
    """What a fragment has that this version does not know; None if it knows it all."""
    if schema.equals(FRAGMENT_SCHEMA, check_metadata=True):
        return None
    version = (schema.metadata or {}).get(b"schema_version", b"1")
    if version.isdigit() and int(version) > SCHEMA_VERSION:
        return f"written with schema {int(version)}, this version reads up to {SCHEMA_VERSION}: {_UPDATE}"
    unknown = unknown_columns(schema)
    if not unknown or not set(FRAGMENT_SCHEMA.names) <= set(schema.names):  # a newer one has all of ours
        return None
    return f"it has columns that this version does not know ({', '.join(unknown)}): {_UPDATE}"


def unknown_columns(schema: pa.Schema) -> list[str]:
    """Columns that are neither measured nor labels, which version 0.1.0 wrote, nor registered statistics."""
    return [name for name in schema.names if name not in _TYPES and not is_statistic(schema.field(name))]


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table with the columns of a schema, in its order; those that it lacks are null."""
    there = {field.name: field.type for field in table.schema}

    def column(field: pa.Field) -> pa.ChunkedArray | pa.Array:
        if field.name not in there:
            return pa.nulls(len(table), field.type)
        own = table[field.name]
        return own if there[field.name] == field.type else own.cast(field.type)

    return pa.table([column(field) for field in schema], schema=schema)


def parse_parquet(data: bytes | pa.Buffer) -> pa.Table:
    """A Parquet file's bytes as a table; its pages must have their checksums. pa.ArrowException, OSError if not."""
    # without threads: files are small, and a thread still at work when a process ends may abort it
    return pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True).read(use_threads=False)


def serialised(table: pa.Table) -> pa.Buffer:
    """A table as the bytes of a Parquet file, with checksums of its pages.

    A fragment has seventy columns of a few rows: what a stronger compression, or a dictionary, costs for each of them
    takes three times as long to read as the numbers do, and saves nothing.
    """
    sink = pa.BufferOutputStream()
    pq.write_table(
        table, sink, compression="snappy", use_dictionary=False, row_group_size=100_000, write_page_checksum=True
    )
    return sink.getvalue()
