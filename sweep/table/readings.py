"""What is measured of layers beside their probes: one small file per curve and instrument, one long table to read.

Switching an instrument on adds files and leaves every fragment of probes as it is. A file is named by its own key,
which a plan lists for each of its curves; several curves may share one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from sweep.base.errors import UserError
from sweep.base.store import Store
from sweep.table.fragments import conform, parse_parquet, read_file, serialised
from sweep.table.schema import LABELS, SCHEMA

READINGS = "readings/"
_text, _int, _real = pa.string(), pa.int32(), pa.float64()
_COLUMNS: tuple[tuple[str, pa.DataType, str], ...] = (
    ("reading_key", _text, "content key of what one instrument measured of one curve; names its file"),
    ("instrument", _text, "what measured it: a name of `instruments:` or `readings:`"),
    ("reading", _text, "what the number is, see docs/instruments.md: rankme, nc3, knn_top1, …"),
    ("layer", _int, "index of the layer, as in probes.parquet; null for several layers together, or none"),
    ("layer_name", _text, "its name, as there; of several together: last, middle + last, all"),
    ("other_layer", _int, "of a pair of layers the deeper one; else null"),
    ("shots", _int, "training images per class of a few-shot reading; else null"),
    ("draw", _int, "which draw of these images, 0 is the first; else null"),
    ("value", _real, "the number, on training or test images as docs/instruments.md says; null: not defined here"),
    ("heldout_value", _real, "of accuracies: on held-out images by a fit without them, to choose layers by; else null"),
)
READING_SCHEMA = pa.schema([pa.field(name, kind, metadata={"description": said}) for name, kind, said in _COLUMNS])
_ELSEWHERE = ("id_images", "overparametrization")  # of backbones trained here these stand with the probes alone
_OF_CURVE = ("curve_key", *(name for name in LABELS if name not in _ELSEWHERE))
TABLE_SCHEMA = pa.schema([*(SCHEMA.field(name) for name in _OF_CURVE), *READING_SCHEMA])


def measured_keys(store: Store) -> frozenset[str]:
    """Keys of what the store has."""
    return frozenset(_stem(name) for name in store.names(READINGS) if name.endswith(".parquet"))


def _stem(name: str) -> str:
    return name.removeprefix(READINGS).removesuffix(".parquet")


def is_measured(store: Store, key: str) -> bool:
    """Whether the store has what an instrument measured."""
    return store.exists(_name(key))


def _name(key: str) -> str:
    return f"{READINGS}{key}.parquet"


def write_reading(store: Store, key: str, instrument: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Publish all that an instrument measured of a curve at once, after reading back what would be published.

    Raises
    ------
    ValueError
        If a row has an unknown column.
    """
    if unknown := {name for row in rows for name in row} - set(READING_SCHEMA.names):
        raise ValueError(f"rows have columns that the schema lacks: {sorted(unknown)}")
    whole = [{"reading_key": key, "instrument": instrument, **row} for row in rows]
    data = serialised(pa.Table.from_pylist(whole, schema=READING_SCHEMA))
    if parse_parquet(data).num_rows != len(rows):
        raise ValueError(f"reading {key}: what was serialised is not what was given")
    store.put(_name(key), data)


def read_reading(store: Store, key: str) -> pa.Table:
    """What an instrument measured; UserError if the file is damaged."""
    table = read_file(store, _name(key))
    if problem := _problem(table, key):
        raise UserError(f"{store.path(_name(key))} is damaged: {problem}; run the sweep with --verify")
    return conform(table, READING_SCHEMA)


def _problem(table: pa.Table, key: str) -> str | None:
    lacking = [name for name in READING_SCHEMA.names if name not in table.schema.names]
    if lacking or set(table["reading_key"].to_pylist()) - {key}:
        return f"it is not what {key} was"
    return None


def problem_of_reading(data: bytes, key: str) -> str | None:
    """Why these bytes are not what an instrument measured under this key; None if they are."""
    try:
        table = parse_parquet(data)
        conform(table, READING_SCHEMA).validate(full=True)
        return _problem(table, key)
    except (pa.ArrowException, OSError, ValueError) as error:
        return f"not a readable Parquet file: {str(error).splitlines()[0]}"


def under_labels(parts: Iterable[tuple[str, Mapping[str, Any], pa.Table]]) -> pa.Table:
    """Rows of the table: those of each file under the key and the labels of a curve that it is of."""
    tables = [TABLE_SCHEMA.empty_table()]
    for curve_key, labels, rows in parts:
        told = {"curve_key": curve_key, **labels}
        own = [
            pa.repeat(pa.scalar(told.get(name), TABLE_SCHEMA.field(name).type), len(rows)).cast(
                TABLE_SCHEMA.field(name).type
            )
            for name in _OF_CURVE
        ]
        tables.append(pa.table([*own, *rows.columns], schema=TABLE_SCHEMA))
    return pa.concat_tables(tables)


def readings_dictionary() -> str:
    """The table's own columns as Markdown; the others are those of the same name in the probe table."""
    lines = ["| column | type | meaning |", "|---|---|---|"]
    lines += [f"| `{name}` | {kind} | {said} |" for name, kind, said in _COLUMNS]
    return "\n".join(lines) + "\n"
