"""The table as readers want it: one file of a plan's curves, or all fragments as few sorted files.

Both are copies; the fragments stay the truth. The few files are named by their content, and ``export.json``, written
last, lists those that belong together: whoever reads what it lists never sees half of it.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Container, Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from sweep.base.errors import StorageError, UserError
from sweep.base.store import Store
from sweep.config import Role
from sweep.table.fragments import listing, read_fragment, serialised
from sweep.table.labels import joined, relabelled
from sweep.table.plans import PLANS, Plan, PlannedCurve, read_plans
from sweep.table.schema import SCHEMA_VERSION

EXPORT, MANIFEST = "probes.parquet", "export.json"
ROWS_PER_FILE = 2_000_000
_SORTED_BY = ("architecture", "id_dataset", "dataset", "weights_key", "curve_key", "layer")


def copy_sorted(store: Store, target: Store, *, rows_per_file: int = ROWS_PER_FILE) -> list[str]:
    """Write all fragments as few files, sorted by backbone, dataset and layer.

    Parameters
    ----------
    target : another place than the fragments'.
    rows_per_file : a file ends after the curve that reaches so many rows.

    Returns
    -------
    names of the files.

    Raises
    ------
    UserError
        If there is no fragment, or the target is the store itself.
    """
    if target.uri.rstrip("/") == store.uri.rstrip("/"):
        raise UserError(f"--to {target.uri}: that is where the fragments are; name another directory")
    keys = sorted(listing(store).done)
    if not keys:
        raise UserError(f"{store.uri}: there is no fragment (is that the --out of a sweep?)")
    names = []
    for number, part in enumerate(_parts(_sorted(labelled_probes(store, _everything(store, keys))), rows_per_file)):
        data = serialised(part)
        names.append(f"probes-{number:04d}-{hashlib.sha256(data).hexdigest()[:12]}.parquet")
        target.put(names[-1], data)
    old = [name for name in target.names() if name.startswith("probes-") and name not in names]
    target.put(MANIFEST, json.dumps({"of": store.uri, "curves": len(keys), "files": names}, indent=1).encode())
    for name in old:
        target.delete(name)
    return names


def _everything(store: Store, keys: Sequence[str]) -> list[PlannedCurve]:
    """Every fragment under every label that some plan gives it; what no plan asks for comes as it is."""
    plans = read_plans(store) if store.names(PLANS) else []
    found: dict[str, dict[str, PlannedCurve]] = {key: {} for key in keys}
    for curve in (curve for plan in plans for curve in plan.curves):
        if curve.key in found and curve.labels:
            found[curve.key].setdefault(json.dumps(curve.labels, sort_keys=True), curve)
    return [curve for key, of in found.items() for curve in of.values() or [PlannedCurve(key, "", "", "")]]


def _sorted(probes: pa.Table) -> pa.Table:
    return probes.sort_by([(column, "ascending") for column in _SORTED_BY])


def _parts(probes: pa.Table, rows: int) -> Iterator[pa.Table]:
    """Slices of about so many rows that never cut a curve."""
    keys = probes["curve_key"].to_pylist()
    start = 0
    while start < len(keys):
        end = min(start + rows, len(keys))
        while end < len(keys) and keys[end] == keys[end - 1]:
            end += 1
        yield probes.slice(start, end - start)
        start = end


def export_probes(store: Store, plan: Plan, *, done: Container[str], failed: Container[str] = ()) -> str:
    """Write ``probes.parquet``: the finished curves of a plan in plan order, under the plan's labels.

    A file that already holds exactly this is left alone.

    Parameters
    ----------
    done, failed : keys of the curves that the store has, and of those it has a failure record of.

    Returns
    -------
    path of the file, for people.
    """
    finished = [curve for curve in plan.curves if curve.key in done]
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
    text = json.dumps(about)
    if not _is_current(store, text):
        probes = labelled_probes(store, finished)
        fields = [_with_role(field, plan.roles) for field in probes.schema]
        schema = pa.schema(fields, metadata={"schema_version": str(SCHEMA_VERSION), "tunnel_sweep": text})
        store.put(EXPORT, serialised(probes.cast(schema)))
    return store.path(EXPORT)


def labelled_probes(store: Store, curves: Sequence[PlannedCurve]) -> pa.Table:
    """Rows of these finished curves with their labels; says where labels of old fragments are not those of the plan."""
    fragments = {key: read_fragment(store, key) for key in dict.fromkeys(curve.key for curve in curves)}
    for name, count in relabelled(fragments, curves).items():
        print(
            f"notice: {name} of {count} curves stands otherwise in fragments of version 0.1.0; the plan's is taken",
            file=sys.stderr,
        )
    return joined(fragments, curves)


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
