"""The numbers of the browsing page, packed: a JSON header, then columns of float64, compressed.

Every number is the table's own, with all its digits. The page's script unpacks it (``templates/browse_core.js``).
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.estimates.backbones import means
from analysis.page.browse_curves import MEASURES, curves, probes
from analysis.page.browse_plain import Columns, level, plain, value
from analysis.tables import names
from analysis.tables.experiments import GRID, Experiments, determined
from analysis.tables.metrics import ACCURACY_TEXT
from analysis.tables.stored import Stored
from analysis.tables.variables import Kind, describe, level_text

MOST_PROBES = 200_000  # above that the page holds experiments and backbones only
GIVEN = "given"  # the one rule of a table that someone else made
UNKNOWN = "not in the table: not run yet, or the record of its failure is gone"  # as views.sql says
METRICS: Mapping[str, tuple[str, str]] = {
    "retained": ("% of OOD accuracy retained", "%"),
    "retained_paper": ("% retained, the paper's way", "%"),
    "pearson": ("ID–OOD Pearson correlation", ""),
    "alignment": ("ID/OOD alignment", ""),
    "peak_accuracy": ("accuracy at the peak layer", ""),
    "final_accuracy": ("accuracy at the last layer", ""),
    "id_final_accuracy": ("ID accuracy of the last layer", ""),
    "peak_layer": ("peak layer", ""),
    "n_choosing": ("images that chose the peak layer", ""),
    "tunnel_start": ("tunnel starts after layer", ""),
    "tunnel_length": ("layers in the tunnel", ""),
    "id_start_95": ("first layer with 95 % of the ID accuracy", ""),
    "id_start_98": ("first layer with 98 % of the ID accuracy", ""),
}
EXTRA = ("parameters", "id_images", "backbone_test_top1")
LABELS = {
    "parameters": "parameters",
    "backbone_test_top1": "ID accuracy of its own classifier",
    "sweep": "sweep",
}
IF_NULL = {"images_per_class": "all", "augmentation": "downloaded"}  # what tables/sweep says for a null


@dataclass(frozen=True)
class Part:
    """One sweep, or one table of experiments, to browse.

    Attributes
    ----------
    name : what tells it from the other one.
    place : what ``python -m analysis.sql`` is called with; empty for a table that someone else made.
    by_rule : the same experiments by each accuracy rule.
    stored : its probes; None for a table that someone else made.
    """

    name: str
    place: str
    by_rule: Mapping[str, Experiments]
    stored: Stored | None = None
    kinds: Mapping[str, Kind] = field(default_factory=dict)

    @property
    def first(self) -> Experiments:
        """The experiments by the default rule."""
        return next(iter(self.by_rule.values()))

    @property
    def prefix(self) -> str:
        """What stands before its names of backbones and curves: beside another part its own name."""
        return f"{self.name}/" if "sweep" in self.first.frame else ""


@dataclass(frozen=True)
class Packed:
    """A header for JSON, and the columns that follow it."""

    header: dict[str, Any]
    columns: Mapping[str, np.ndarray]

    def text(self) -> str:
        """One word of base64 in which no markup can stand."""
        places, blobs, at = {}, [], 0
        for name, values in self.columns.items():
            blobs.append(np.ascontiguousarray(values, dtype="<f8").tobytes())
            places[name] = [at, len(values)]
            at += len(values)
        head = json.dumps({**self.header, "at": places}, ensure_ascii=False, allow_nan=False).encode()
        head += b" " * (-(len(head) + 8) % 8)  # the columns start at a multiple of 8
        raw = len(head).to_bytes(8, "little") + head + b"".join(blobs)
        return base64.b64encode(gzip.compress(raw, 6, mtime=0)).decode()


def pack(parts: Sequence[Part], extra: Mapping[str, Any]) -> Packed:
    """Everything the page shows, of one sweep or two.

    Parameters
    ----------
    extra : further entries of the header, such as the charts and what the report says.
    """
    named = [_named(part, several=len(parts) > 1) for part in _comparable(parts)]
    frame = pd.concat([part.first.frame for part in named], ignore_index=True)
    backbones = frame.drop_duplicates("backbone").reset_index(drop=True)
    number = {name: i for i, name in enumerate(backbones["backbone"])}
    kinds = {name: kind for part in named for name, kind in part.kinds.items()}
    shown, constant = _variables(frame, named)
    described = {variable.name: variable for variable in describe(backbones, shown, kinds)}
    found = [probes(part.stored, part.prefix) for part in named if part.stored is not None]
    total = sum(len(each) for each in found)
    lines, columns = curves(pd.concat(found, ignore_index=True), number) if 0 < total <= MOST_PROBES else ({}, {})
    experiments = frame[["backbone", "dataset"]].drop_duplicates(ignore_index=True)
    header = {
        "title": " against ".join(part.name for part in parts),
        "sources": [{"name": p.name, "source": p.first.source, "place": p.place} for p in parts],
        "notes": list(dict.fromkeys(note for part in parts for note in part.first.notes)),
        "rules": _rules(named),
        "metrics": _metrics(frame),
        "variables": [_variable(described[name], backbones[name]) for name in shown],
        "constant": {names.label(name): level_text(value) for name, value in constant.items()},
        "backbones": {
            **plain(backbones[["backbone", "label"]]),
            **{name: [level(each) for each in backbones[name].tolist()] for name in shown},
            **_architecture(backbones, named),
        },
        "summaries": {rule: _summaries(named, rule, number) for rule in named[0].by_rule},
        "experiments": {
            "backbone": [number[name] for name in experiments["backbone"]],
            "dataset": experiments["dataset"].tolist(),
        },
        "values": {rule: _values(named, rule, experiments) for rule in named[0].by_rule},
        "kept": {name: _kept(backbones, name, shown) for name in shown},
        "curves": lines,
        "n_probes": total,
        "measures": {name: text for name, text in MEASURES.items() if name in columns},
        "failures": [row for part in named for row in _failures(part)],
        "under_way": [name for part in parts if part.stored is not None for name in part.stored.under_way],
        "planned": sum(part.first.planned or 0 for part in parts),
        "constants": {"most_probes": MOST_PROBES},
        **extra,
    }
    return Packed(header, columns)


def _comparable(parts: Sequence[Part]) -> list[Part]:
    """A given table beside a sweep: under each of the sweep's rules, with the sweep's spelling of names."""
    first = parts[0]
    return [first, *(part if GIVEN not in part.by_rule else _spelt_as(first, part) for part in parts[1:])]


def _spelt_as(first: Part, part: Part) -> Part:
    """``CUB-200`` is what the other calls ``cub200``: names that differ in case and signs only are the same."""
    ours, given = first.first.frame, part.first.frame
    changed: dict[str, pd.Series] = {}
    shared = [str(c) for c in given if c in ours and c not in ("backbone", "label", "dataset")]
    for name in ("dataset", *shared):
        if not (pd.api.types.is_numeric_dtype(given[name]) or pd.api.types.is_numeric_dtype(ours[name])):
            known = {_folded(word): word for word in ours[name].dropna().astype(str).unique()}
            words = given[name].astype(object)
            changed[name] = words.map(lambda word, known=known: known.get(_folded(word), word), na_action="ignore")
    table = replace(part.first, frame=pd.DataFrame({**given, **changed}))
    return replace(part, by_rule=dict.fromkeys(first.by_rule, table))


def _folded(word: object) -> str:
    return "".join(letter for letter in str(word).casefold() if letter.isalnum())


def _named(part: Part, *, several: bool) -> Part:
    """Of two sweeps each has a column that says which it is, and its own names of backbones."""
    if not several:
        return part
    rules = {}
    for rule, found in part.by_rule.items():
        frame = found.frame.assign(
            sweep=part.name,
            backbone=part.name + "/" + found.frame["backbone"].astype(str),
            label=part.name + ": " + found.frame["label"].astype(str),
        )
        rules[rule] = replace(found, frame=frame)
    return replace(part, by_rule=rules)


def _variables(frame: pd.DataFrame, parts: Sequence[Part]) -> tuple[list[str], dict[str, object]]:
    """Columns of a backbone that differ between backbones, and those that do not."""
    own = [name for part in parts for name in (*part.first.variables, *part.first.context, *part.first.replicates)]
    candidates = ["sweep", *GRID, *own, *names.DERIVED, *EXTRA]
    present = [c for c in dict.fromkeys(candidates) if c in frame and determined(frame, c, ["backbone"])]
    varied = [c for c in present if frame[c].nunique(dropna=False) > 1]
    constant = {c: frame[c].iloc[0] for c in present if c not in varied and frame[c].notna().any()}
    return varied, constant


def _variable(variable: Any, column: pd.Series) -> dict[str, Any]:
    """A column as the page filters it: numbers by range, words by choice."""
    infinite = pd.api.types.is_numeric_dtype(column) and bool(np.isinf(column.astype(float)).any())
    numeric = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    return {
        "name": variable.name,
        "label": LABELS.get(variable.name, variable.label),
        "kind": "number" if numeric and not infinite else "word",
        "levels": [level(each) for each in variable.levels],  # the page words them, as it does the values
        "ordered": variable.kind != "categorical",
        "if_null": IF_NULL.get(variable.name),
        "quoted": not numeric,
    }


def _architecture(backbones: pd.DataFrame, parts: Sequence[Part]) -> Columns:
    """How many curves of each backbone there are, and how many are not."""
    lost = [str(row["backbone"]) for part in parts for row in _failures(part) if row["backbone"]]
    counts = pd.concat([part.first.frame for part in parts]).groupby("backbone", sort=False)["dataset"].nunique()
    missing = pd.Series(lost, dtype=str).value_counts()
    return {
        "n_datasets": [int(counts[name]) for name in backbones["backbone"]],
        "n_lost": [int(missing.get(name, 0)) for name in backbones["backbone"]],
    }


def _rules(parts: Sequence[Part]) -> dict[str, str]:
    if GIVEN in parts[0].by_rule:
        return {GIVEN: parts[0].first.accuracy}
    return {rule: ACCURACY_TEXT[rule] for rule in parts[0].by_rule}


def _metrics(frame: pd.DataFrame) -> dict[str, dict[str, str]]:
    return {
        name: {"label": text, "unit": unit}
        for name, (text, unit) in METRICS.items()
        if name in frame and frame[name].notna().any()
    }


def _summaries(parts: Sequence[Part], rule: str, number: Mapping[str, int]) -> Columns:
    """Means of each backbone by a rule, in the order of the backbones; null where there is none."""
    tables = [backbone_means(part.by_rule[rule]) for part in parts]
    table = pd.concat([each for each in tables if len(each)], ignore_index=True) if any(map(len, tables)) else None
    if table is None:
        return {}
    frame = pd.concat([part.by_rule[rule].frame for part in parts], ignore_index=True)
    told = ("retained", "retained_own", "low", "high", "strength", "tunnels", "tunnel_start", "n_layers", "n_choosing")
    keep = [c for c in told if c in table]
    table = table.set_index("backbone")[keep]
    groups = frame.groupby("backbone", sort=False)
    for name in ("pearson", "alignment", "id_final_accuracy"):
        if name in frame:
            table[name] = groups[name].mean()
    if "peak_layer" in frame:
        table["best_layer"] = groups["peak_layer"].median()
    return plain(table.reindex(list(number)))


def backbone_means(experiments: Experiments) -> pd.DataFrame:
    """Means of each backbone with intervals and strength, as the report has them; for the page and for ``load``."""
    return means(experiments)


def _values(parts: Sequence[Part], rule: str, rows: pd.DataFrame) -> Columns:
    """Metrics of each experiment by a rule, in the order of the rows; repeats of a table are averaged."""
    frame = pd.concat([part.by_rule[rule].frame for part in parts], ignore_index=True)
    wanted = [name for name in METRICS if name in frame]
    values = frame[["backbone", "dataset", *wanted]].astype(dict.fromkeys(wanted, float))
    if values.duplicated(["backbone", "dataset"]).any():
        values = values.groupby(["backbone", "dataset"], sort=False)[wanted].mean().reset_index()
    return plain(rows.merge(values, on=["backbone", "dataset"], how="left")[wanted])


def _kept(backbones: pd.DataFrame, name: str, shown: Sequence[str]) -> list[str]:
    """Columns that are equal in a matched pair of a variable: all but those that alone tell its value."""
    others = [c for c in shown if c != name and c not in EXTRA]
    return [c for c in others if not determined(backbones, name, [c])]


def _failures(part: Part) -> list[dict[str, Any]]:
    """Curves that were asked for and are not there whole, with the reason and, where it is known, the backbone."""
    incomplete = part.first.incomplete
    if not len(incomplete):
        return []
    records = part.stored.failures.to_pandas().sort_values("failed_at") if part.stored is not None else pd.DataFrame()
    latest = {str(row["curve_key"]): row for row in records.to_dict("records")}  # the last one stays
    words, own = _planned(part)
    rows = []
    for row in incomplete.to_dict("records"):
        key = str(row["curve_key"])
        label, dataset = words.get(key, (None, row.get("dataset")))
        record = latest.get(key)
        backbone = row["backbone"] if isinstance(row.get("backbone"), str) else own.get(label)
        if backbone and "sweep" in part.first.frame:
            backbone = f"{part.name}/{backbone}"
        state = "failed" if record else "incomplete" if isinstance(row.get("backbone"), str) else "missing"
        rows.append({"curve": key, "backbone": backbone, "label": label, "dataset": dataset, "state": state})
        reason = _reason(record) if record else UNKNOWN if state == "missing" else str(row["reason"])
        if state == "missing" and part.stored is not None and label in part.stored.under_way:
            reason = f"under way when this page was made: {part.stored.under_way[label]}"
        rows[-1] |= {"stage": value(record["stage"]) if record else None, "reason": reason}
    return rows


def _reason(record: Mapping[Any, Any]) -> str:
    """What a failed attempt left; of a record that cannot be read only its message is known."""
    return ": ".join(str(record[key]) for key in ("exception", "message") if value(record[key]) is not None)


def _planned(part: Part) -> tuple[dict[str, tuple[str | None, str | None]], dict[str | None, str]]:
    """What the plan calls each curve, and which backbone of the table has the plan's label."""
    if part.stored is None:
        return {}, {}
    rows = part.stored.planned.to_pylist()
    words = {row["curve_key"]: (row["backbone"], row["dataset"]) for row in rows}
    curves = part.first.curves
    present = {} if curves is None else dict(zip(curves.table["curve_key"], curves.table["backbone"], strict=True))
    return words, {words[key][0]: str(name) for key, name in present.items() if key in words and words[key][0]}
