"""What a report says, as the browsing page shows it: the one place that reads report.json and its SHAP values.

Only what is there is shown: a key that a report lacks leaves its part of the page empty. Effects come in the unit that
is printed (% retained: points).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.tables import storage
from analysis.tables.names import TARGETS, label
from analysis.tables.variables import level_text

SLOPE, ADJUSTED, MATCHED, TREES = "SHAP slope", "adjusted effect", "matched pairs", "change by the trees"
KINDS = (MATCHED, ADJUSTED, TREES, SLOPE)
OF_EFFECT = {"pairs": MATCHED, "adjusted": ADJUSTED, "trees": TREES}  # in the outcome's own unit
UNCORRECTED = "cannot tell"
ASSERTED = ("clear", "likely", "interval excludes zero")
NAME, VALUES = "report.json", "shap_values.parquet"
TABLES = ("effects.parquet", "slopes.parquet", "contrasts.parquet", VALUES)  # that SQL can ask
Report = Mapping[str, Any]


def read(place: str) -> dict[str, Any] | None:
    """The report in a folder, for the page; None if there is none."""
    if not storage.exists(storage.join(place, NAME)):
        return None
    report = json.loads(storage.read(storage.join(place, NAME)))
    values = storage.join(place, VALUES)
    shap = storage.read_parquet(values).to_pandas() if storage.exists(values) else None
    tables = [name for name in (*TABLES, NAME) if storage.exists(storage.join(place, name))]
    return {**adapt(report, shap), "place": place.rstrip("/"), "tables": tables}


def adapt(report: Report, shap: pd.DataFrame | None) -> dict[str, Any]:
    """The parts of a report that the page shows."""
    targets = report.get("targets") or {}
    contrasts = [_contrast(row) for row in report.get("contrasts") or [] if row.get("level", "backbone") == "backbone"]
    verdicts = {_same(row["target"], row): row["verdict"] for row in contrasts}
    return {
        "accuracy": report.get("accuracy", ""),
        "findings": [_finding(found) for found in report.get("findings") or []],
        "targets": {name: _target(name, entry, verdicts) for name, entry in targets.items()},
        "contrasts": contrasts,
        "shap": {} if shap is None else {name: _shap(shap, name) for name in targets},
        "kinds": list(KINDS),
    }


def _finding(found: Mapping[str, Any] | str) -> dict[str, str]:
    if isinstance(found, str):
        return {"text": found}
    return {key: str(found.get(key) or "") for key in ("text", "number", "interval", "sure", "basis")}


def _target(name: str, entry: Report, verdicts: Mapping[tuple[Any, ...], str]) -> dict[str, Any]:
    interactions = entry.get("interactions") or {}
    return {
        "label": entry.get("label", name),
        "unit": entry.get("unit", ""),
        "factor": _factor(name),
        "problem": entry.get("problem"),
        "estimates": [*_effects(name, entry.get("effects") or [], verdicts), *_slopes(name, entry.get("slopes") or {})],
        "interactions": {
            "variables": interactions.get("variables") or [],
            "labels": [label(variable) for variable in interactions.get("variables") or []],
            "matrix": interactions.get("matrix") or [],
        },
    }


def _same(target: str, row: Report) -> tuple[Any, ...]:
    """What is equal in an effect's matched pairs and in the contrast that they are, which alone has a verdict."""
    value = row.get("value")
    return target, row.get("variable"), row.get("from"), row.get("to"), None if value is None else round(value, 9)


def _effects(target: str, effects: Sequence[Report], verdicts: Mapping[tuple[Any, ...], str]) -> list[dict[str, Any]]:
    """The estimates of every effect side by side, in the printed unit."""
    rows = []
    for effect in effects:
        variables = [str(name) for name in effect["variables"]]
        about: dict[str, Any] = {
            "variable": variables[0],
            "label": label(variables[0]),
            "together": [label(name) for name in variables[1:]],
            "scale": _scale(effect),
        }
        for key, kind in OF_EFFECT.items():
            found = effect.get(key) or {}
            if found.get("value") is not None:
                pairs = {**effect, "variable": variables[0], "value": found["value"]}
                own = verdicts.get(_same(target, pairs)) if kind == MATCHED else None
                rows.append(about | _estimate({**found, "verdict": own or found.get("verdict")}, kind, 1.0))
    return rows


def _slopes(target: str, slopes: Mapping[str, Report]) -> list[dict[str, Any]]:
    """SHAP slopes by variable, from the model's unit to the printed one; what has no direction has none."""
    factor = _factor(target)
    rows = []
    for variable, entry in slopes.items():
        if entry.get("slope") is not None:
            words: dict[str, Any] = {"variable": variable, "label": entry.get("label") or label(variable)}
            words |= {"together": [], "scale": _scale(entry)}
            found = {**entry, "value": entry["slope"]}
            rows.append(words | _estimate(found, SLOPE, factor))
    return rows


def _factor(target: str) -> float:
    """From the unit that the model is fitted in to the printed one."""
    return TARGETS[target].scale if target in TARGETS else 1.0


def _scale(entry: Report) -> str:
    return " → ".join(level_text(entry[key]) for key in ("from", "to") if entry.get(key) is not None)


def _estimate(found: Report, kind: str, factor: float) -> dict[str, Any]:
    """One estimate with its interval and its verdict; ``sure``: whether a sentence may state it."""
    value, low, high = (None if found.get(key) is None else factor * found[key] for key in ("value", "low", "high"))
    verdict = _verdict(found, low, high)
    units = f"{found['n_units']} {found.get('unit') or 'units'}" if found.get("n_units") else ""
    basis = ", ".join(part for part in (units, found.get("method") or "") if part)
    return {
        "kind": kind,
        "value": value,
        "low": low,
        "high": high,
        "verdict": verdict,
        "sure": verdict in ASSERTED,
        "basis": basis,
    }


def _verdict(entry: Report, low: float | None, high: float | None) -> str:
    """The report's own verdict; where it gave none, what the interval says and nothing more.

    "cannot tell" of an estimate with an interval is such a case: it was not corrected for how much was looked at.
    """
    verdict = entry.get("verdict")
    if isinstance(verdict, str) and not (verdict == UNCORRECTED and low is not None and high is not None):
        return verdict
    if low is None or high is None:
        return "no interval"
    return "interval excludes zero" if low > 0 or high < 0 else "interval includes zero"


def _contrast(row: Report) -> dict[str, Any]:
    together = list(row.get("together_with") or [])
    low, high = (row.get(key) for key in ("low", "high"))
    verdict = _verdict(row, low, high)
    return {
        "target": row["target"],
        "variable": row["variable"],
        "label": label(str(row["variable"])),
        "from": row["from"],  # raw: the page words it as it does the values of its columns
        "to": row["to"],
        "together": together,
        "together_labels": [label(name) for name in together],
        "n_pairs": row.get("n_backbone_pairs", row.get("n_pairs")),
        "value": row.get("mean_difference"),
        "low": low,
        "high": high,
        "p_holm": row.get("p_adjusted", row.get("p_holm")),
        "verdict": verdict,
        "sure": verdict in ASSERTED,
    }


def _shap(shap: pd.DataFrame, target: str) -> dict[str, Any]:
    """SHAP values of a target, in the printed unit: one row per experiment."""
    rows = shap[shap["target"] == target] if "target" in shap else shap.iloc[:0]
    factor = _factor(target)
    own: Sequence[str] = [str(c) for c in rows if c not in ("target", "backbone", "dataset") and rows[c].notna().any()]
    return {
        "backbone": rows["backbone"].tolist(),
        "dataset": rows["dataset"].tolist(),
        "values": {name: (factor * rows[name]).tolist() for name in own},
    }
