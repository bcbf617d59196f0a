"""A table of experiments that someone else made, read through a small YAML mapping.

title: …
targets:   {retained: {column: Percentage OOD retained}, …}        {…, times: 100} if the file has shares, not %
variables: {depth: {column: Depth, kind: ordinal}, …}     kind: numeric | ordinal | categorical
           augmentation: {column: Aug, names: {0: "off", 2: "on"}}          values under other names
           size: {column: Size, kind: ordinal, levels: [small, large]}      words, from low to high
           seed: {column: Seed, role: replicate}   role: treatment (default) | nuisance | replicate
           params: {column: Params, kind: numeric, scale: log}              counts in powers, not in steps
           objective: {column: Objective, reference: supervised}            the level that others are compared with
           depth: {column: Depth, part: architecture}                       group whose joint share is reported
group: dnn                      column that names the backbone
dataset: ood_dataset            column that names the OOD dataset (optional)
cluster: architecture           column of what backbones lie in and share more than the variables say; or several, of
                                which each lies in the next: {architecture: model, family: family}. What varies only
                                between them has them as its units
adjust: {depth: [params, year]} confounders held equal for a variable; mediators and all others are left out. Without
                                it all other variables are held equal that can be told apart from it
pairing: [id_dataset]           further columns that must be equal in a matched pair (optional)
label: [model, depth]           columns that name a backbone for people (optional)
fill:                           columns that the file may lack, from the position of its rows (optional)
  dnn: {each: 8}                one number for each 8 rows
  id_dataset: {runs: [[16, A], [8, [B, C]]]}   16 rows A, then 8 rows B, C, B, C, …
rows: {kind: value}             only rows that have these values, of columns of the file (optional)

Only treatments are attributed to. Matched pairs agree in nuisances and replicates, as in everything else. Messages
count the rows of data from 1.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from analysis.tables import foreign, names
from analysis.tables.errors import UserError
from analysis.tables.experiments import Experiments, held_equal, labels
from analysis.tables.mapping import ROLES, Spec, read_mapping, text
from analysis.tables.names import TARGETS, Target
from analysis.tables.variables import Kind

CLUSTER = "cluster: "  # what the column of a declared level is called here
_HEAD = "the first row must hold the names of the columns: remove what stands above it"
LARGEST_SHARE = 1.5  # percentages of which none is above this are shares by mistake


@dataclass(frozen=True)
class Source:
    """The file that is read: where it lies, the columns that are used, the names of all, and what was guessed."""

    table: str
    frame: pd.DataFrame
    names: Sequence[str]
    guesses: Sequence[str] = ()

    def column(self, name: str, key: str) -> pd.Series:
        """A column that the mapping names under ``key``."""
        if name not in self.frame:
            bare = len(self.names) < 2 or "" in self.names
            raise UserError(
                f"{self.table}: no column {name!r} (mapping key {key}); the columns are "
                f"{', '.join(map(str, self.names))}{'; ' * bare}{_HEAD * bare}"
            )
        return self.frame[name]

    def words(self, name: str, key: str) -> pd.Series:
        """A column of names, none of which may be missing."""
        values = self.column(name, key)
        self._refuse(values, name, values.isna(), f"is empty (mapping key {key})")
        return values.map(text)

    def numbers(self, name: str, key: str, *, finite: bool) -> pd.Series:
        """A column of numbers; a missing one stays missing."""
        values = self.column(name, key)
        numbers = pd.to_numeric(values, errors="coerce").astype(float)
        self._refuse(values, name, numbers.isna() & values.notna(), "{value} is not a number")
        if finite:
            self._refuse(values, name, pd.Series(np.isinf(numbers)), "{value} is not a finite number")
        return numbers

    def _refuse(self, values: pd.Series, name: str, bad: pd.Series, why: str) -> None:
        rows = np.flatnonzero(bad.to_numpy(bool))
        if len(rows):
            value = values.iloc[rows[0]]
            comma = isinstance(value, str) and foreign.DECIMAL_COMMA.fullmatch(value)
            remedy = "write numbers with a point" if comma else "mend it, or remove the row"
            said = why.format(value=_shown(value))
            raise UserError(f"{self.table}: column {name!r}, row {rows[0] + 1}: {said}; {remedy}")


_SUMMARIES = ("mean", "average", "avg", "median", "total", "sum", "std", "min", "max", "count")


def read_mapped(table: str, mapping: str) -> Experiments:
    """Read a CSV or Parquet table of experiments.

    Raises
    ------
    UserError
        Naming file, column and row, if the mapping or the table is not as it must be.
    """
    spec = read_mapping(mapping)
    read = foreign.read(table, _wanted(spec))
    if not len(read.frame):
        raise UserError(f"{table}: the table has no rows")
    for guess in read.guesses:
        print(f"notice: {table}: {guess}", file=sys.stderr)
    source = Source(table, asked_rows(read.frame, spec, mapping), read.names, read.guesses)
    data = pd.DataFrame({"backbone": source.words(spec["group"], "group")})
    data["dataset"] = source.words(spec["dataset"], "dataset") if spec.get("dataset") else "all"
    targets = [target for name, target in TARGETS.items() if name in spec["targets"]]
    for target in targets:
        data[target.name] = _outcome(source, target, spec["targets"][target.name])
    kinds: dict[str, Kind] = {}
    for name, entry in spec["variables"].items():
        kinds[name], data[name] = _variable(source, name, entry)
    _refuse_without_variables(source, data, list(kinds))
    _refuse_means(source, data, list(kinds))
    for name in spec.get("pairing", ()):
        data[name] = source.words(name, "pairing")
    for name, column in _clusters(spec).items():
        data[CLUSTER + name] = data[column].astype(str) if column in kinds else source.words(column, "cluster")
    data["label"] = _labels(source, data, spec, list(kinds))
    return _experiments(source, data, spec, targets, kinds)


def asked_rows(frame: pd.DataFrame, spec: Spec, path: str) -> pd.DataFrame:
    """Rows of a file that a mapping speaks of, with the columns that it adds by position."""
    frame = _filled(frame, spec.get("fill") or {}, path)
    for name, value in (spec.get("rows") or {}).items():
        if name not in frame:
            raise UserError(f"{path}: rows.{name}: the table has no such column; it has {', '.join(map(str, frame))}")
        frame = frame[frame[name].astype(str) == str(value)]
    if not len(frame):
        raise UserError(f"{path}: rows: {spec['rows']}: no row of the table has these values")
    return frame.reset_index(drop=True)


def _refuse_without_variables(source: Source, data: pd.DataFrame, variables: Sequence[str]) -> None:
    """A row that has an outcome and no variable is a mean, or a remark; of a single variable nobody can tell."""
    bare = np.flatnonzero(data[list(variables)].isna().all(axis=1)) if len(variables) > 1 else np.empty(0, int)
    if len(bare):
        row = int(bare[0])
        raise UserError(
            f"{source.table}: row {row + 1} ({data['backbone'].iloc[row]}) has none of the variables "
            f"{', '.join(variables)}: remove rows of means and remarks"
        )


def _refuse_means(source: Source, data: pd.DataFrame, variables: Sequence[str]) -> None:
    """A row that says "Mean", or another such word, as its backbone and once more, is none of a backbone."""
    plain = data[["backbone", *(name for name in ("dataset", *variables) if name in data)]].astype(str)
    plain = plain.apply(lambda column: column.str.strip().str.casefold())
    twice = plain.drop(columns="backbone").eq(plain["backbone"], axis=0).any(axis=1)
    rows = np.flatnonzero(twice & plain["backbone"].isin(_SUMMARIES))
    if len(rows):
        row = int(rows[0])
        raise UserError(
            f"{source.table}: row {row + 1} says {data['backbone'].iloc[row]} in several columns: remove rows of means"
        )


def _clusters(spec: Spec) -> dict[str, str]:
    """Name of each declared level → its column."""
    declared = spec.get("cluster") or {}
    if isinstance(declared, str):
        return {declared: declared}
    return dict(declared) if isinstance(declared, dict) else {name: name for name in declared}


def _wanted(spec: Spec) -> set[str]:
    """Columns of the file that the mapping speaks of."""
    entries = [*spec["targets"].values(), *spec["variables"].values()]
    singles = [spec["group"], spec.get("dataset")]
    several = (*spec.get("pairing", ()), *(spec.get("label") or ()), *_clusters(spec).values())
    return {*(entry["column"] for entry in entries), *singles, *several, *(spec.get("rows") or {})}


def _labels(source: Source, data: pd.DataFrame, spec: Spec, variables: Sequence[str]) -> pd.Series:
    shown = spec.get("label") or [
        *spec.get("pairing", ()),
        *(name for name in variables if data[name].nunique() > 1 and _role(spec, name) != "replicate"),
    ]
    own = [name for name in shown if name not in data]
    known = pd.concat([data, *(source.column(name, "label") for name in own)], axis=1)
    return labels(known, shown)


def _role(spec: Spec, name: str) -> str:
    return str(spec["variables"][name].get("role", "treatment"))


def _experiments(
    source: Source, data: pd.DataFrame, spec: Spec, targets: Sequence[Target], kinds: Mapping[str, Kind]
) -> Experiments:
    empty = [target.name for target in targets if not np.isfinite(data[target.name]).any()]
    with_role = {role: [name for name in kinds if _role(spec, name) == role] for role in ROLES}
    varied = tuple(sorted(name for name in with_role["treatment"] if data[name].nunique() > 1))
    clusters = {name: CLUSTER + name for name in _clusters(spec)}
    _same_within_backbone(source, data, spec, (*varied, *clusters.values()))
    declared = spec["variables"]
    adjust, unheld = held_equal(spec.get("adjust") or {}, varied)
    notes = [*map(str, spec.get("notes", ())), *source.guesses]
    notes += [f"target {name}: the column is empty" for name in empty]
    notes += [
        f"{name} is a nuisance: it is not attributed to, and matched pairs agree in it"
        for name in with_role["nuisance"]
    ]
    notes += unheld
    for name in varied:
        missing = int(data[name].isna().sum())
        if missing:
            notes.append(
                f"{names.label(name)} is missing in {missing} of {len(data)} experiments: not applicable there"
            )
    again = int(data.duplicated(["backbone", "dataset"]).sum()) if spec.get("dataset") else 0
    if again:
        notes.append(f"{again} experiments have the backbone and dataset of an earlier row: they count as repeats")
    return Experiments(
        frame=data,
        source=source.table,
        title=str(spec.get("title", source.table.rsplit("/", 1)[-1])),
        targets=tuple(target for target in targets if target.name not in empty),
        variables=varied,
        context=(*spec.get("pairing", ()), *(name for name in with_role["nuisance"] if data[name].nunique() > 1)),
        replicates=tuple(name for name in with_role["replicate"] if data[name].nunique() > 1),
        clusters={name: column for name, column in clusters.items() if data[column].nunique() > 1},
        kinds=dict(kinds),
        logs=tuple(name for name in varied if declared[name].get("scale") == "log"),
        references={name: str(declared[name]["reference"]) for name in varied if "reference" in declared[name]},
        parts={name: str(declared[name]["part"]) for name in varied if "part" in declared[name]},
        adjust=adjust,
        constant={name: data[name].iloc[0] for name in kinds if data[name].nunique() == 1},
        accuracy=str(spec.get("accuracy", "not stated: the table was made elsewhere")),
        notes=tuple(notes),
    )


def _same_within_backbone(source: Source, data: pd.DataFrame, spec: Spec, variables: Sequence[str]) -> None:
    """A variable is a property of the backbone: name the first two rows that disagree."""
    first = data.groupby("backbone", sort=False)[list(variables)].transform("first") if variables else data
    for name in variables:
        differs = (data[name] != first[name]) & ~(data[name].isna() & first[name].isna())
        if differs.any():
            row = int(np.flatnonzero(differs.to_numpy())[0])
            backbone = data["backbone"].iloc[row]
            other = int(np.flatnonzero((data["backbone"] == backbone).to_numpy())[0])
            raise UserError(
                f"{source.table}: column {_column(spec, name)!r}, row {row + 1}: "
                f"{data[name].iloc[row]}, but row {other + 1} of the same backbone ({spec['group']} {backbone}) has "
                f"{data[name].iloc[other]}; the group must be the backbone, and a variable a property of it"
            )


def _column(spec: Spec, name: str) -> str:
    """The file's column behind one of ours."""
    if name.startswith(CLUSTER):
        return _clusters(spec)[name.removeprefix(CLUSTER)]
    return str(spec["variables"][name]["column"])


def _outcome(source: Source, target: Target, entry: Spec) -> pd.Series:
    values = source.numbers(entry["column"], f"targets.{target.name}", finite=True) * float(entry.get("times", 1))
    if target.unit == "points" and values.abs().max() <= LARGEST_SHARE:
        raise UserError(
            f"{source.table}: column {entry['column']!r}: no value is above {LARGEST_SHARE}, so these are shares and "
            f"not percentages; say so: targets.{target.name}: {{column: {entry['column']}, times: 100}}"
        )
    return values


def _variable(source: Source, name: str, entry: Spec) -> tuple[Kind, pd.Series]:
    where, column = f"variables.{name}", entry["column"]
    values = source.column(column, where)
    if "kind" not in entry and "levels" not in entry:
        values = _told_apart(source, name, column, values, known=bool(entry.get("names")))
    ordered = is_numeric_dtype(values) or "levels" in entry or _is_ordered(values)
    kind: Kind = entry.get("kind") or ("ordinal" if ordered else "categorical")
    if kind == "numeric":
        numbers = source.numbers(column, where, finite=True)
        if entry.get("scale") == "log" and (numbers <= 0).any():
            row = int(np.flatnonzero(numbers <= 0)[0])
            raise UserError(
                f"{source.table}: column {column!r}, row {row + 1}: {numbers.iloc[row]:g} has no logarithm "
                f"({where}.scale: log); leave the scale out, or the row"
            )
        return kind, numbers
    if entry.get("scale") == "log":
        raise UserError(f"{where}.scale: log needs kind: numeric")
    values = _renamed(values, entry.get("names") or {})
    if _is_ordered(values) and "levels" not in entry:
        return kind, values if kind == "ordinal" else values.astype(object)
    order = [str(level) for level in entry.get("levels") or _known_order(name)]
    if kind == "categorical" or (is_numeric_dtype(values) and "levels" not in entry):
        return kind, values
    words = values.map(text, na_action="ignore").astype(object)
    fits = words.isin(order) if order else pd.to_numeric(values, errors="coerce").notna()
    bad = np.flatnonzero((values.notna() & ~fits).to_numpy(bool))
    if len(bad):
        why = f"is none of the levels {', '.join(order)}" if order else "is not a number"
        raise UserError(
            f"{source.table}: column {column!r}, row {bad[0] + 1}: {_shown(values.iloc[bad[0]])} {why}; an ordinal of "
            f"words needs {where}.levels, from low to high"
        )
    if not order:
        return kind, pd.to_numeric(values)
    return kind, pd.Series(pd.Categorical(words, categories=order, ordered=True), values.index)


def _is_ordered(values: pd.Series) -> bool:
    """Whether the file itself says in which order its levels stand."""
    return isinstance(values.dtype, pd.CategoricalDtype) and bool(values.dtype.ordered)


def _renamed(values: pd.Series, names: Mapping[Any, Any]) -> pd.Series:
    """Values under other names; in the order that they have, if they have one."""
    if not names:
        return values
    other = {text(key): text(name) for key, name in names.items()}
    if _is_ordered(values):
        return values.cat.rename_categories(lambda level: other.get(text(level), level))
    return values.map({level: other.get(text(level), level) for level in values.dropna().unique()})


def _told_apart(source: Source, name: str, column: str, values: pd.Series, *, known: bool) -> pd.Series:
    """Numbers among words are a mistake more often than not: nobody guesses which; numbers alone are numbers."""
    if known or is_numeric_dtype(values) or isinstance(values.dtype, pd.CategoricalDtype):
        return values
    numbers = pd.to_numeric(values, errors="coerce")
    odd = values.notna() & numbers.isna()
    if not odd.any():
        return numbers
    if 2 * int(odd.sum()) < int(values.notna().sum()):
        row = int(np.flatnonzero(odd.to_numpy())[0])
        raise UserError(
            f"{source.table}: column {column!r}, row {row + 1}: {_shown(values.iloc[row])} is not a number, and most "
            f"of the others are; mend it, or say variables.{name}: {{column: {column}, kind: categorical}}"
        )
    return values


def _shown(value: object) -> str:
    """A cell as a message shows it: words in quotes."""
    return repr(value) if isinstance(value, str) else str(value)


def _known_order(name: str) -> tuple[str, ...]:
    return names.KNOWN[name].order if name in names.KNOWN else ()


def _filled(frame: pd.DataFrame, fill: Mapping[str, Any], path: str) -> pd.DataFrame:
    """Add the columns that the file lacks and whose values follow from the position of its rows."""
    for name, rule in fill.items():
        if name not in frame:
            frame = frame.assign(**{name: _from_position(rule, len(frame), f"{path}: fill.{name}")})
    return frame


def _from_position(rule: Any, n_rows: int, where: str) -> list[Any]:
    if not isinstance(rule, dict) or set(rule) not in ({"each"}, {"runs"}):
        raise UserError(f"{where}: must be {{each: ROWS}} or {{runs: [[ROWS, value or list], …]}}")
    try:
        if "each" in rule:
            values: list[Any] = [row // rule["each"] for row in range(n_rows)]
            fits = n_rows % rule["each"] == 0
        else:
            runs = [(count, value if isinstance(value, list) else [value]) for count, value in rule["runs"]]
            values = [words[row % len(words)] for count, words in runs for row in range(count)]
            fits = len(values) == n_rows
    except (TypeError, ValueError, ZeroDivisionError):
        raise UserError(f"{where}: must be {{each: ROWS}} or {{runs: [[ROWS, value or list], …]}}") from None
    if not fits:
        raise UserError(f"{where}: does not fit the {n_rows} rows of the table")
    return values
