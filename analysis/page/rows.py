"""Numbers as the page prints them, and rows as its tables take them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from analysis.estimates.effects import Effect
from analysis.estimates.estimate import Estimate
from analysis.estimates.outcome import Outcome, Slope
from analysis.estimates.pairs import Contrast, plain
from analysis.estimates.sensitivity import Survival
from analysis.findings.phrases import DASH, minus, p_value, signed, span, units
from analysis.study import Study
from analysis.tables.names import Target, label, plural
from analysis.tables.variables import level_text

__all__ = ["label", "minus", "p_value", "plural", "signed", "span", "units"]


def value(target: Target, estimate: Estimate) -> str:
    """An estimate's value, signed."""
    return signed(target, estimate.value)


def interval(target: Target, estimate: Estimate) -> str:
    """An estimate's interval."""
    return span(target, estimate.low, estimate.high)


def slope(target: Target, own: Slope) -> str:
    """A SHAP slope in the outcome's own unit."""
    return DASH if own.slope is None else signed(target, own.slope * target.scale)


def interventional(target: Target, own: Slope) -> str:
    """A slope of interventional SHAP values in the outcome's own unit."""
    return signed(target, None if own.interventional is None else own.interventional * target.scale)


def slope_span(target: Target, own: Slope) -> str:
    """The interval of a SHAP slope in the outcome's own unit."""
    if own.low is None or own.high is None:
        return DASH
    return span(target, own.low * target.scale, own.high * target.scale)


def scaled(target: Target, number: float | None) -> str:
    """A number of the model in the outcome's own unit, without a sign."""
    return DASH if number is None else minus(f"{number * target.scale:.{target.decimals}f}")


def share(number: float | None) -> str:
    """A share as a percentage; a dash if unknown."""
    return DASH if number is None else f"{100 * number:.0f} %"


def decimal(number: float | None, digits: int = 2) -> str:
    """A number; a dash if unknown."""
    return DASH if number is None else minus(f"{number:.{digits}f}")


def percent(number: float | None) -> str:
    """A number that is a percentage already; a dash if unknown."""
    return decimal(number, 1)


def seeds(study: Study) -> str:
    """How many fits were averaged, if that differs between outcomes from the fewest to the most."""
    used = sorted({outcome.seeds for outcome in study.outcomes.values() if outcome.seeds})
    return reach([str(n) for n in used]) if used else DASH


def reach(levels: Sequence[str]) -> str:
    """'a' or 'a–b' for a run of levels."""
    return levels[0] if len(set(levels)) == 1 else f"{levels[0]}–{levels[-1]}" if levels else ""


def name(effect: Effect) -> str:
    """A variable, with those that always change with it."""
    others = ", ".join(label(other) for other in effect.variables[1:])
    return label(effect.name) + (f" (with {others})" if others else "")


def by_size(outcome: Outcome) -> list[Effect]:
    """Effects in one order for every figure and table: asserted ones first, then by size."""
    order = {"clear": 0, "likely": 1, "open": 2, "cannot tell": 3}
    return sorted(outcome.effects, key=lambda e: (order[e.verdict], -abs(e.adjusted.value or 0.0)))


def summary(outcome: Outcome) -> str:
    """': clear for a and b', or that nothing is; empty if the outcome is not attributed."""
    if outcome.problem:
        return ""
    found = [label(effect.name) for effect in outcome.effects if effect.verdict in ("clear", "likely")]
    return (
        f": exploratory; {', '.join(found)} stand{'s' if len(found) == 1 else ''} out"
        if found
        else ": exploratory; nothing stands out"
    )


def compared(contrast: Contrast) -> str:
    """What a contrast compares, in words, by one name."""
    low, high = (level_text(plain(level)) for level in (contrast.low, contrast.high))
    together = [label(other) for other in contrast.together_with]
    return f"{label(contrast.variable)} {low} → {high}" + (f", with {', '.join(together)}" if together else "")


def where(contrast: Contrast) -> str:
    """What a contrast compares, in words, by all of its names."""
    also = ", ".join(f"{label(variable)} {levels}" for variable, levels in contrast.also)
    return compared(contrast) + (f" (the same as {also})" if also else "")


def sizes(contrast: Contrast) -> str:
    """'8 pairs', or 'groups: 10 against 12'."""
    if contrast.paired:
        return f"{contrast.n_strata} {'pair' if contrast.n_strata == 1 else 'pairs'}"
    return f"groups: {contrast.n_first} against {contrast.n_second}"


def contrasts(study: Study, target: str) -> list[Contrast]:
    """Contrasts of a target, those with most pairs first."""
    own = [contrast for contrast in study.contrasts if contrast.target == target]
    return sorted(own, key=lambda c: (c.estimate.low is None, len(c.together_with), -c.n_strata))


@dataclass(frozen=True)
class Kept:
    """One cell of the table of what survives."""

    text: str
    kept: bool


def kept(target: Target, row: Survival, kind: str) -> Kept:
    """Range of the re-estimates of one kind, and whether all of them keep the finding."""
    own = row.variants.get(kind, ())
    if not own:
        return Kept(DASH, True)
    values = [variant.value for variant in own]
    survived = sum(variant.survives(row.value) for variant in own)
    text = (
        signed(target, values[0]) if len(own) == 1 else f"{signed(target, min(values))} … {signed(target, max(values))}"
    )
    return Kept(text + (f" ({survived} of {len(own)})" if len(own) > 1 else ""), survived == len(own))


def kinds(study: Study) -> list[str]:
    """Kinds of re-estimates, in the order made."""
    return list(dict.fromkeys(kind for row in study.survival for kind in row.variants))


def short(path: str) -> str:
    """The last part of a path or URI, with its folder: no local path stands on the page."""
    parts = [part for part in path.partition("?")[0].rstrip("/").split("/") if part]
    return "/".join(parts[-2:]) if len(parts) > 1 and parts[-1] == "probes.parquet" else parts[-1] if parts else path
