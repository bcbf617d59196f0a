"""What survives: the same estimates under each accuracy rule, without each OOD dataset, without each cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.design import points
from analysis.estimates import additive, adjusted
from analysis.estimates.effects import Effect
from analysis.estimates.outcome import Fitted
from analysis.tables.experiments import Experiments

MOST_BACKBONES = 5000
MOST_LEFT_OUT = 40  # datasets, or clusters, that are left out one by one
WITHOUT_DATASET, WITHOUT = "one dataset", "one {}"


@dataclass(frozen=True)
class Variant:
    """One re-estimate of a headline."""

    left_out: str
    value: float
    low: float | None
    high: float | None

    def survives(self, value: float) -> bool:
        """Whether it has the sign of the main estimate, and zero outside of its interval."""
        return self.value * value > 0 and self.low is not None and self.high is not None and self.low * self.high > 0


@dataclass(frozen=True)
class Survival:
    """One variable's headline and its re-estimates, by kind: 'accuracy: last', 'without one dataset', …"""

    variable: str
    low: str
    high: str
    value: float
    asserted: bool
    variants: Mapping[str, tuple[Variant, ...]]

    def lost(self) -> list[str]:
        """Kinds that an asserted headline does not survive every time."""
        if not self.asserted:
            return []
        return [kind for kind, own in self.variants.items() if own and not all(v.survives(self.value) for v in own)]


def of(
    experiments: Experiments, made: Fitted, effects: Sequence[Effect], others: Mapping[str, Experiments]
) -> tuple[Survival, ...]:
    """Re-estimate every headline of an outcome.

    Parameters
    ----------
    others : the same sweep under other accuracy rules.
    """
    if len(made.task.design.point_B) > MOST_BACKBONES:
        return ()
    frame, target = experiments.frame, made.target.name
    frames: dict[str, list[tuple[str, pd.DataFrame]]] = {}
    for rule, other in others.items():
        if target in other.frame:
            frames[f"accuracy: {rule}"] = [(rule, other.frame)]
    datasets = sorted(frame["dataset"].unique())
    if 2 < len(datasets) <= MOST_LEFT_OUT:
        frames[f"without {WITHOUT_DATASET}"] = [(d, frame[frame["dataset"] != d]) for d in datasets]
    for name, column in experiments.clusters.items():
        units = sorted(frame[column].unique())
        if 2 < len(units) <= MOST_LEFT_OUT:
            frames[f"without {WITHOUT.format(name)}"] = [(str(u), frame[frame[column] != u]) for u in units]
    found: dict[str, dict[str, list[Variant]]] = {effect.name: {} for effect in effects}
    for kind, several in frames.items():
        for left_out, part in several:
            for effect, variant in _again(experiments, made, effects, part, left_out):
                found[effect.name].setdefault(kind, []).append(variant)
    return tuple(
        Survival(
            effect.name, effect.low, effect.high, effect.adjusted.value, effect.adjusted.asserted,
            {kind: tuple(own) for kind, own in found[effect.name].items()},
        )
        for effect in effects if effect.adjusted.value is not None
    )  # fmt: skip


def _again(
    experiments: Experiments, made: Fitted, effects: Sequence[Effect], frame: pd.DataFrame, left_out: str
) -> list[tuple[Effect, Variant]]:
    variables = made.task.design.variables
    if any(name not in frame for name in (v.name for v in variables)) or not frame[made.target.name].notna().any():
        return []
    design = points.build(
        frame, variables, made.target.name, clusters=experiments.clusters, context=experiments.context
    )  # fmt: skip
    apart = additive.fit(design)
    found = []
    for effect in effects:
        declared = next((experiments.adjust[name] for name in effect.variables if name in experiments.adjust), None)
        own = adjusted.estimate(
            design, made.task.ties, apart.mean_B, apart.component_B, effect.name, adjust=declared
        )  # fmt: skip
        if own is not None and (own.low, own.high) == (effect.low, effect.high):
            found.append((effect, Variant(left_out, own.headline.value, *own.headline.interval())))
        elif own is not None:
            pair = next((p for p in own.pairs if {p.level, p.against} == {effect.low, effect.high}), None)
            if pair is not None:
                sign = 1 if pair.level == effect.high else -1
                low, high = pair.contrast.interval()
                bounds = (low, high) if sign > 0 or low is None or high is None else (-high, -low)
                found.append((effect, Variant(left_out, sign * pair.contrast.value, *bounds)))
    return found
