"""What stands in a store of probes: the probes, the plans, the failures.

A place is a Parquet file, a sweep's folder (its ``probes.parquet``, or its fragments where there is none yet), an
export of ``python -m sweep.table export`` (``export.json`` lists its files), or any folder of Parquet files; local or
a URI. A fragment holds what was measured; its labels come from the plans beside it (:func:`_labelled`), so fragments
are read at once, and everything else when it is scanned.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow import fs

from analysis.tables import storage
from analysis.tables.errors import UserError

FRAGMENTS, FAILURES, PLANS, MANIFEST = "fragments", "failures", "plans", "export.json"
FAILURE_COLUMNS = (
    "curve_key",
    "backbone",
    "dataset",
    "stage",
    "exception",
    "message",
    "traceback",
    "host",
    "failed_at",
)
FAILURE_SCHEMA = pa.schema(
    [pa.field(c, pa.timestamp("us", tz="UTC") if c == "failed_at" else pa.string()) for c in FAILURE_COLUMNS]
)
PLANNED_SCHEMA = pa.schema([(name, pa.string()) for name in ("curve_key", "backbone", "dataset")])


@dataclass(frozen=True)
class Stored:
    """Probes that can be scanned, and what a sweep says of itself.

    Attributes
    ----------
    uri : the file or folder that holds the probes.
    probes : one row per probe, with its labels.
    about : what a sweep wrote into the metadata of ``probes.parquet`` (name, roles, failed and missing curves), or
        what a plan says of fragments.
    planned : curves that are asked for: ``curve_key``, and ``backbone`` and ``dataset`` in words where a plan says so.
    failures : the records of failed attempts, with the columns of :data:`FAILURE_SCHEMA`.
    """

    uri: str
    probes: ds.Dataset
    about: dict[str, Any] = field(default_factory=dict)
    planned: pa.Table = field(default_factory=PLANNED_SCHEMA.empty_table)
    failures: pa.Table = field(default_factory=FAILURE_SCHEMA.empty_table)

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Read these columns of all probes, or all of them; UserError if a file is damaged."""
        try:
            return self.probes.to_table(columns=None if columns is None else list(columns))
        except FileNotFoundError:
            raise UserError(f"{self.uri}: a file went away while it was read; try again") from None
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{self.uri}: cannot be read as Parquet ({str(error).splitlines()[0]})") from None


@dataclass(frozen=True)
class Plan:
    """What a config asks for.

    Attributes
    ----------
    curves : key → backbone and dataset, in words.
    labels : key → columns of the table that the key does not determine; empty in plans of version 0.1.0.
    roles : of the variables that vary.
    """

    name: str
    curves: Mapping[str, tuple[str, str]]
    labels: Mapping[str, Mapping[str, Any]]
    roles: Mapping[str, str]


def find(uri: str) -> Stored:
    """Find the probes of a place.

    Raises
    ------
    UserError
        If there are none, or a file cannot be read as Parquet.
    """
    if storage.ending(uri).endswith((".parquet", ".pq")):
        return _with_records(uri, [uri], storage.folder(uri))
    whole = storage.join(uri, storage.PROBES)
    if storage.exists(whole):
        return _with_records(whole, [whole], uri)
    manifest = storage.join(uri, MANIFEST)
    if storage.exists(manifest):
        return _with_records(
            uri, [storage.join(uri, name) for name in json.loads(storage.read(manifest))["files"]], uri
        )
    for folder, root in ((storage.join(uri, FRAGMENTS), uri), (uri, storage.folder(uri.rstrip("/")))):
        files = [storage.join(folder, name) for name in _names(folder) if name.endswith(".parquet") and "/" not in name]
        if files:
            return _with_records(folder, files, root)
    raise UserError(
        f"{whole}: no such file, and no fragments beside it; a finished sweep has one "
        f"(python sweep/run.py --out {uri} writes it), a running one has fragments after its first curve"
    )


def _with_records(uri: str, files: Sequence[str], root: str) -> Stored:
    probes = _dataset(uri, files)
    about = json.loads((probes.schema.metadata or {}).get(b"tunnel_sweep", b"{}"))
    plans = _plans(root, about.get("name"))
    if not about and any(plan.labels for plan in plans):
        probes = ds.dataset(_labelled(probes.to_table(), plans))
    if not about and plans:
        about = {"name": plans[0].name, "variables": {name: {"role": role} for name, role in _roles(plans).items()}}
    return Stored(uri, probes, about, _planned(plans, about), _failures(root))


def _roles(plans: Sequence[Plan]) -> dict[str, str]:
    return {name: role for plan in reversed(plans) for name, role in plan.roles.items()}


def _dataset(uri: str, files: Sequence[str]) -> ds.Dataset:
    """One dataset of all files, which may differ in the columns that they have."""
    paths = [storage.resolve(file)[1] for file in files]
    filesystem = storage.resolve(files[0])[0]
    schemas = [storage.schema(file) for file in files]
    try:
        schema = pa.unify_schemas(schemas).with_metadata(schemas[0].metadata)
    except pa.ArrowInvalid as error:
        raise UserError(f"{uri}: its files do not fit together ({error})") from None
    return ds.dataset(paths, schema=schema, filesystem=filesystem, format="parquet")


def _names(uri: str) -> list[str]:
    """Names of the files below a folder, sorted; none if there is no folder."""
    filesystem, path = storage.resolve(uri)
    found = filesystem.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
    names = (info.path[len(path.rstrip("/")) + 1 :] for info in found if info.type == fs.FileType.File)
    return sorted(name for name in names if not name.startswith(".") and "/." not in name)


def _plans(root: str, name: str | None) -> list[Plan]:
    """The plan of this name, or all plans of a store in the order of their names."""
    folder = storage.join(root, PLANS)
    names = [found for found in _names(folder) if found.endswith(".json")]
    own = [found for found in names if found == f"{name}.json"] or names
    return [_plan(storage.join(folder, found), found.removesuffix(".json")) for found in own]


def _plan(uri: str, name: str) -> Plan:
    """A plan of this version, in which a backbone stands once with its labels, or of version 0.1.0, without labels."""
    try:
        saved = json.loads(storage.read(uri))
        if "version" not in saved:
            rows = {str(key): (str(words[0]), str(words[1])) for key, words in saved["curves"].items()}
            return Plan(name, rows, {}, {})
        curves: dict[str, tuple[str, str]] = {}
        labels: dict[str, dict[str, Any]] = {}
        for key, number, dataset, is_id in saved["curves"]:
            backbone, _, shared = saved["backbones"][number]
            curves.setdefault(str(key), (str(backbone), str(dataset)))
            if shared:
                labels.setdefault(str(key), {**shared, "dataset": dataset, "is_id": is_id})
        return Plan(name, curves, labels, dict(saved.get("roles", {})))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f"{uri} is damaged ({error!r}); run the sweep again to have it written") from None


def _labelled(measured: pa.Table, plans: Sequence[Plan]) -> pa.Table:
    """Probes under the labels of their curves; of several plans the first one that has a curve names it.

    A fragment of version 0.1.0 that no plan labels keeps its own. Images and γ of a trained backbone are measured.
    """
    labels = {key: words for plan in reversed(plans) for key, words in plan.labels.items()}
    keys = measured["curve_key"].to_pylist()
    told = pa.array([key in labels for key in keys])
    names = dict.fromkeys(name for words in labels.values() for name in words)
    found = {name: measured[name] for name in measured.schema.names}
    for name in names:
        values = pa.chunked_array([pa.array([labels.get(key, {}).get(name) for key in keys])])
        if name in found:
            values = pc.if_else(told, values.cast(found[name].type), found[name])
        found[name] = values
    if {"id_images", "trained_images", "parameters"} <= set(found):
        images = pc.coalesce(found["id_images"].cast(pa.int64()), found["trained_images"].cast(pa.int64()))
        found["id_images"] = images
        found["overparametrization"] = pc.divide(found["parameters"].cast(pa.float64()), images.cast(pa.float64()))
    return pa.table(found)


def _planned(plans: Sequence[Plan], about: Mapping[str, Any]) -> pa.Table:
    """Curves that plans ask for, and those that the table's metadata says are missing."""
    rows: dict[str, tuple[str | None, str | None]] = {}
    for plan in plans:
        for key, words in plan.curves.items():
            rows.setdefault(key, words)
    for key in (*about.get("failed_curves", []), *about.get("missing_curves", [])):
        rows.setdefault(key, (None, None))
    columns = [list(rows), [words[0] for words in rows.values()], [words[1] for words in rows.values()]]
    return pa.Table.from_arrays([pa.array(column, pa.string()) for column in columns], schema=PLANNED_SCHEMA)


def _failures(root: str) -> pa.Table:
    """All records of failed attempts; one that cannot be read says so in its place."""
    folder = storage.join(root, FAILURES)
    tables = [_record(storage.join(folder, name), name) for name in _names(folder) if name.endswith(".parquet")]
    return pa.concat_tables(tables) if tables else FAILURE_SCHEMA.empty_table()


def _record(uri: str, name: str) -> pa.Table:
    filesystem, path = storage.resolve(uri)
    try:
        table = pq.read_table(path, filesystem=filesystem)
    except (pa.ArrowException, OSError):
        row = dict.fromkeys(FAILURE_COLUMNS) | {"curve_key": name.split("/")[0], "message": f"{uri} cannot be read"}
        return pa.Table.from_pylist([row], schema=FAILURE_SCHEMA)
    columns = [
        table[f.name].cast(f.type) if f.name in table.schema.names else pa.nulls(len(table), f.type)
        for f in FAILURE_SCHEMA
    ]
    return pa.table(columns, schema=FAILURE_SCHEMA)
