"""Published values, cell by cell: which backbone and dataset of a sweep each of them is of.

A published table is a mapping (:mod:`analysis.tables.mapped`) that also says where it was printed and which cell of a
sweep a row is:

source, table, page: …          where it was printed; an empty page is one that is not known here
file: harun2024_table5.csv      the file of its values: beside the mapping where it may stand there, else the user's
cells:                          a column of a sweep's table → what the row says of it; an empty value leaves it open
  architecture: {column: model, names: {VGGm-11: vggm11}}
  id_dataset: {value: imagenet100}
targets: {retained: {column: value, decimals: 2}}     decimals: as printed, a number or {column: …}
count: n                        column of how many experiments a mean is over; without it a row is one experiment
misprints: [{where: {dataset: [pets]}, what: …}]      what is known to be wrong, and how it is read here
missing: [Table 11, …]          what was published and is not here
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from analysis.tables import foreign, storage
from analysis.tables.errors import UserError
from analysis.tables.mapped import Source, asked_rows
from analysis.tables.mapping import read_spec

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "tables"
METRICS: Mapping[str, str] = {
    "retained": "% of OOD accuracy retained",
    "pearson": "ID–OOD Pearson correlation",
    "alignment": "ID/OOD alignment",
    "final_accuracy": "OOD accuracy of the last layer",
}
NEEDED = ("title", "source", "file", "cells", "targets")
OPEN = None  # a condition that a row does not make


@dataclass(frozen=True)
class Published:
    """One published table.

    Attributes
    ----------
    cells : one row per published value: ``metric``, ``value`` (in the metric's unit here), ``half`` (half a unit of its
        last printed digit), ``count`` (experiments it is a mean of; null: it is one), ``where``, ``misprint``, and a
        column of words for each condition; :data:`OPEN` where it makes none.
    conditions : columns of a sweep that conditions speak of.
    """

    name: str
    title: str
    source: str
    table: str
    page: str
    accuracy: str
    cells: pd.DataFrame
    conditions: tuple[str, ...]
    notes: tuple[str, ...] = ()
    misprints: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


def declared() -> dict[str, Path]:
    """Name of every published table that the project knows → its mapping."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml")) if "cells" in yaml.safe_load(path.read_bytes())}


def found(given: str) -> tuple[str, str] | None:
    """File and mapping of a published table by its name, or by a file that is called as a mapping says; else None.

    Raises
    ------
    UserError
        If a name is known, and its values are the user's to bring.
    """
    known = declared()
    if given in known:
        spec = read_spec(str(known[given]))
        file = known[given].with_name(spec["file"])
        if not file.is_file():
            raise UserError(
                f"{given}: the values of {spec['title']} are not the project's to ship; give their file instead of the "
                f"name: …/{spec['file']} ({spec['source']})"
            )
        return str(file), str(known[given])
    name = storage.ending(given).rsplit("/", 1)[-1]
    return next(((given, str(path)) for path in known.values() if read_spec(str(path))["file"] == name), None)


def read_published(given: str, mapping: str | None = None) -> Published:
    """Read one published table.

    Parameters
    ----------
    given : name of one that the project knows, or a file of values.
    mapping : says what the file's columns are; needed where no mapping of the project knows the file by its name.

    Raises
    ------
    UserError
        Naming file, column and row, if a table or mapping is not as it must be.
    """
    file, path = (given, mapping) if mapping else found(given) or (None, None)
    if file is None or path is None:
        names = ", ".join(declared())
        files = ", ".join(read_spec(str(known))["file"] for known in declared().values())
        raise UserError(f"{given}: no published table of that name ({names}) or file ({files}); others need --mapping")
    spec = read_spec(path)
    for key in NEEDED:
        if not spec.get(key):
            raise UserError(f"{path}: key {key} is missing: it says which cell of a sweep a published value is of")
    read = foreign.read(file, _wanted(spec))
    source = Source(file, asked_rows(read.frame, spec, path), read.names, read.guesses)
    cells = _cells(source, spec, path)
    return Published(
        name=Path(path).stem,
        title=str(spec["title"]),
        source=str(spec["source"]),
        table=str(spec.get("table") or ""),
        page=str(spec.get("page") or "not known here"),
        accuracy=str(spec.get("accuracy", "not stated")),
        cells=cells,
        conditions=tuple(spec["cells"]),
        notes=tuple(map(str, spec.get("notes") or ())),
        misprints=tuple(str(entry["what"]) for entry in spec.get("misprints") or ()),
        missing=tuple(map(str, spec.get("missing") or ())),
    )


def _wanted(spec: Mapping[str, Any]) -> set[str]:
    entries = [*spec["cells"].values(), *spec["targets"].values()]
    entries += [e["decimals"] for e in spec["targets"].values() if isinstance(e.get("decimals"), dict)]
    return {
        *(entry["column"] for entry in entries if "column" in entry),
        *(spec.get("rows") or {}),
        *(spec[key] for key in ("count", "where") if spec.get(key)),
    }


def _cells(source: Source, spec: Mapping[str, Any], path: str) -> pd.DataFrame:
    """Every value of every metric with its conditions."""
    conditions = {name: _condition(source, name, entry, path) for name, entry in spec["cells"].items()}
    shared = pd.DataFrame(conditions, index=source.frame.index, dtype=object)
    count, where = (_optional(source, spec.get(key), key) for key in ("count", "where"))
    parts = []
    for metric, entry in spec["targets"].items():
        if metric not in METRICS:
            raise UserError(f"{path}: targets.{metric}: unknown; valid targets are {', '.join(METRICS)}")
        times = float(entry.get("times", 1))
        value = source.numbers(entry["column"], f"targets.{metric}", finite=True) * times
        parts.append(
            shared.assign(
                metric=metric,
                value=value,
                half=_half(source, entry, metric) * times,
                count=pd.to_numeric(count) if count is not None else np.nan,
                where=where.astype(object) if where is not None else "",
            )
        )
    cells = pd.concat(parts, ignore_index=True)
    cells = cells[cells["value"].notna()].reset_index(drop=True)
    cells["misprint"] = [_misprint(row, spec.get("misprints") or (), path) for row in records(cells)]
    return cells


def _optional(source: Source, column: str | None, key: str) -> pd.Series | None:
    return None if column is None else source.column(column, key)


def _condition(source: Source, name: str, entry: Mapping[str, Any], path: str) -> Any:
    """What each row says of one column of a sweep, as words."""
    if "value" in entry:
        return text_of(entry["value"])
    if "column" not in entry:
        raise UserError(f"{path}: cells.{name}: must say {{column: NAME}} or {{value: …}}")
    values = source.column(entry["column"], f"cells.{name}").astype(object)
    names = {text_of(printed): meant for printed, meant in (entry.get("names") or {}).items()}
    words = [OPEN if pd.isna(value) or value == "" else text_of(value) for value in values]
    unknown = [word for word in words if names and word is not OPEN and word not in names]
    if unknown:
        raise UserError(f"{source.table}: column {entry['column']}: {unknown[0]!r} is none of {', '.join(names)}")
    return pd.Series([names.get(word, word) if word is not OPEN else OPEN for word in words], values.index, object)


def text_of(value: object) -> str:
    """A value of a condition or of a sweep's column as one word: ``32.0`` is 32, and an infinite count is all."""
    if isinstance(value, bool | np.bool_):
        return str(value).lower()
    if isinstance(value, float | np.floating | int | np.integer):
        return "all" if np.isinf(value) else f"{float(value):.10g}"
    return str(value)


def _half(source: Source, entry: Mapping[str, Any], metric: str) -> Any:
    """Half a unit of the last digit that is printed; 0 where nobody says how many there are."""
    decimals = entry.get("decimals")
    if decimals is None:
        return 0.0
    if isinstance(decimals, dict):
        decimals = source.numbers(decimals["column"], f"targets.{metric}.decimals", finite=True)
    return 0.5 * 10.0**-decimals


def records(cells: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as dictionaries by the names of their columns."""
    return [{str(name): value for name, value in row.items()} for row in cells.to_dict("records")]


def _misprint(row: Mapping[str, Any], misprints: Sequence[Mapping[str, Any]], path: str) -> str:
    """What is wrong with a value as printed."""
    said = []
    for entry in misprints:
        where = entry.get("where") or {}
        for name in where:
            if name not in row:
                raise UserError(f"{path}: misprints: {name} is none of the columns {', '.join(row)}")
        meets = all(row[n] in (v if isinstance(v, list) else [v]) for n, v in where.items())
        said += [str(entry["what"])] * (bool(where) and meets)
    return "; ".join(said)
