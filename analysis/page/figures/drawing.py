"""Which figures a report has, and what goes into each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from analysis.page.figures import curves, epochs, pairs, shap
from analysis.page.rows import contrast_rows, factor, reach, slope_rows, unit
from analysis.study import Analysis, Fitted
from analysis.tables.names import label
from analysis.tables.variables import level_text

MOST_DEPENDENCE = 9


def draw(analysis: Analysis) -> tuple[dict[str, Figure], dict[str, str]]:
    """All figures by name, and captions of those that need one."""
    drawn: dict[str, Figure] = {}
    captions = dict(analysis.captions)
    report, shown = analysis.report, analysis.panels
    if shown:
        drawn["layer_curves"] = curves.layer_curves(shown)
        ranks = [panel for panel in shown if panel["rank"] is not None]
        if ranks:
            drawn["rank_curves"] = curves.rank_curves(ranks)
    about = report["confounding"]
    if about and len(about["variables"]) > 1:
        values = np.array([[np.nan if x is None else x for x in row] for row in about["correlation"]], dtype=float)
        names = [label(name) for name in about["variables"]]
        drawn["design_correlation"] = shap.heat_map(names, values, diverging=True, text="correlation over backbones")
    for name, fit in analysis.fits.items():
        if fit.attribution is not None:
            drawn |= _of_target(report, name, fit)
    if analysis.experiments.emergence is not None:
        made, captions["emergence"] = epochs.draw(analysis.experiments.emergence)
        drawn |= made
    return drawn, captions


def _of_target(report: Mapping[str, Any], name: str, fit: Fitted) -> dict[str, Figure]:
    assert fit.attribution is not None
    entry, design = report["targets"][name], fit.task.design
    printed, scale = unit(name), factor(name)
    drawn: dict[str, Figure] = {}
    rows = slope_rows(name, entry)
    if rows:
        drawn[f"slopes_{name}"] = shap.slope_bars(rows, unit=printed)
    shap_PV = fit.attribution.shap_PV * scale
    labels = [v.label for v in design.variables]
    drawn[f"beeswarm_{name}"] = shap.beeswarm(labels, design.code_PV, shap_PV, fit.task.counts(), unit=printed)
    matrix = np.array(entry["interactions"]["matrix"], dtype=float)
    if len(matrix) > 1:
        text = "mean |SHAP|: main effects on the diagonal, interactions off it" + (f" ({printed})" if printed else "")
        drawn[f"interactions_{name}"] = shap.heat_map(labels, matrix * scale, diverging=False, text=text)
    contrasts = contrast_rows(report, name, clean=True)
    if contrasts:
        drawn[f"contrasts_{name}"] = pairs.contrast_plot(contrasts[: pairs.MOST], unit=printed)
    panels_ = [
        _dependence(fit, shap_PV, matrix, v) for v in _by_importance(shap_PV) if len(design.variables[v].levels) <= 40
    ]
    if panels_:
        drawn[f"dependence_{name}"] = shap.dependence(panels_[:MOST_DEPENDENCE], unit=printed)
    return drawn


def _by_importance(shap_PV: np.ndarray) -> list[int]:
    return [int(v) for v in np.argsort(-np.abs(shap_PV).mean(0))]


def _dependence(fit: Fitted, shap_PV: np.ndarray, matrix: np.ndarray, v: int) -> dict[str, Any]:
    design = fit.task.design
    others = [u for u in range(len(design.variables)) if u != v]
    partner = max(others, key=lambda u: matrix[u, v]) if others and len(matrix) > 1 else None
    levels = [level_text(x) for x in design.variables[v].levels]
    code_P = design.code_PV[:, v]
    chosen = np.flatnonzero(np.isfinite(code_P))[:2000]
    panel = {
        "label": design.variables[v].label,
        "levels": levels,
        "code_P": code_P[chosen],
        "shap_P": shap_PV[chosen, v],
    }
    if partner is None:
        return panel | {"partner": "", "partner_P": np.zeros(len(chosen)), "partner_levels": ("", "")}
    partner_levels = [level_text(x) for x in design.variables[partner].levels]
    half = -(-len(partner_levels) // 2)
    ends = (reach(partner_levels[:half]), reach(partner_levels[half:]))
    return panel | {
        "partner": design.variables[partner].label,
        "partner_P": design.code_PV[chosen, partner],
        "partner_levels": ends,
    }
