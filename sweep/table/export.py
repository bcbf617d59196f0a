"""The table as readers want it: one file of a plan's curves, or all fragments as few sorted files.

Both are copies; the fragments stay the truth. The few files are named by their content, and ``export.json``, written
last, lists those that belong together: whoever reads what it lists never sees half of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from sweep.base.errors import StorageError, UserError
from sweep.base.store import Store
from sweep.config import Role
from sweep.table.fragments import listing, read_fragments, serialised
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
    for number, part in enumerate(_parts(_sorted(read_fragments(store, keys)), rows_per_file)):
        data = serialised(part)
        names.append(f"probes-{number:04d}-{hashlib.sha256(data).hexdigest()[:12]}.parquet")
        target.put(names[-1], data)
    old = [name for name in target.names() if name.startswith("probes-") and name not in names]
    target.put(MANIFEST, json.dumps({"of": store.uri, "curves": len(keys), "files": names}, indent=1).encode())
    for name in old:
        target.delete(name)
    return names


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


def export_probes(
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
        return False  # a damaged export_probes is written again from the fragments
    return metadata.get(b"tunnel_sweep") == about.encode()


def _with_role(field: pa.Field, roles: Mapping[str, Role]) -> pa.Field:
    metadata = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
    if "role" in metadata:
        metadata["varied"] = "true" if field.name in roles else "false"
        metadata["role"] = roles.get(field.name, metadata["role"])
    return field.with_metadata(metadata)
