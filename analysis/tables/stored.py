"""What stands in a store of probes, without reading it yet: the probes, the plans, the failures.

A place is a Parquet file, a sweep's folder (its ``probes.parquet``, or its fragments where there is none yet), an
export of ``python -m sweep.table export`` (``export.json`` lists its files), or any folder of Parquet files; local or
a URI.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from analysis.tables import notes, plans, storage
from analysis.tables.errors import UserError
from analysis.tables.written import FRAGMENTS, refuse_changed

FAILURES, PLANS, MANIFEST = "failures", "plans", "export.json"
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
SCHEMA_VERSION = 2  # of what a sweep writes
_NEEDED = ("curve_key", "layer", "top1")  # no row is a probe without them
_AGAIN = "run the sweep with --verify: what is not a curve's own is set aside and done again"
PLANNED_SCHEMA = pa.schema([(name, pa.string()) for name in ("curve_key", "backbone", "dataset")])


@dataclass(frozen=True)
class Stored:
    """Probes that can be scanned, and what a sweep says of itself.

    Attributes
    ----------
    uri : the file or folder that holds the probes.
    probes : one row per probe; nothing is read before it is scanned.
    about : what a sweep wrote into the metadata of ``probes.parquet`` (name, roles, failed and missing curves).
    planned : curves that are asked for: ``curve_key``, and ``backbone`` and ``dataset`` in words where a plan says so.
    failures : the records of failed attempts, with the columns of :data:`FAILURE_SCHEMA`.
    under_way : backbones that a worker is busy with, in the plan's words, and how far it is.
    """

    uri: str
    probes: ds.Dataset
    about: dict[str, Any] = field(default_factory=dict)
    planned: pa.Table = field(default_factory=PLANNED_SCHEMA.empty_table)
    failures: pa.Table = field(default_factory=FAILURE_SCHEMA.empty_table)
    under_way: dict[str, str] = field(default_factory=dict)

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Read these columns of all probes, or all of them; UserError if a file is damaged."""
        try:
            return self.probes.to_table(columns=None if columns is None else list(columns))
        except FileNotFoundError:
            raise UserError(f"{self.uri}: a file went away while it was read; try again") from None
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{self.uri}: cannot be read as Parquet ({str(error).splitlines()[0]})") from None


def find(uri: str) -> Stored:
    """Find the probes of a place.

    Raises
    ------
    UserError
        If there are none, or a file cannot be read as Parquet.
    """
    if storage.ending(uri).lower().removesuffix(".gz").endswith((".csv", ".tsv", ".txt", ".xlsx")):
        raise UserError(
            f"{uri}: that is no sweep's; a table from elsewhere: --table {shlex.quote(uri)} --mapping FILE.yaml"
        )
    if storage.ending(uri).endswith((".parquet", ".pq")):
        refuse_changed(uri)
        return _with_records(uri, [uri], storage.folder(uri))
    whole = storage.join(uri, storage.PROBES)
    if storage.exists(whole):
        refuse_changed(whole)
        return _with_records(whole, [whole], uri)
    manifest = storage.join(uri, MANIFEST)
    if storage.exists(manifest):
        return _with_records(uri, [storage.join(uri, name) for name in _listed(manifest)], uri)
    for folder, root in ((storage.join(uri, FRAGMENTS), uri), (uri, storage.folder(uri.rstrip("/")))):
        names = [name for name in storage.names(folder) if name.endswith(".parquet") and "/" not in name]
        if storage.ending(folder).rstrip("/").rpartition("/")[2] == FRAGMENTS:
            names = _without_copies(names)
        files = [storage.join(folder, name) for name in names]
        if files:
            return _with_records(folder, files, root, fragments=True)
    raise UserError(
        f"{whole}: no such file, and no fragments beside it; a finished sweep has one "
        f"(python sweep/run.py --out {shlex.quote(uri)} writes it), a running one has fragments after its first curve"
    )


def _without_copies(names: Sequence[str]) -> list[str]:
    """Fragments but for those whose name is more than a key that stands there too: "KEY copy", "old_KEY"."""
    stems = {name: name.removesuffix(".parquet") for name in names}
    keys = [stem for stem in stems.values() if stem.isalnum()]
    return [name for name, stem in stems.items() if stem.isalnum() or not any(key in stem for key in keys)]


def _listed(manifest: str) -> list[str]:
    """Files of an export, by its own list."""
    try:
        names = json.loads(storage.read(manifest))["files"]
        if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
            return names
    except (ValueError, KeyError, TypeError):
        pass
    raise UserError(f"{manifest}: not a list of an export's files; python -m sweep.table export writes it again")


def _with_records(uri: str, files: Sequence[str], root: str, *, fragments: bool = False) -> Stored:
    own = fragments and storage.ending(uri).rstrip("/").rpartition("/")[2] == FRAGMENTS  # not any folder of files
    probes = _dataset(uri, files, needed=_NEEDED if own else ())
    if own:
        _refuse_damaged(uri, probes)
    about = json.loads((probes.schema.metadata or {}).get(b"tunnel_sweep", b"{}"))
    found = _plans(root, about)
    bare = "is_id" not in probes.schema.names  # without labels; those of 0.1.0 have theirs, and may lie beside others
    if fragments and "curve_key" in probes.schema.names and (bare or any(plan.labels for plan in found)):
        probes, about = _under_labels(uri, probes, found)
    planned = _planned(found, about)
    words = set(planned["backbone"].to_pylist())
    under_way = {name: text for name, text in notes.fresh(root).items() if name in words}
    return Stored(uri, probes, about, planned, _failures(root), under_way)


def _refuse_damaged(folder: str, fragments: ds.Dataset) -> None:
    """UserError if a fragment is not one curve's, whole and once: its rows would count twice, or be missing."""
    last = ["is_penultimate"] if "is_penultimate" in fragments.schema.names else []
    found = _read(folder, fragments, ["__filename", "curve_key", "layer", *last]).to_pydict()
    rows: dict[str, list[tuple[str, int, bool | None]]] = {}
    for file, *row in zip(*found.values(), strict=True):
        rows.setdefault(file, []).append((row[0], row[1], row[2] if last else None))
    for file, each in rows.items():
        if problem := _problem(file.rpartition("/")[2].removesuffix(".parquet"), each):
            raise UserError(f"{file}: {problem}; {_AGAIN}")


def _problem(key: str, rows: Sequence[tuple[str, int, bool | None]]) -> str | None:
    """Why rows (curve, layer, whether it is the last one) are not those of a curve; None if they are.

    A layer that is missing between others is told with the experiments, as it is of any table.
    """
    if others := {curve for curve, _, _ in rows} - {key}:
        return f"it holds rows of {min(others)}"
    layers = [layer for _, layer, _ in rows]
    if layers != sorted(layers):
        return f"its layers are {layers}: rows stand twice, or where they do not belong"
    flags = [flag for _, _, flag in rows]
    if any(flag is not None for flag in flags) and flags != [layer == layers[-1] for layer in layers]:
        return "its last row is not the penultimate layer's: rows are missing"
    return None


def _read(folder: str, fragments: ds.Dataset, columns: list[str] | None = None) -> pa.Table:
    """Columns of fragments; UserError if one is damaged."""
    try:
        return fragments.to_table(columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{folder}: a fragment is damaged ({str(error).splitlines()[0]}); {_AGAIN}") from None


def _under_labels(uri: str, fragments: ds.Dataset, found: Sequence[plans.Plan]) -> tuple[ds.Dataset, dict[str, Any]]:
    """Fragments as the table that their plan makes of them, and what that table would say of itself."""
    labelled = [plan for plan in found if plan.labels]
    if len(labelled) != 1:
        names = ", ".join(plan.name for plan in labelled) or "none"
        raise UserError(
            f"{uri}: fragments do not know what a sweep calls them; one plan beside them has to say it, there are: "
            f"{names}; run the sweep again to have probes.parquet written"
        )
    (plan,) = labelled
    try:
        rows = plans.joined(_read(uri, fragments), plan)
    except (ValueError, TypeError) as error:  # Arrow's too
        raise UserError(
            f"{uri}: the plan {plan.name} has labels that are none ({error}); run the sweep again"
        ) from None
    about = {"name": plan.name, "variables": {variable: {"role": role} for variable, role in plan.roles.items()}}
    about |= {"adjust": plan.adjust} if plan.adjust else {}
    return ds.dataset(rows), about


def _dataset(uri: str, files: Sequence[str], needed: Sequence[str]) -> ds.Dataset:
    """One dataset of all files, which may differ in the columns that they have, but for those needed."""
    paths = [storage.resolve(file)[1] for file in files]
    filesystem = storage.resolve(files[0])[0]
    schemas = [storage.schema(file) for file in files]
    for file, each in zip(files, schemas, strict=True):
        version = (each.metadata or {}).get(b"schema_version", b"1").decode()
        if version.isdigit() and int(version) > SCHEMA_VERSION:
            newer = f"written with schema {version}, this version reads up to {SCHEMA_VERSION}"
            raise UserError(f"{file}: {newer}: use the version that wrote it, or a newer one")
        if lacking := [name for name in needed if name not in each.names]:
            raise UserError(f"{file}: no column {', '.join(lacking)}; {_AGAIN}")
    try:
        schema = pa.unify_schemas(schemas).with_metadata(schemas[0].metadata)
    except pa.ArrowInvalid as error:
        raise UserError(f"{uri}: its files do not fit together ({error})") from None
    return ds.dataset(paths, schema=schema, filesystem=filesystem, format=storage.CHECKED)


def _plans(root: str, about: dict[str, Any]) -> list[plans.Plan]:
    """The plan that the table is of, or all plans of the store."""
    folder = storage.join(root, PLANS)
    names = [name for name in storage.names(folder) if name.endswith(".json") and "/" not in name]  # not those replaced
    own = [name for name in names if name == f"{about.get('name')}.json"] or names
    places = {name: storage.join(folder, name) for name in own}
    return [plans.parse(name.removesuffix(".json"), place, storage.read(place)) for name, place in places.items()]


def _planned(found: Sequence[plans.Plan], about: dict[str, Any]) -> pa.Table:
    """Curves of the plans; else what the table's metadata says is missing."""
    rows: dict[str, tuple[str, str | None, str | None]] = {}
    for plan in found:
        for key, backbone, dataset in plan.curves[["curve_key", "backbone", "dataset"]].itertuples(index=False):
            rows[key] = (key, backbone, dataset)
    for key in (*about.get("failed_curves", []), *about.get("missing_curves", [])):
        rows.setdefault(key, (key, None, None))
    columns = zip(*rows.values(), strict=True) if rows else ([], [], [])
    return pa.Table.from_arrays([pa.array(list(c), pa.string()) for c in columns], schema=PLANNED_SCHEMA)


def _failures(root: str) -> pa.Table:
    """All records of failed attempts; one that cannot be read says so in its place."""
    folder = storage.join(root, FAILURES)
    tables = [_record(storage.join(folder, name), name) for name in storage.names(folder) if name.endswith(".parquet")]
    return pa.concat_tables(tables) if tables else FAILURE_SCHEMA.empty_table()


def _record(uri: str, name: str) -> pa.Table:
    filesystem, path = storage.resolve(uri)
    try:
        table = pq.read_table(path, filesystem=filesystem)
        columns = [
            table[f.name].cast(f.type) if f.name in table.schema.names else pa.nulls(len(table), f.type)
            for f in FAILURE_SCHEMA
        ]
    except (pa.ArrowException, OSError):
        row = dict.fromkeys(FAILURE_COLUMNS) | {"curve_key": name.split("/")[0], "message": f"{uri} cannot be read"}
        return pa.Table.from_pylist([row], schema=FAILURE_SCHEMA)
    return pa.table(columns, schema=FAILURE_SCHEMA)
