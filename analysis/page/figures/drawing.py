"""Which figures a report has, and what goes into each."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.design.points import Design
from analysis.estimates.outcome import Fitted, Outcome
from analysis.estimates.trees import Attribution
from analysis.page import rows
from analysis.page.figures import continual, curves, epochs, lead, pairs, shap
from analysis.page.figures.shap import Dots
from analysis.study import Study
from analysis.tables.names import label
from analysis.tables.variables import Array, Variable, code, level_text

MOST_DEPENDENCE, MOST_LEVELS, MOST_TICKS, MOST_DOTS = 9, 40, 6, 2000
MOST_GROUPS = 4  # levels of an unordered partner that are told apart


def draw(study: Study) -> tuple[dict[str, Figure], dict[str, str]]:
    """All figures by name, and captions of those that need one."""
    drawn: dict[str, Figure] = {}
    captions = {"layer_curves": study.panels_shown}
    if len(study.backbones) and study.backbones["retained"].notna().any():
        drawn["strengths"] = lead.strengths(study.backbones)
    if study.panels:
        drawn["layer_curves"] = curves.layer_curves(study.panels)
        ranks = [panel for panel in study.panels if panel.rank is not None]
        if ranks:
            drawn["rank_curves"] = curves.rank_curves(ranks)
    if study.ties is not None and len(study.ties.variables) > 1:
        names = [label(name) for name in study.ties.variables]
        text = "association over backbones"
        drawn["association"] = shap.heat_map(names, study.ties.association_VV, most=1.0, text=text)
    for name, outcome in study.outcomes.items():
        if outcome.effects:
            drawn |= _of_target(study, name, outcome)
    if study.experiments.emergence is not None:
        made, captions["emergence"] = epochs.draw(study.experiments.emergence)
        drawn |= made
    if study.tasks is not None:
        drawn |= continual.draw(study.tasks)
    return drawn, captions


def _of_target(study: Study, name: str, outcome: Outcome) -> dict[str, Figure]:
    fit = study.fits[name]
    assert fit.attribution is not None
    target, design = outcome.target, fit.task.design
    ordered = rows.by_size(outcome)
    cluster = outcome.quality.cluster
    drawn = {f"forest_{name}": lead.forest(ordered, target, cluster)}
    if any(len(effect.by_dataset) > 1 for effect in ordered):
        drawn[f"by_dataset_{name}"] = lead.by_dataset(ordered, target)
        drawn[f"outcomes_{name}"] = lead.outcomes(study.experiments.frame, target)
    shap_PV = fit.attribution.shap_PV * target.scale
    labels = [v.label for v in design.variables]
    drawn[f"beeswarm_{name}"] = shap.beeswarm(labels, design.code_PV, shap_PV, fit.task.counts(), unit=target.unit)
    matrix = np.array(outcome.strengths, dtype=float)
    if len(matrix) > 1:
        text = "mean |SHAP|: main effects on the diagonal, interactions off it"
        text += f" ({target.unit})" if target.unit else ""
        drawn[f"interactions_{name}"] = shap.heat_map(labels, matrix * target.scale, most=None, text=text)
    contrasts = rows.contrasts(study, name)
    if contrasts:
        drawn[f"contrasts_{name}"] = pairs.contrast_plot(contrasts[: pairs.MOST], unit=target.unit)
    dots = dependence(fit, fit.attribution, matrix, target.scale)
    if dots:
        drawn[f"dependence_{name}"] = shap.dependence(dots[:MOST_DEPENDENCE], unit=target.unit)
    return drawn


def dependence(fit: Fitted, attribution: Attribution, matrix: Array, scale: float) -> list[Dots]:
    """What the dependence figure shows, the most important variable first."""
    shap_PV, design = attribution.shap_PV * scale, fit.task.design
    order = np.argsort(-np.abs(shap_PV).mean(0))
    return [
        _dots(design, shap_PV, matrix, int(v))
        for v in order
        if design.variables[v].ordered or len(design.variables[v].levels) <= MOST_LEVELS
    ]


def _dots(design: Design, shap_PV: Array, matrix: Array, v: int) -> Dots:
    variable, code_P = design.variables[v], design.code_PV[:, v]
    others = [u for u in range(len(design.variables)) if u != v]
    partner = max(others, key=lambda u: matrix[u, v]) if others and len(matrix) > 1 else None
    chosen = np.flatnonzero(np.isfinite(code_P))[:MOST_DOTS]
    groups: list[tuple[str, np.ndarray]] = [("", np.ones(len(chosen), dtype=bool))]
    name = ""
    if partner is not None:
        found = _groups(design.variables[partner], design.code_PV[chosen, partner])
        if found:
            groups, name = found, design.variables[partner].label
    return Dots(variable.label, name, code_P[chosen], shap_PV[chosen, v], _ticks(variable), groups)


def _ticks(variable: Variable) -> list[tuple[float, str]]:
    """Places of the levels on the axis that the dots stand on; of many levels the ends and those between them."""
    places = code(variable, pd.Series(list(variable.levels), dtype=object))
    n = len(places)
    shown: list[int] = []
    for k in range(n) if n <= MOST_TICKS else [0, n // 4, n // 2, 3 * n // 4, n - 1]:
        if not shown or places[k] - places[shown[-1]] > 0.08:  # closer ones would be written over one another
            shown.append(k)
    if shown[-1] != n - 1:
        shown[-1] = n - 1
    return [(float(places[k]), level_text(variable.levels[k])) for k in shown]


def _groups(partner: Variable, code_S: Array) -> list[tuple[str, np.ndarray]]:
    """Points by value of the partner: each of few levels, else its lower and upper half; none if it has no order."""
    texts = [level_text(level) for level in partner.levels]
    if len(texts) <= (2 if partner.ordered else MOST_GROUPS):
        places = np.unique(code_S[np.isfinite(code_S)])
        every = np.linspace(0, 1, len(texts)) if partner.kind != "numeric" else places
        return [(text, np.isclose(code_S, place)) for text, place in zip(texts, every, strict=False)]
    if not partner.ordered:
        return []
    half = -(-len(texts) // 2)
    middle = float(code_of(partner, half))
    lower = code_S < middle
    return [
        (rows.reach(texts[:half]), lower & np.isfinite(code_S)),
        (rows.reach(texts[half:]), ~lower & np.isfinite(code_S)),
    ]


def code_of(variable: Variable, number: int) -> float:
    """Place of one level on its axis."""
    return float(code(variable, pd.Series([variable.levels[number]], dtype=object))[0])
