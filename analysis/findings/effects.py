"""Sentences on what variables do. They assert only what the verdict of an estimate allows."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.estimates.adjusted import LevelEffect
from analysis.estimates.effects import Effect
from analysis.estimates.estimate import ALPHA, Estimate
from analysis.estimates.interactions import Interaction
from analysis.estimates.outcome import Outcome
from analysis.estimates.pairs import Contrast, plain
from analysis.findings.phrases import (
    Finding,
    amount,
    capital,
    certainty,
    count,
    labels,
    listing,
    signed,
    size,
    span,
    units,
)
from analysis.tables.names import Target, label, plural
from analysis.tables.variables import level_text

MOST_INTERACTIONS = 3
MOST_CONTRASTS = 4
MANY = 1000  # more levels than any variable that is told level by level
MOST_LEVELS = 4  # levels that one sentence compares


def asserted(outcome: Outcome) -> list[Finding]:
    """Variables of which something may be said, the largest effect first; what cannot be told apart is told once."""
    able = [effect for effect in outcome.effects if effect.adjusted.asserted or effect.asserted_pairs]
    found: list[Effect] = []
    told: set[str] = set()
    for effect in sorted(able, key=lambda effect: len(effect.levels) or MANY):
        if effect.name not in told:
            found.append(effect)
            told |= set(effect.adjusted.left_out)
    return [_of(outcome.target, effect) for effect in sorted(found, key=lambda effect: -_largest(effect))]


def _largest(effect: Effect) -> float:
    values = [abs(pair.contrast.value) for pair, _ in effect.asserted_pairs]
    return max([*values, abs(effect.adjusted.value or 0.0)])


def _of(target: Target, effect: Effect) -> Finding:
    estimate = effect.adjusted
    straight = effect.ordered and estimate.asserted and not _bent(effect)
    if straight:
        text = _along(target, effect)
    else:
        text, estimate = _level_by_level(target, effect)
    text += _beside(target, effect)
    if (straight or not effect.ordered) and effect.by_dataset and effect.adjusted.value is not None:
        text += f" It shows on {effect.agreeing} of {count(len(effect.by_dataset), 'dataset')}."
    if effect.adjusted.left_out:
        text += f" It cannot be told apart from {labels(effect.adjusted.left_out)}."
    held = f", {labels(estimate.adjusted_for)} held equal" if estimate.adjusted_for else ""
    return Finding(
        "effect", estimate.verdict, text, effect.variables, amount(target, estimate.value),
        span(target, estimate.low, estimate.high), certainty(estimate), f"{units(estimate)}{held}",
        estimate.n_units, estimate.unit,
    )  # fmt: skip


def _bent(effect: Effect) -> bool:
    """Whether a level between the ends lies beyond both of them, by more than chance."""
    ends = {effect.low, effect.high}
    beyond = [pair for pair, _ in effect.asserted_pairs if ends - {pair.level, pair.against}]
    outside = {level for pair in beyond for level in (pair.level, pair.against)} - ends
    return any(
        {p.against for p in beyond if p.level == level} >= ends
        or {p.level for p in beyond if p.against == level} >= ends
        for level in outside
    )


def _along(target: Target, effect: Effect) -> str:
    value = effect.adjusted.value or 0.0
    verb, gloss = ("rises", target.more) if value > 0 else ("falls", target.less)
    verb = f"probably {verb}" if effect.adjusted.verdict == "likely" else verb
    return (
        f"{capital(label(effect.name))} {effect.low} → {effect.high}{_together(effect)}: {target.phrase} {verb} by "
        f"{size(target, value)} ({gloss}){_where(effect.adjusted)}."
    )


def _together(effect: Effect) -> str:
    others = effect.variables[1:]
    return f" (always together with {labels(others)}: one effect for all of them)" if others else ""


def _where(estimate: Estimate) -> str:
    if not estimate.scope:
        return ""
    return f", {'here ' if ' against ' in estimate.scope else 'within '}{estimate.scope}"


def _level_by_level(target: Target, effect: Effect) -> tuple[str, Estimate]:
    """Levels against the reference where these differ, else the pairs of levels that do."""
    against = [(level, e) for level, e in effect.levels if e.asserted] if not effect.ordered else []
    chosen = against or effect.asserted_pairs
    if not chosen:
        return _along(target, effect), effect.adjusted
    chosen = sorted(chosen, key=lambda item: -abs(item[0].contrast.value))
    head = chosen[0]
    if not against:
        chosen = [item for item in chosen if item[0].level == head[0].level] or chosen[:1]
    parts = [_compared(target, pair, estimate) for pair, estimate in chosen[:MOST_LEVELS]]
    probably = "probably, " if head[1].verdict == "likely" else ""
    text = f"{capital(label(effect.name))}{_together(effect)}: {probably}{listing(parts)} in {target.phrase}"
    return f"{text}{_where(effect.adjusted)}.", head[1]


def _compared(target: Target, pair: LevelEffect, estimate: Estimate) -> str:
    side = "above" if pair.contrast.value > 0 else "below"
    return (
        f"{pair.level} is {size(target, pair.contrast.value)} {side} {pair.against} "
        f"({span(target, estimate.low, estimate.high)})"
    )


def _beside(target: Target, effect: Effect) -> str:
    """The other two estimates of the same."""
    parts = []
    if effect.pairs.value is not None and effect.pairs.low is not None:
        released = f", {labels(effect.pairs.left_out)} moving too" if effect.pairs.left_out else ""
        parts.append(f"matched backbones give {amount(target, effect.pairs.value)} ({units(effect.pairs)}{released})")
    if effect.trees.value is not None:
        parts.append(f"the trees {'' if parts else 'give '}{amount(target, effect.trees.value)}")
    return f" For {effect.low} → {effect.high} {listing(parts)}." if parts else ""


def unsettled(outcome: Outcome) -> list[Finding]:
    """Variables whose effect is open, and those of which nothing can be said: one finding of each."""
    left = [effect for effect in outcome.effects if effect.verdict in ("open", "cannot tell")]
    target, found = outcome.target, []
    open_ = [effect for effect in left if effect.verdict == "open"]
    if open_:
        parts = [
            f"{_names(effect)} {effect.low} → {effect.high} ({signed(target, effect.adjusted.value)}, "
            f"{span(target, effect.adjusted.low, effect.adjusted.high)}; {units(effect.adjusted)})"
            for effect in open_
        ]
        text = f"Open (zero is possible, or too much was looked at to exclude chance): {listing(parts)}."
        against = [
            f"{label(effect.name)}: {listing(effect.adjusted.against)}" for effect in open_ if _contradicted(effect)
        ]
        text += f" Estimates disagree on {'; '.join(against)}." if against else ""
        names = tuple(name for effect in open_ for name in effect.variables)
        fewest = min(effect.adjusted.n_units for effect in open_)
        found.append(Finding("effect", "open", text, names, sure="open", n_units=fewest))
    blind = [effect for effect in left if effect.verdict == "cannot tell"]
    if blind:
        text = f"This table cannot tell what {listing([_names(effect) for effect in blind])} " + (
            "does" if len(blind) == 1 else "do"
        )
        text += ": too few units vary in it, or others give its values."
        names = tuple(name for effect in blind for name in effect.variables)
        found.append(Finding("effect", "cannot tell", text, names, sure="cannot tell"))
    return found


def _contradicted(effect: Effect) -> bool:
    """Whether nothing but another estimate keeps the headline from being asserted."""
    p = effect.adjusted.p_adjusted
    return bool(effect.adjusted.against) and effect.adjusted.excludes_zero and p is not None and p < ALPHA


def _names(effect: Effect) -> str:
    return " with ".join(label(name) for name in effect.variables)


def interactions(
    outcome: Outcome, within: Sequence[tuple[Interaction, Sequence[tuple[str, int, float]]]]
) -> list[Finding]:
    """Effects that differ with another variable, of each variable the surest; the page has a table of the others.

    Parameters
    ----------
    within : per interaction, the matched pairs at each value of the partner: (value, how many, difference).
    """
    found: list[Finding] = []
    told: set[str] = set()
    sure = [(i, p) for i, p in within if i.estimate.asserted and any(w.estimate.asserted for w in i.within)]
    sure.sort(key=lambda item: item[0].estimate.p if item[0].estimate.p is not None else 1.0)
    for interaction, matched in sure:
        pair = {interaction.variable, interaction.partner}
        if interaction.variable in told or pair <= told or len(found) == MOST_INTERACTIONS:
            continue
        told |= {interaction.variable}
        found.append(_differing(outcome.target, interaction, matched))
    return found


def _differing(target: Target, interaction: Interaction, matched: Sequence[tuple[str, int, float]]) -> Finding:
    by_level = {level: (n, value) for level, n, value in matched}
    parts = []
    for w in interaction.within:
        n, value = by_level.get(w.level, (0, 0.0))
        pairs = f"; {count(n, 'matched pair')} {signed(target, value)}" if n else ""
        state = "" if w.estimate.asserted else "open "
        inside = f"({span(target, w.estimate.low, w.estimate.high)}{pairs})"
        parts.append(f"{state}{amount(target, w.estimate.value)} {_at(interaction.partner, w.level)} {inside}")
    how = "has opposite effects" if interaction.opposite else f"acts differently with {label(interaction.partner)}"
    how = f"probably {how}" if interaction.estimate.verdict == "likely" else how
    text = f"{capital(label(interaction.variable))} {interaction.low} → {interaction.high} {how}: {listing(parts)}"
    text += f"{_where(interaction.estimate)}."
    estimate = interaction.estimate
    return Finding(
        "interaction", estimate.verdict, text, (interaction.variable, interaction.partner),
        amount(target, estimate.value), span(target, estimate.low, estimate.high),
        f"{certainty(estimate)}; exploratory", f"{units(estimate)}, all other variables held equal",
        estimate.n_units, estimate.unit,
    )  # fmt: skip


def _at(partner: str, level: str) -> str:
    return f"with {label(partner)} {level}"


def contrasts(target: Target, found: Sequence[Contrast], cluster: str) -> list[Finding]:
    """Clusters that differ, compared by matched backbones: a fact of these clusters, not of the variable."""
    sure = [c for c in found if c.target == target.name and c.searched and c.estimate.asserted]
    sure.sort(key=lambda c: c.estimate.p if c.estimate.p is not None else 1.0)
    return [_clusters(target, c, cluster) for c in sure[:MOST_CONTRASTS]]


def _clusters(target: Target, c: Contrast, cluster: str) -> Finding:
    value = c.estimate.value or 0.0
    verb, gloss = ("rises", target.more) if value > 0 else ("falls", target.less)
    moving = f", with {labels(c.together_with)}" if c.together_with else ""
    groups = (
        count(c.n_strata, "matched pair of backbones")
        if c.paired
        else f"{count(c.n_strata, 'matched group')} of backbones ({c.n_first} against {c.n_second})"
    )
    levels = f"{_text(c.low)} → {_text(c.high)}"
    text = (
        f"{listing(c.clusters)} ({label(c.variable)} {levels}{moving}): {target.phrase} {verb} by "
        f"{size(target, value)} ({gloss}), over {groups}. These {plural(cluster)} differ; whether "
        f"{label(c.variable)} is why "
        f"{count(c.n_clusters, f'pair of {plural(cluster)}')} cannot show."
    )
    return Finding(
        "contrast", c.estimate.verdict, text, (cluster,), amount(target, value),
        span(target, c.estimate.low, c.estimate.high), f"{certainty(c.estimate)}; exploratory",
        f"{units(c.estimate)}, all {'other variables' if c.together_with else 'else'} equal",
        c.estimate.n_units, c.estimate.unit,
    )  # fmt: skip


def _text(value: object) -> str:
    return level_text(plain(value))
