"""One variable, three estimates side by side: adjusted model, matched pairs, trees; and what speaks against each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats

from analysis.design.levels import FEWEST_UNITS, Unit
from analysis.design.points import Design
from analysis.design.ties import Ties
from analysis.estimates import adjusted, mixed, pairs
from analysis.estimates.additive import Additive, by_dataset
from analysis.estimates.adjusted import Adjusted, LevelEffect
from analysis.estimates.estimate import NOTHING, Estimate, Verdict, basic_interval, holm
from analysis.estimates.pairs import Backbones
from analysis.estimates.resampling import Draws
from analysis.estimates.trees import Attribution, Task, set_codes
from analysis.tables.names import plural
from analysis.tables.variables import Variable, code, level_text

WORTH_SAYING = 0.1  # an estimate of the other sign counts against one if it is at least this part of it
FEWEST_LEFT = 6  # units left over below which a property of clusters is not called clear
MIXED = "the mixed model"
INSEPARABLE = "it cannot be told apart from others"
MOST_BY_DATASET = 20_000  # backbones above which estimates by dataset are left out


@dataclass(frozen=True)
class Effect:
    """What a variable, or variables that always change together, does to one outcome; in the outcome's own unit.

    Attributes
    ----------
    variables : the first is the one whose levels are named.
    low, high : what the headline compares: the lowest and the highest level, or of unordered ones the two extremes.
    adjusted : the headline of the adjusted model; its verdict is that of the variable.
    total : the same with nothing held equal but the dataset.
    mixed : value in the mixed model (REML).
    pairs, trees : the same from matched backbones, and as a difference of the trees' predictions.
    slope : slope of a straight line through SHAP values on rank codes ([H24]), over [0, 1].
    p, p_adjusted : of all levels being equal.
    levels : each level against the reference; ``best`` and further pairs that differ after correction.
    by_dataset : dataset → headline on it alone.
    """

    variables: tuple[str, ...]
    low: str
    high: str
    unit: Unit | None
    adjusted: Estimate
    total: Estimate
    mixed: float | None
    pairs: Estimate
    trees: Estimate
    slope: Estimate
    p: float | None
    levels: tuple[tuple[LevelEffect, Estimate], ...]
    level_pairs: tuple[tuple[LevelEffect, Estimate], ...]
    by_dataset: Mapping[str, float]
    ordered: bool
    p_adjusted: float | None = None

    @property
    def verdict(self) -> Verdict:
        """That of the headline, or of the two levels that differ most surely where the headline alone says nothing."""
        if self.adjusted.asserted or not self.asserted_pairs:
            return self.adjusted.verdict
        return self.asserted_pairs[0][1].verdict

    @property
    def name(self) -> str:
        """The first variable."""
        return self.variables[0]

    @property
    def agreeing(self) -> int:
        """Datasets whose own estimate has the sign of the headline."""
        value = self.adjusted.value
        return 0 if value is None else sum(np.sign(x) == np.sign(value) for x in self.by_dataset.values())

    def corrected(self, p_adjusted: float | None) -> Effect:
        """The same after correction for all variables that were looked at: what is said of its levels too."""
        own = self.adjusted.p
        worse = None if own is None or p_adjusted is None else max(own, p_adjusted)
        inner = holm([pair.contrast.p for pair, _ in self.level_pairs])
        made = []
        for (pair, estimate), p in zip(self.level_pairs, inner, strict=True):
            made.append((pair, estimate.corrected(None if p is None or p_adjusted is None else max(p, p_adjusted))))
        by_levels = holm([level.contrast.p for level, _ in self.levels if level.level != level.against])
        levels, numbers = [], iter(by_levels)
        for level, estimate in self.levels:
            p = next(numbers) if level.level != level.against else None
            levels.append((level, estimate.corrected(None if p is None or p_adjusted is None else max(p, p_adjusted))))
        return replace(
            self, adjusted=self.adjusted.corrected(worse), level_pairs=tuple(made), levels=tuple(levels),
            p_adjusted=p_adjusted,
        )  # fmt: skip

    @property
    def asserted_pairs(self) -> list[tuple[LevelEffect, Estimate]]:
        """Pairs of levels of which a sentence may say that they differ, the largest difference first."""
        found = [(pair, estimate) for pair, estimate in self.level_pairs if estimate.asserted]
        return sorted(found, key=lambda item: -abs(item[0].contrast.value))


def of_term(
    job: Task, term: int, additive: Additive, table: Backbones, target: str, fitted: Attribution,
    draws: Mapping[str, Draws], declared: Mapping[str, tuple[str, ...]], scale: float,
) -> Effect:  # fmt: skip
    """The effect of one term of a task."""
    design, ties = job.design, job.ties
    members = tuple(design.names[v] for v in job.terms[term])
    name, variable = members[0], design.variables[job.terms[term][0]]
    adjust = next((declared[member] for member in members if member in declared), None)
    found = adjusted.estimate(design, ties, additive.mean_B, additive.component_B, name, adjust=adjust)
    plain = adjusted.estimate(design, ties, additive.mean_B, additive.component_B, name, adjust=())
    if found is None:
        low, high = level_text(variable.levels[0]), level_text(variable.levels[-1])
        unit, main, total = None, NOTHING, NOTHING
        second = None
    else:
        low, high, unit = found.low, found.high, found.unit
        main = headline(found, declared=adjust is not None)
        total = NOTHING if plain is None else headline(plain, declared=True)
        second = mixed.value(design, additive.mean_B, name, found)
    by_trees = _trees(job, term, variable, (low, high), fitted, draws, unit, scale)
    matched = _matched(table, variable, (low, high), target)
    separate = _by_dataset(design, ties, additive, name, adjust, (low, high))
    main = _held_against(main, matched, by_trees, second, separate)
    levels = () if found is None else tuple((level, _of_level(found, level, main)) for level in found.levels)
    apart = () if found is None else tuple((pair, _of_level(found, pair, main)) for pair in found.pairs)
    return Effect(
        members, low, high, unit, main, total, second, matched, by_trees,
        _slope(job, term, fitted, draws, unit, scale), None if found is None else found.p, levels, apart, separate,
        variable.has_slope,
    )  # fmt: skip


def headline(found: Adjusted, *, declared: bool = False) -> Estimate:
    """The headline of the adjusted model as an estimate; ``declared``: what is held equal was chosen by the user."""
    unit = found.unit.level.name
    alone = [f"{end} stands in one {unit} only" for end in (found.low, found.high) if end in found.alone]
    return Estimate(
        found.headline.value, *found.headline.interval(), p=found.headline.p, unit=unit,
        n_units=found.n_units, df=found.headline.df, method=found.method, adjusted_for=found.adjusted_for,
        left_out=() if declared else found.left_out, scope=_scope(found.unit),
        doubts=(*_doubts(found, declared), *alone),
    )  # fmt: skip


def _doubts(found: Adjusted, declared: bool) -> list[str]:
    """What the design alone says against an estimate."""
    doubts = (
        [INSEPARABLE] if found.left_out and not declared and not found.unit.named else []
    )  # two named: all is meant
    if found.unit.fixed is not None and found.unit.clusters < FEWEST_UNITS:
        doubts.append(f"it is seen within {_scope(found.unit)} only")
    if found.unit.level.names and not found.unit.within and found.headline.df < FEWEST_LEFT:
        doubts.append(f"only {found.headline.df:.0f} {plural(found.unit.level.name)} are left over to judge it by")
    return doubts


def _scope(unit: Unit) -> str:
    if unit.named:
        return f"{unit.named[0]} against {unit.named[1]}"
    if unit.fixed is not None:
        return f"{unit.clusters} {plural(unit.fixed.name, unit.clusters)}"
    return ""


def _of_level(found: Adjusted, level: LevelEffect, headline: Estimate) -> Estimate:
    contrast = level.contrast
    return Estimate(
        contrast.value, *contrast.interval(), p=contrast.p, unit=headline.unit, n_units=headline.n_units,
        df=contrast.df, method=found.method, adjusted_for=headline.adjusted_for, left_out=headline.left_out,
        scope=headline.scope, doubts=tuple(_doubts(found, not headline.left_out)),
    )  # fmt: skip


def _held_against(
    headline: Estimate, matched: Estimate, by_trees: Estimate, second: float | None, separate: Mapping[str, float]
) -> Estimate:
    """The headline with what the other estimates and the single datasets say against it."""
    value = headline.value
    if value is None:
        return headline
    others = {"the trees": by_trees.value, MIXED: second}
    if matched.low is not None:
        others["matched pairs"] = matched.value
    against = [
        f"{who} {'gives' if who == MIXED else 'give'} {'more' if other > 0 else 'less'}"
        for who, other in others.items()
        if other is not None and other * value < 0 and abs(other) >= WORTH_SAYING * abs(value)
    ]
    doubts = []
    values = np.array(list(separate.values()))
    if len(values) > 2 and np.ptp(values) > 0:
        half = float(stats.t.ppf(0.975, len(values) - 1)) * values.std(ddof=1) / np.sqrt(len(values))
        if abs(values.mean()) <= half:
            doubts.append("it differs so much between datasets that it need not show on others")
    elif len(values) == 2 and values[0] * values[1] < 0:
        doubts.append("the two datasets disagree")
    return headline.doubted(*doubts, against=against)


def _matched(table: Backbones, variable: Variable, ends: tuple[str, str], target: str) -> Estimate:
    values = {level_text(level): level for level in variable.levels}
    match = pairs.find_match(table, variable.name, values[ends[0]], values[ends[1]])
    return NOTHING if match is None else pairs.difference_of(table, match, target)[0]


def _trees(
    job: Task, term: int, variable: Variable, ends: tuple[str, str], fitted: Attribution, draws: Mapping[str, Draws],
    unit: Unit | None, scale: float,
) -> Estimate:  # fmt: skip
    """Difference of mean predictions between the two levels."""
    codes = set_codes(job.design, job.terms[term][0])
    texts = {level_text(level): code(variable, pd.Series([level], dtype=object))[0] for level in variable.levels}
    at = [np.flatnonzero(np.isclose(codes, texts[end])) for end in ends]
    if not all(len(place) for place in at):
        return NOTHING
    a, b = (int(place[0]) for place in at)
    value = float(fitted.level_TL[term][b] - fitted.level_TL[term][a])
    kind = unit.level.name if unit is not None else ""
    low, high = None, None
    if kind in draws:
        drawn_RL = draws[kind].level_TRL[term]
        low, high = basic_interval(value, drawn_RL[:, b] - drawn_RL[:, a])
    return Estimate(
        value * scale, low=_times(low, scale), high=_times(high, scale), unit=kind,
        n_units=0 if unit is None else unit.level.n_units,
        method="difference of the trees' predictions (g-computation)",
    )  # fmt: skip


def _slope(
    job: Task, term: int, fitted: Attribution, draws: Mapping[str, Draws], unit: Unit | None, scale: float
) -> Estimate:
    value = float(fitted.term_ST[:, term].mean())
    if not np.isfinite(value):
        return NOTHING
    kind = unit.level.name if unit is not None else ""
    low, high = basic_interval(value, draws[kind].term_RT[:, term]) if kind in draws else (None, None)
    return Estimate(
        value * scale, low=_times(low, scale), high=_times(high, scale), unit=kind,
        n_units=0 if unit is None else unit.level.n_units, method="slope of a line through SHAP values on rank codes",
    )  # fmt: skip


def _times(value: float | None, scale: float) -> float | None:
    return None if value is None else value * scale


def _by_dataset(
    design: Design, ties: Ties, additive: Additive, name: str, adjust: tuple[str, ...] | None, ends: tuple[str, str]
) -> dict[str, float]:
    """The headline on each dataset alone, where both of its levels were probed on it."""
    if len(design.datasets) < 2 or len(design.point_B) > MOST_BY_DATASET:
        return {}
    found = {}
    for dataset, y_B in zip(design.datasets, by_dataset(design), strict=True):
        own = adjusted.estimate(design, ties, y_B, additive.component_B, name, adjust=adjust)
        if own is None:
            continue
        value = own.headline.value if (own.low, own.high) == ends else _between(own, ends)
        if value is not None and np.isfinite(value):
            found[dataset] = value
    return found


def _between(found: Adjusted, ends: tuple[str, str]) -> float | None:
    for pair in found.pairs:
        if (pair.against, pair.level) == ends:
            return pair.contrast.value
        if (pair.level, pair.against) == ends:
            return -pair.contrast.value
    return None


def family(effects: list[Effect], share: float, exploratory: bool) -> list[Effect]:
    """Effects after Holm's correction over the variables, as one family."""
    adjusted_p = holm([effect.p for effect in effects], share=share)
    return [
        replace(made, adjusted=replace(made.adjusted, exploratory=exploratory))
        for made in (effect.corrected(p) for effect, p in zip(effects, adjusted_p, strict=True))
    ]
