"""The table as readers want it: one file of a plan's curves, or all fragments as few sorted files.

Both are copies; the fragments stay the truth. A store of one plan has ``probes.parquet``. Where several plans share a
store each has ``probes-NAME.parquet``, and ``probes.parquet`` holds the curves of all, under every label that a plan
gives them. A record under ``exports/`` says what each file was made from. The few files of a copy are named by their
content, and ``export.json``, written last, lists those that belong together.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sweep.base.errors import UserError
from sweep.base.store import Store
from sweep.config import Role
from sweep.table.continual import CONTINUAL
from sweep.table.fragments import FAILURES, FRAGMENTS, is_own, listing, read_fragment
from sweep.table.labels import joined
from sweep.table.plans import PLANS, Plan, PlannedCurve, plan_places, readable_plans
from sweep.table.schema import SCHEMA_VERSION
from sweep.table.spool import Spool

EXPORT, EXPORTS, MANIFEST = "probes.parquet", "exports/", "export.json"
DIGESTS = "digests"
BESIDE = ("readings.parquet", CONTINUAL)  # tables of a store that are copied as they are
ROWS_PER_FILE = 1_000_000
_OURS = re.compile(r"probes-\d{4,}-[0-9a-f]{12}\.parquet")  # what a copy calls its files
_SORTED_BY = ("architecture", "id_dataset", "dataset", "weights_key")


def copy_sorted(store: Store, target: Store, *, rows_per_file: int = ROWS_PER_FILE) -> list[str]:
    """Write all fragments as few files, sorted by backbone, dataset and layer; the store's other tables come along.

    Parameters
    ----------
    target : a place that holds no sweep. Of what is there, only the files of an earlier export are replaced or go.
    rows_per_file : a file ends after the curve that reaches so many rows.

    Returns
    -------
    names of the files.

    Raises
    ------
    UserError
        If there is no fragment, the target holds a sweep or files of others under our names, or files are to have no
        rows.
    """
    if rows_per_file < 1:
        raise UserError(f"--rows-per-file {rows_per_file}: a file needs at least one row")
    keys = sorted(listing(store).done)
    if not keys:
        raise UserError(f"{store.uri}: there is no fragment (is that the --out of a sweep?)")
    if _of_a_sweep(store, target):
        raise UserError(f"--to {target.uri}: that is where the fragments are, or another sweep; name another directory")
    before, beside = _exported(target), [name for name in BESIDE if store.exists(name)]
    if foreign := [name for name in beside if name not in before and target.exists(name)]:
        raise UserError(f"--to {target.uri}: {foreign[0]} there is of no earlier export; name another directory")
    names = []
    with _spooled(store, sorted(_everything(store, keys), key=lambda curve: _place(store, curve))) as spool:
        for number, pieces in groupby(_dealt(spool.parts(), rows_per_file), key=itemgetter(0)):
            with written((piece for _, piece in pieces), spool.schema) as (data, digest):
                name = f"probes-{number:04d}-{digest[:12]}.parquet"
                if name not in before and target.exists(name) and target.sha256(name) != digest:
                    raise UserError(f"--to {target.uri}: {name} there is of no earlier export; name another directory")
                target.put(name, data)
                names.append(name)
    for name in beside:
        target.put(name, store.get(name))
    about = {"of": store.uri, "curves": len(keys), "files": names, "beside": beside}
    target.put(MANIFEST, json.dumps(about, indent=1).encode())
    for name in before:
        if name not in (*names, *beside):
            target.delete(name)
    return names + beside


def _of_a_sweep(store: Store, target: Store) -> bool:
    """Whether a place is a sweep's: the store itself, a folder of its fragments, plans or records, or another store."""
    mine, other = (os.path.realpath(each.uri) if each.is_local else each.uri.rstrip("/") for each in (store, target))
    below = other.removeprefix(f"{mine}/")
    if other == mine or (below != other and f"{below.partition('/')[0]}/" in (FRAGMENTS, FAILURES, PLANS, EXPORTS)):
        return True
    return bool(plan_places(target)) or any(map(is_own, target.names(FRAGMENTS)))


def _exported(target: Store) -> list[str]:
    """Files of the export that stands there, by its own list: what it does not name is none of ours.

    Raises
    ------
    UserError
        If a file of that name is no list of an export.
    """
    if not target.exists(MANIFEST):
        return []
    try:
        saved = json.loads(target.get(MANIFEST))
        _, _, listed = saved["of"], saved["curves"], list(saved["files"])
        beside = list(saved.get("beside", BESIDE[:1]))  # older lists do not say
    except (ValueError, TypeError, KeyError, AttributeError):
        raise UserError(
            f"--to {target.uri}: {MANIFEST} there is no list of an export; name another directory, or remove it"
        ) from None
    there = set(target.names())
    ours = [name for name in listed if isinstance(name, str) and _OURS.fullmatch(name)]
    return [name for name in (*ours, *(name for name in beside if name in BESIDE)) if name in there]


def _everything(store: Store, keys: Sequence[str]) -> list[PlannedCurve]:
    """Every fragment under every label that some plan gives it; what no plan asks for comes as it is."""
    found: dict[str, dict[str, PlannedCurve]] = {key: {} for key in keys}
    for curve in (curve for plan in _plans(store) for curve in plan.curves):
        if curve.key in found and curve.labels:
            found[curve.key].setdefault(json.dumps(curve.labels, sort_keys=True), curve)
    return [curve for key, of in found.items() for curve in of.values() or [PlannedCurve(key, "", "", "")]]


def _plans(store: Store) -> list[Plan]:
    """Plans in a store that can be read; the others are said."""
    plans, damaged = readable_plans(store) if store.names(PLANS) else ([], [])
    for problem in damaged:
        print(f"notice: {problem}", file=sys.stderr)
    return plans


def _place(store: Store, curve: PlannedCurve) -> tuple[tuple[bool, str], ...]:
    """Where a curve stands in the order; a fragment without a plan's labels is asked for those it carries."""
    if curve.labels:
        named = [*(curve.labels.get(name) for name in _SORTED_BY[:-1]), curve.run]
    else:
        (first,) = joined({curve.key: read_fragment(store, curve.key)}, [curve])[:1].to_pylist()
        named = [first[name] for name in _SORTED_BY]
    return tuple((value is None, str(value)) for value in (*named, curve.key))


@contextmanager
def _spooled(store: Store, curves: Sequence[PlannedCurve]) -> Iterator[Spool]:
    """Rows of these finished curves; says where labels of old fragments are not those of the plan, and where curves
    were not computed alike.
    """
    with Spool() as spool:
        spool.read(store, curves)
        for name, count in spool.relabelled.items():
            print(
                f"notice: {name} of {count} curves stands otherwise in fragments of version 0.1.0; the plan's is taken",
                file=sys.stderr,
            )
        for said in spool.origins.mixed:
            print(f"notice: {said}", file=sys.stderr)
        yield spool


def _dealt(tables: Iterable[pa.Table], rows: int) -> Iterator[tuple[int, pa.Table]]:
    """Number of a file, and what comes next in it: about so many rows each, none ends inside a curve."""
    number, room = 0, rows
    for part in tables:
        keys, start = part["curve_key"].to_pylist(), 0
        while start < len(keys):
            end = min(start + room, len(keys))
            while end < len(keys) and keys[end] == keys[end - 1]:
                end += 1
            yield number, part.slice(start, end - start)
            room -= end - start
            start = end
            if room <= 0:
                number, room = number + 1, rows


@contextmanager
def written(tables: Iterable[pa.Table], schema: pa.Schema) -> Iterator[tuple[pa.Buffer, str]]:
    """The tables as one Parquet file with checksums of its pages: its bytes, on the local disk, and their SHA-256."""
    with tempfile.TemporaryDirectory(prefix="tunnel-sweep-export-") as directory:
        place = str(Path(directory) / EXPORT)
        with pq.ParquetWriter(place, schema, compression="zstd", write_page_checksum=True) as writer:
            for rows in tables:
                writer.write_table(rows.cast(schema))
        with pa.memory_map(place) as file:
            data = file.read_buffer()
            yield data, hashlib.sha256(data).hexdigest()
            del data  # before the file goes


def export_probes(store: Store, plan: Plan, *, done: Container[str], failed: Container[str] = ()) -> str:
    """Write the table of a plan: its finished curves in plan order, under its labels.

    It is ``probes.parquet``. Where other plans share the store it is ``probes-NAME.parquet``; theirs are brought up to
    date too, and ``probes.parquet`` holds the curves of all plans. A file that is as it should be is left alone: made
    from these fragments, and byte for byte what was written.

    Parameters
    ----------
    done, failed : keys of the curves that the store has, and of those it has a failure record of.

    Returns
    -------
    path of the plan's own file, for people.
    """
    stamps = {_key(name): stamp for name, stamp in store.stamps(FRAGMENTS).items()}
    others = [other for other in _plans(store) if other.name != plan.name]
    if not others:
        return _export(store, plan, EXPORT, stamps, done, failed)
    there = listing(store)
    for other in others:
        _export(store, other, f"probes-{other.name}.parquet", stamps, there.done, there.failed)
    both = sorted([plan, *others], key=lambda each: each.name)  # whoever runs last
    _export(store, together(both), EXPORT, stamps, there.done, there.failed)
    return _export(store, plan, f"probes-{plan.name}.parquet", stamps, done, failed)


def _key(name: str) -> str:
    return name.removeprefix(FRAGMENTS).removesuffix(".parquet")


def together(plans: Sequence[Plan]) -> Plan:
    """All curves of some plans; what two of them name alike stands once."""
    curves = {json.dumps([curve.key, curve.labels], sort_keys=True): curve for plan in plans for curve in plan.curves}
    roles: dict[str, Role] = {}
    for plan in plans:
        roles = {**plan.roles, **roles}
    return Plan(", ".join(plan.name for plan in plans), {}, tuple(curves.values()), roles)


def _export(
    store: Store, plan: Plan, name: str, stamps: Mapping[str, str], done: Container[str], failed: Container[str]
) -> str:
    """Write one file of a plan, and the record of what it was made from, unless both are as they should be."""
    finished = [curve for curve in plan.curves if curve.key in done]
    about = _about(plan, finished, done, failed)
    record = f"{EXPORTS}{name.removesuffix('.parquet')}.json"
    made_from = {
        "about": hashlib.sha256(about.encode()).hexdigest(),
        "fragments": {curve.key: stamps.get(curve.key) for curve in finished},
    }
    if not is_current(store, name, record, made_from):
        with _spooled(store, finished) as spool:
            fields = [_with_role(field, plan.roles) for field in spool.schema]
            metadata = {"schema_version": str(SCHEMA_VERSION), "tunnel_sweep": about}
            with written(spool.parts(), pa.schema(fields, metadata=metadata)) as (data, digest):
                store.put(name, data)
                about_it = made_from | {"sha256": digest, DIGESTS: spool.digests}
                store.put(record, json.dumps(about_it).encode())
    return store.path(name)


def _about(plan: Plan, finished: Sequence[PlannedCurve], done: Container[str], failed: Container[str]) -> str:
    """What a table says of its sweep, in its metadata."""
    lacking = [key for key in plan.keys if key not in done]
    about = {
        "schema_version": SCHEMA_VERSION,
        "name": plan.name,
        "variables": {variable: {"role": role} for variable, role in plan.roles.items()},
        **({"adjust": {name: list(others) for name, others in plan.adjust.items()}} if plan.adjust else {}),
        "planned_curves": len(plan.curves),
        "failed_curves": [key for key in lacking if key in failed],
        "missing_curves": [key for key in lacking if key not in failed],
        "curves": hashlib.sha256(json.dumps([[curve.key, curve.labels] for curve in finished]).encode()).hexdigest(),
    }
    return json.dumps(about)


def is_current(store: Store, name: str, record: str, made_from: Mapping[str, Any]) -> bool:
    """Whether a file was made from what is there now, and nobody changed it since."""
    try:
        recorded = json.loads(store.get(record))
        if recorded["about"] != made_from["about"] or recorded["fragments"] != made_from["fragments"]:
            return False
        return bool(store.sha256(name) == recorded["sha256"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return False


def changed_tables(store: Store, digests: Mapping[str, str]) -> list[str]:
    """Tables that are not byte for byte what was written, or were made from other fragments, in words.

    The next run writes them again; until then their record says which fragments are others.

    Parameters
    ----------
    digests : SHA-256 of each fragment, by its key.
    """
    found = []
    for record in (name for name in store.names(EXPORTS) if name.endswith(".json")):
        name = f"{record.removeprefix(EXPORTS).removesuffix('.json')}.parquet"
        if not store.exists(name):
            continue
        try:
            saved = json.loads(store.get(record))
            if store.sha256(name) != saved["sha256"]:
                found.append(f"{name}: it is not what was written; a run writes it again")
            others = [key for key, was in saved.get(DIGESTS, {}).items() if digests and digests.get(key) != was]
            if others:
                gone = others[0] not in digests
                what = "is gone" if gone else "is not the one it was made from"
                found.append(f"{name}: fragment {others[0]} {what}; a run writes it again")
                saved["fragments"] |= dict.fromkeys(others)  # by size and time of writing the run would not see it
                store.put(record, json.dumps(saved).encode())
        except (ValueError, KeyError, TypeError, AttributeError):
            found.append(f"{name}: the record of what it was made from is damaged; a run writes both again")
    return found


def labelled_probes(store: Store, curves: Sequence[PlannedCurve]) -> pa.Table:
    """Rows of these finished curves with their labels, all in memory."""
    with _spooled(store, curves) as spool:
        parts = list(spool.parts())
        return pa.concat_tables(parts) if parts else spool.schema.empty_table()


def _with_role(field: pa.Field, roles: Mapping[str, Role]) -> pa.Field:
    metadata = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
    if "role" in metadata:
        metadata["varied"] = "true" if field.name in roles else "false"
        metadata["role"] = roles.get(field.name, metadata["role"])
    return field.with_metadata(metadata)
