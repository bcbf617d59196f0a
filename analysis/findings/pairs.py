"""Sentences from matched pairs of backbones: what differs with one setting, and what turns round."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.estimates.estimate import certain
from analysis.findings.phrases import Report, amount, capital, count, finding, leading, listing, span
from analysis.tables.names import TARGETS, label

TRIFLE = 0.05  # of the largest difference


def matched(report: Report, target: str, variable: str) -> str:
    """What matched pairs of backbones say of a variable's extremes; empty if there are none."""
    row = _extremes(report, target, variable)
    return f"{_pairs(target, row)}." if row else ""


def differences(report: Report) -> list[dict[str, str]]:
    """Settings whose slope is open, yet whose matched pairs of backbones differ clearly."""
    name = leading(report)
    if name is None:
        return []
    found, told = [], set[str]()
    for variable, slope in report["targets"][name]["slopes"].items():
        row = _extremes(report, name, variable)
        if row is None or slope["slope"] is None or certain(slope) or told & set(row["together_with"]):
            continue
        if row["low"] is None or row["low"] <= 0 <= row["high"]:
            continue
        told.add(variable)
        found.append(
            finding(
                f"{capital(label(variable))} {slope['from']} → {slope['to']}: {_pairs(name, row)} in "
                f"{TARGETS[name].phrase}"
                + ("." if slope["low"] is None else ", though the slope over all settings is open."),
                sure=f"the interval over pairs excludes zero; p = {row['p_holm']:.3f} after Holm's correction"
                if row["p_holm"] is not None
                else "the interval over pairs excludes zero",
                basis="matched pairs of backbones",
            )
        )
    return found


def _extremes(report: Report, target: str, variable: str) -> Mapping[str, Any] | None:
    """The contrast between a variable's lowest and highest value at backbone level."""
    scale = report["variables"].get(variable)
    rows = [
        row for row in report["contrasts"]
        if row["target"] == target and row["variable"] == variable and row["level"] == "backbone" and scale
        and str(row["from"]) == scale["raw"][0] and str(row["to"]) == scale["raw"][1]
    ]  # fmt: skip
    return rows[0] if rows else None


def _pairs(target: str, row: Mapping[str, Any]) -> str:
    factor = TARGETS[target].scale
    others = listing([label(o) for o in row["together_with"]])
    where = f" ({others} moving too)" if others else " with all else equal"
    few = "; too few for a rank test" if row["p_smallest"] > 0.05 else ""
    interval = "" if row["low"] is None else f" ({span(target, row['low'] / factor, row['high'] / factor)}{few})"
    difference = amount(target, row["mean_difference"] / factor)
    verb = "differs" if row["n_pairs"] == 1 else "differ"
    return f"{count(row['n_pairs'], 'pair')} of backbones{where} {verb} by {difference}{interval}"


def reversals(report: Report) -> list[dict[str, str]]:
    """Settings whose effect has another sign within another setting's values."""
    name = leading(report)
    if name is None:
        return []
    found = []
    own = [r for r in report["reversals"] if r["target"] == name and _worth_saying(report, r)]
    for variable in dict.fromkeys(r["variable"] for r in own):
        candidates = [r for r in own if r["variable"] == variable and r["p"] is not None and r["p"] < 0.05]
        if not candidates:
            continue
        best = min(candidates, key=lambda r: (len(r["within"]), r["p"]))
        factor = TARGETS[name].scale
        parts = [
            f"{amount(name, w['mean_difference'] / factor)} {_at(best['partner'], w['level'])} "
            f"({count(w['n_pairs'], 'pair')} of backbones"
            + ("" if w["low"] is None else f", {span(name, w['low'] / factor, w['high'] / factor)}")
            + ")"
            for w in best["within"]
        ]
        text = (
            f"{capital(label(variable))} {_level(best['from'])} → {_level(best['to'])} has opposite effects: "
            f"{listing(parts)}. One number for both would hide it."
        )
        others = listing([label(o) for o in best["together_with"]])
        basis = f"matched pairs, {others} moving too" if others else "matched pairs, all else equal"
        found.append(finding(text, sure=_how_sure(best), basis=basis))
    named = {r["variable"] for r in own if r["p"] is not None and r["p"] < 0.05}
    return found + _flips(report, name, named)


def _worth_saying(report: Report, reversal: Mapping[str, Any]) -> bool:
    """Whether both directions are more than a trifle beside the largest difference of matched backbones."""
    rows = [r for r in report["contrasts"] if r["target"] == reversal["target"] and r["level"] == "backbone"]
    largest = max((abs(r["mean_difference"]) for r in rows), default=0.0)
    differences = [w["mean_difference"] for w in reversal["within"]]
    return min(max(differences), -min(differences)) >= TRIFLE * largest


def _how_sure(reversal: Mapping[str, Any]) -> str:
    """How clear it is that the extremes differ, and at which values the direction alone is open."""
    text = f"the extremes differ with p = {reversal['p']:.3f} (Welch; {reversal['p_holm']:.3f} after Holm's correction)"
    unclear = [
        _at(reversal["partner"], w["level"])
        for w in reversal["within"]
        if w["low"] is None or w["low"] <= 0 <= w["high"]
    ]
    return f"{text}; {listing(unclear)} alone the direction is open" if unclear else text


def _flips(report: Report, name: str, named: set[str]) -> list[dict[str, str]]:
    """Slopes that change sign with a partner, where no matched pairs have said so already."""
    found = []
    for flip in report["targets"][name]["interactions"]["flips"]:
        if flip["sure"] and flip["variable"] not in named:
            named.add(flip["variable"])
            parts = [f"{amount(name, w['slope'])} {_at(flip['partner'], w['level'])}" for w in flip["within"]]
            text = f"The effect of {label(flip['variable'])} changes direction: {listing(parts)}."
            found.append(
                finding(
                    text,
                    sure="the intervals of both directions exclude zero",
                    basis="SHAP slopes within the partner's values",
                )
            )
    return found


def _at(partner: str, level: str) -> str:
    return f"for {level}" if partner == "family" else f"with {label(partner)} {level}"


def _level(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
