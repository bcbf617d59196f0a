"""What pictures show, in words, for those who do not see them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from analysis.design.ties import Ties
from analysis.estimates.outcome import Outcome
from analysis.estimates.pairs import Contrast
from analysis.page.rows import by_size, compared, decimal, interval, name, scaled, signed, value
from analysis.study import Study
from analysis.tables.names import Target, label

MOST = 12  # rows of a picture that are told one by one


def _told(head: str, parts: Sequence[str]) -> str:
    """Head and parts in one sentence; of many the first."""
    if not parts:
        return head
    more = f"; and {len(parts) - MOST} more" if len(parts) > MOST else ""
    return f"{head}: {'; '.join(parts[:MOST])}{more}"


def forest(outcome: Outcome) -> str:
    """Three estimates of each variable."""
    target = outcome.target
    parts = [
        f"{name(e)} {e.low} → {e.high} {value(target, e.adjusted)} ({interval(target, e.adjusted)}), matched backbones "
        f"{value(target, e.pairs)}, trees {value(target, e.trees)}, {e.verdict}"
        for e in by_size(outcome)
    ]
    return _told(f"Adjusted estimates, with 95 % intervals, of what each variable changes in {target.label}", parts)


def by_dataset(outcome: Outcome) -> str:
    """Each variable on each dataset."""
    parts = [
        f"{name(e)} {e.low} → {e.high} from {signed(outcome.target, min(e.by_dataset.values()))} to "
        f"{signed(outcome.target, max(e.by_dataset.values()))}, {e.agreeing} of {len(e.by_dataset)} with its sign"
        for e in by_size(outcome)
        if e.by_dataset
    ]
    return _told("Adjusted estimates on each OOD dataset alone", parts)


def outcomes(study: Study, target: Target) -> str:
    """An outcome of each backbone on each dataset."""
    means = study.experiments.frame.groupby("dataset")[target.name].mean().sort_values()
    parts = [f"{dataset} {decimal(float(mean), target.decimals)}" for dataset, mean in means.items()]
    return _told(f"{target.label} of each backbone on each OOD dataset; means of the datasets", parts)


def beeswarm(outcome: Outcome) -> str:
    """SHAP values of every experiment."""
    parts = [f"{s.label} {scaled(outcome.target, s.mean_abs_shap)}" for s in outcome.slopes]
    return _told("SHAP value of every experiment by variable; mean size", parts)


def dependence(outcome: Outcome) -> str:
    """SHAP values over the values of each variable."""
    parts = [
        f"{s.label} "
        + ", ".join(
            f"{level} {signed(outcome.target, None if x is None else x * outcome.target.scale)}"
            for level, x in s.level_effects[:MOST]
        )
        for s in outcome.slopes
        if s.level_effects
    ]
    return _told("SHAP values over the values of each variable; means", parts)


def interactions(outcome: Outcome, names: Sequence[str]) -> str:
    """How much pairs of variables matter beyond their own effects."""
    size = np.array(outcome.strengths)
    ranked = sorted(combinations(range(len(size)), 2), key=lambda pair: -size[pair])
    parts = [f"{label(names[u])} with {label(names[v])} {scaled(outcome.target, size[u, v])}" for u, v in ranked[:3]]
    return _told("Mean absolute SHAP interaction of each pair of variables; the largest", parts)


def contrasts(own: Sequence[Contrast], target: Target) -> str:
    """Differences of matched backbones."""
    parts = [f"{compared(c)} {value(target, c.estimate)} ({interval(target, c.estimate)})" for c in own]
    return _told(f"Mean differences of matched backbones in {target.label}, with 95 % intervals", parts)


def association(ties: Ties) -> str:
    """How strongly variables go together."""
    known = [
        (u, v) for u, v in combinations(range(len(ties.variables)), 2) if np.isfinite(ties.association_VV[u, v])
    ]  # fmt: skip
    ranked = sorted(known, key=lambda pair: -ties.association_VV[pair])
    parts = [
        f"{label(ties.variables[u])} with {label(ties.variables[v])} {decimal(float(ties.association_VV[u, v]))}"
        for u, v in ranked[:3]
    ]
    return _told("Association of each pair of variables over backbones; the strongest", parts)
