"""Numbers as the page prints them, and rows as its tables and figures take them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from analysis.design import ties
from analysis.estimates.estimate import certain
from analysis.findings.phrases import listing
from analysis.tables.names import TARGETS, label
from analysis.tables.variables import level_text


def unit(target: str) -> str:
    """Printed unit of a target's effects; empty for plain numbers."""
    return TARGETS[target].unit


def factor(target: str) -> float:
    """From the model's unit to the printed one."""
    return TARGETS[target].factor


def effect(target: str, value: float | None) -> str:
    """A signed effect without its unit; a dash if unknown."""
    return "–" if value is None else f"{value * TARGETS[target].factor:+.{TARGETS[target].decimals}f}"


def interval(target: str, low: float | None, high: float | None) -> str:
    """'low … high'; a dash if unknown."""
    return "–" if low is None or high is None else f"{effect(target, low)} … {effect(target, high)}"


def plain(target: str, value: float | None) -> str:
    """A signed difference that is in the printed unit already."""
    return "–" if value is None else f"{value:+.{TARGETS[target].decimals}f}"


def plain_interval(target: str, low: float | None, high: float | None) -> str:
    """An interval that is in the printed unit already."""
    return "–" if low is None or high is None else f"{plain(target, low)} … {plain(target, high)}"


def share(value: float | None) -> str:
    """A share as a percentage; a dash if unknown."""
    return "–" if value is None else f"{100 * value:.0f} %"


def decimal(value: float | None, digits: int = 2) -> str:
    """A number; a dash if unknown."""
    return "–" if value is None else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    """A number that is a percentage already; a dash if unknown."""
    return "–" if value is None else f"{value:.1f}"


def p_value(value: float | None) -> str:
    """A p-value: '< 0.001' below that."""
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def seeds(report: Mapping[str, Any]) -> str:
    """How many fits were averaged, if that differs between outcomes from the fewest to the most."""
    used = {entry["seeds"] for entry in report["targets"].values() if entry["seeds"]}
    return reach([str(n) for n in sorted(used or {report["protocol"]["seeds"]})])


def clear(entry: Mapping[str, Any]) -> str:
    """': clear for a and b', or that nothing is; empty if the outcome is not attributed."""
    if entry["problem"]:
        return ""
    bundled = {variable for bundle in entry["bundles"] for variable in bundle["variables"]}
    names = [s["label"] for name, s in entry["slopes"].items() if name not in bundled and certain(s)]
    names += [" with ".join(map(label, b["variables"])) for b in entry["bundles"] if certain(b)]
    return f": direction clear for {listing(names)}" if names else ": no direction is clear"


def telling(entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Flips of which at least one side is more than chance; report.json has the others too."""
    return [flip for flip in entry["interactions"]["flips"] if any(map(certain, flip["within"]))]


def meaning(target: str) -> str:
    """What a target is, in plain words."""
    return TARGETS[target].meaning


def reach(levels: Sequence[str]) -> str:
    """'a' or 'a–b' for a run of levels."""
    return levels[0] if len(set(levels)) == 1 else f"{levels[0]}–{levels[-1]}" if levels else ""


def slope_rows(target: str, entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Slopes in printed units for the bar plot; what moves together is one bar, what has no direction none."""
    scale = TARGETS[target].factor
    bundled = {variable for bundle in entry["bundles"] for variable in bundle["variables"]}
    chosen = [slope for name, slope in entry["slopes"].items() if slope["slope"] is not None and name not in bundled]
    for bundle in entry["bundles"]:
        others = [label(name) for name in bundle["variables"] if name != bundle["axis"]]
        chosen.append({**bundle, "label": f"{label(bundle['axis'])} (with {', '.join(others)})"})
    rows = []
    for slope in chosen:
        known = {key: slope.get(key) for key in ("low", "high", "low_with_datasets", "high_with_datasets")}
        bounds = {key: None if value is None else value * scale for key, value in known.items()}
        rows.append({**slope, "slope": slope["slope"] * scale, **bounds, "sure": certain(known)})
    return rows


def contrast_rows(
    report: Mapping[str, Any], target: str, *, level: str = "backbone", clean: bool = False
) -> list[dict[str, Any]]:
    """Contrasts of a target with a label; ``clean``: only those where nothing else moves but what always does.

    Without any clean one, all of them.
    """
    rows = []
    tied = ties.partners(report["confounding"]) if report["confounding"] else {}
    for row in report["contrasts"]:
        if row["target"] != target or row["level"] != level:
            continue
        low, high = (level_text(row[key]) for key in ("from", "to"))
        together = [label(name) for name in row["together_with"]]
        text = f"{label(row['variable'])} {low} → {high}" + (f", with {', '.join(together)}" if together else "")
        only_tied = set(row["together_with"]) <= set(tied.get(row["variable"], ()))
        rows.append({**row, "label": text, "clean": not together, "only_tied": only_tied})
    kept = [row for row in rows if row["only_tied"]]
    return kept if clean and kept else rows


def affected(report: Mapping[str, Any], target: str) -> list[dict[str, Any]]:
    """Variables that cannot be told from others, with their conditional and interventional slopes."""
    tied = ties.partners(report["confounding"]) if report["confounding"] else {}
    slopes = report["targets"][target]["slopes"]
    return [
        {**slopes[name], "others": ", ".join(label(o) for o in others)}
        for name, others in tied.items()
        if name in slopes and slopes[name]["slope"] is not None
    ]
