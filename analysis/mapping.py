"""A table of experiments that someone else made, read through a small YAML mapping.

title: …
targets:   {retained: {column: Percentage OOD retained}, …}
variables: {depth: {column: Depth, kind: ordinal}, …}     kind: numeric | ordinal | categorical
           augmentation: {column: Aug, names: {0: "off", 2: "on"}}          values under other names
group: dnn                      column that names the backbone
dataset: ood_dataset            column that names the OOD dataset (optional)
pairing: [id_dataset]           further columns that must be equal in a matched pair (optional)
label: [model, depth]           columns that name a backbone for people (optional)
fill:                           columns that the file may lack, from the position of its rows (optional)
  dnn: {each: 8}                one number for each 8 rows
  id_dataset: {runs: [[16, A], [8, [B, C]]]}   16 rows A, then 8 rows B, C, B, C, …
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import yaml

from analysis import storage
from analysis.design import Kind
from analysis.errors import UserError
from analysis.experiments import Experiments, labels
from analysis.vocabulary import TARGETS

KEYS = ("title", "targets", "variables", "group", "dataset", "pairing", "label", "fill", "accuracy", "notes")
KINDS = ("numeric", "ordinal", "categorical")


@dataclass(frozen=True)
class Mapped:
    """Experiments read through a mapping, and the declared kinds of their variables."""

    experiments: Experiments
    kinds: Mapping[str, Kind]


def read_mapped(table: str, mapping: str) -> Mapped:
    """Read a CSV or Parquet table of experiments.

    Raises
    ------
    UserError
        Naming file, column and row, if the mapping or the table is not as it must be.
    """
    spec = _read_yaml(mapping)
    frame = storage.read_any(table).to_pandas()
    if not len(frame):
        raise UserError(f"{table}: the table has no rows")
    frame = _filled(frame, spec.get("fill", {}), mapping)
    columns = {"backbone": spec["group"], "dataset": spec.get("dataset")}
    data = pd.DataFrame({"backbone": _column(frame, columns["backbone"], "group", table).astype(str)})
    data["dataset"] = _column(frame, columns["dataset"], "dataset", table).astype(str) if columns["dataset"] else "all"
    targets = [target for name, target in TARGETS.items() if name in spec["targets"]]
    for target in targets:
        data[target.name] = _numbers(frame, spec["targets"][target.name]["column"], f"targets.{target.name}", table)
    kinds: dict[str, Kind] = {}
    for name, entry in spec["variables"].items():
        kinds[name], data[name] = _variable(frame, name, entry, table)
    for name in spec.get("pairing", ()):
        data[name] = _column(frame, name, "pairing", table).astype(str)
    shown = spec.get("label") or [*spec.get("pairing", ()), *(name for name in kinds if data[name].nunique() > 1)]
    known = pd.concat([data, frame[[name for name in shown if name in frame and name not in data]]], axis=1)
    for name in shown:
        _column(known, name, "label", table)
    data["label"] = labels(known, shown)
    empty = [target.name for target in targets if not np.isfinite(data[target.name]).any()]
    varied = tuple(sorted(name for name in kinds if data[name].nunique() > 1))
    notes = [str(note) for note in spec.get("notes", ())]
    notes += [f"target {name}: the column is empty" for name in empty]
    experiments = Experiments(
        frame=data,
        source=table,
        title=str(spec.get("title", table.rsplit("/", 1)[-1])),
        targets=tuple(target for target in targets if target.name not in empty),
        variables=varied,
        context=tuple(spec.get("pairing", ())),
        constant={name: data[name].iloc[0] for name in kinds if name not in varied},
        accuracy=str(spec.get("accuracy", "not stated: the table was made elsewhere")),
        notes=tuple(notes),
    )
    return Mapped(experiments, kinds)


def _variable(frame: pd.DataFrame, name: str, entry: Mapping[str, Any], table: str) -> tuple[Kind, pd.Series]:
    where = f"variables.{name}"
    values = _column(frame, entry["column"], where, table)
    kind: Kind = entry.get("kind", "ordinal" if pd.api.types.is_numeric_dtype(values) else "categorical")
    return kind, _numbers(frame, entry["column"], where, table) if kind == "numeric" else _renamed(values, entry)


def _renamed(values: pd.Series, entry: Mapping[str, Any]) -> pd.Series:
    names = entry.get("names", {})
    return values.map(lambda value: names.get(value, value)) if names else values


def _read_yaml(path: str) -> dict[str, Any]:
    filesystem, where = storage.resolve(path)
    try:
        with filesystem.open_input_stream(where) as stream:
            spec = yaml.safe_load(stream.read())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(spec, dict):
        raise UserError(f"{path}: must be a mapping with the keys {', '.join(KEYS)}")
    for key in spec:
        if key not in KEYS:
            raise UserError(f"{path}: unknown key {key}; valid keys are {', '.join(KEYS)}")
    for key in ("targets", "variables", "group"):
        if not spec.get(key):
            raise UserError(f"{path}: key {key} is missing")
    for name in spec["targets"]:
        if name not in TARGETS:
            raise UserError(f"{path}: targets.{name}: unknown; valid targets are {', '.join(TARGETS)}")
    for part in ("targets", "variables"):
        for name, entry in spec[part].items():
            if not isinstance(entry, dict) or "column" not in entry:
                raise UserError(f"{path}: {part}.{name}: must say which column, as {{column: NAME}}")
            if entry.get("kind", "ordinal") not in KINDS:
                raise UserError(f"{path}: {part}.{name}.kind: {entry['kind']!r} is none of {', '.join(KINDS)}")
    return spec


def _column(frame: pd.DataFrame, name: str, key: str, table: str) -> pd.Series:
    if name not in frame:
        raise UserError(
            f"{table}: no column {name!r} (mapping key {key}); the columns are {', '.join(map(str, frame))}"
        )
    return frame[name]


def _numbers(frame: pd.DataFrame, name: str, key: str, table: str) -> pd.Series:
    values = _column(frame, name, key, table)
    numbers = pd.to_numeric(values, errors="coerce")
    bad = np.flatnonzero(numbers.isna().to_numpy() & values.notna().to_numpy())
    if len(bad):
        raise UserError(f"{table}: column {name!r}, row {bad[0] + 1}: {values.iloc[bad[0]]!r} is not a number")
    return numbers.astype(float)


def _filled(frame: pd.DataFrame, fill: Mapping[str, Any], path: str) -> pd.DataFrame:
    """Add the columns that the file lacks and whose values follow from the position of its rows."""
    for name, rule in fill.items():
        if name not in frame:
            frame = frame.assign(**{name: _from_position(rule, len(frame), f"{path}: fill.{name}")})
    return frame


def _from_position(rule: Any, n_rows: int, where: str) -> list[Any]:
    if not isinstance(rule, dict) or set(rule) not in ({"each"}, {"runs"}):
        raise UserError(f"{where}: must be {{each: ROWS}} or {{runs: [[ROWS, value or list], …]}}")
    if "each" in rule:
        values = [row // rule["each"] for row in range(n_rows)]
        fits = n_rows % rule["each"] == 0
    else:
        runs = [(count, value if isinstance(value, list) else [value]) for count, value in rule["runs"]]
        values = [words[row % len(words)] for count, words in runs for row in range(count)]
        fits = len(values) == n_rows
    if not fits:
        raise UserError(f"{where}: does not fit the {n_rows} rows of the table")
    return values
