"""What the report says of one target: fit, ceilings, slopes with intervals. Plain numbers, ready for JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analysis.design import points
from analysis.estimates import estimate, heldout, interactions, resampling, shap_values, trees
from analysis.estimates.estimate import number
from analysis.estimates.interactions import Cut, slope_within
from analysis.estimates.resampling import CROSSED, POINTS, SHUFFLED, Draws
from analysis.estimates.trees import Attribution, Task
from analysis.tables.names import Target, part
from analysis.tables.variables import Array, level_text

FIT_KEYS = (
    "r2_in_sample", "r2_ceiling", "r2_out_of_fold", "r2_out_of_fold_by_backbone", "r2_leave_architecture_out",
    "r2_shuffled_95", "n_architectures", "architecture_folds", "held_out_experiments",
)  # fmt: skip


MOST_FOLDS, FEW_FOLDS = (
    64,
    10,
)  # architectures left out one by one, or of many (of a large table: of more than a few) in groups


def problem(job: Task) -> str | None:
    """Why a target cannot be attributed at all; None if it can."""
    points, names = job.design.n_points, job.design.names
    if not names:
        return "no variable takes more than one value in this table"
    if points < 2:
        return "all experiments with this outcome have the same settings"
    if np.ptp(job.y_N) == 0:
        return "the outcome is the same in every experiment"
    return None


def fit_quality(job: Task, fitted: Attribution, draws: Mapping[str, Draws], *, jobs: int) -> dict[str, Any]:
    """R² in sample, its ceiling, held out by distinct feature vector / backbone / architecture, and under shuffling."""
    members = [
        v for v, name in enumerate(job.design.names) if part(name) == "architecture" and name != "overparametrization"
    ]
    architecture_N = points.distinct(job.design.code_PV[:, members])[1][job.design.point_N]
    n_architectures = int(architecture_N.max()) + 1
    folds = min(n_architectures, MOST_FOLDS if job.design.n_points <= trees.LARGE else FEW_FOLDS)
    shuffled = draws[SHUFFLED].r2_R if SHUFFLED in draws else np.array([])
    by_architecture = heldout.held_out(job, architecture_N, folds=folds, jobs=jobs) if members else None
    return {
        "r2_in_sample": number(fitted.r2_in_sample),
        "r2_ceiling": number(fitted.r2_ceiling),
        "r2_out_of_fold": number(heldout.held_out(job, job.design.point_N, jobs=jobs)),
        "r2_out_of_fold_by_backbone": number(heldout.held_out(job, job.design.backbone_N, jobs=jobs)),
        "r2_leave_architecture_out": number(by_architecture),
        "n_architectures": n_architectures if members else None,
        "architecture_folds": folds if members else None,
        "held_out_experiments": len(heldout.held_out_rows(job)),
        "r2_shuffled_95": number(np.percentile(shuffled, 95)) if len(shuffled) else None,
    }


def slopes(job: Task, fitted: Attribution, draws: Mapping[str, Draws]) -> dict[str, dict[str, Any]]:
    """One entry per variable, in the model's unit; the most important first."""
    weight_P = job.counts()
    importance_V = (weight_P / weight_P.sum()) @ np.abs(fitted.shap_PV)
    rank_V = resampling.ranks(importance_V)
    shares_V = resampling.rank_share(importance_V, draws[POINTS]) if POINTS in draws else None
    entries = {}
    for v in np.argsort(rank_V):
        variable = job.design.variables[v]
        value = float(fitted.slope_SV[:, v].mean())
        entries[variable.name] = {
            "label": variable.label,
            "part": part(variable.name),
            "from": level_text(variable.levels[0]),
            "to": level_text(variable.levels[-1]),
            "levels": len(variable.levels),
            **_uncertain(value, {kind: draw.slope_RV[:, v] for kind, draw in draws.items()}),
            "seed_sd": number(fitted.slope_SV[:, v].std(ddof=1)) if len(fitted.slope_SV) > 1 else None,
            "mean_abs_shap": number(importance_V[v]),
            "rank": int(rank_V[v]),
            "rank_share": None if shares_V is None else number(shares_V[v]),
            "level_effects": level_effects(job, fitted.shap_PV[:, v], v),
        }
    return entries


def _uncertain(value: float, of_kind: Mapping[str, Array]) -> dict[str, float | None]:
    """A slope with its intervals over design points, over design points × datasets, and its permutation p."""
    none = np.array([])
    low, high = estimate.basic_interval(value, of_kind.get(POINTS, none))
    crossed_low, crossed_high = estimate.basic_interval(value, of_kind.get(CROSSED, none))
    return {
        "slope": number(value),
        "low": low,
        "high": high,
        "low_with_datasets": crossed_low,
        "high_with_datasets": crossed_high,
        "p_permutation": estimate.permutation_p(value, of_kind.get(SHUFFLED, none)),
    }


def cut_slope(job: Task, fitted: Attribution, cut: Cut, k: int, draws: Mapping[str, Draws]) -> dict[str, float | None]:
    """The slope of cut number ``k`` with what is known of its uncertainty."""
    value = slope_within(job, fitted.shap_PV, cut, job.counts())
    return _uncertain(value, {kind: draw.cut_RK[:, k] for kind, draw in draws.items()})


def level_effects(job: Task, shap_P: Array, v: int) -> list[dict[str, Any]]:
    """Mean SHAP value of each level of a variable over its experiments."""
    variable, weight_P = job.design.variables[v], job.counts()
    code_L = np.sort(np.unique(job.design.code_PV[np.isfinite(job.design.code_PV[:, v]), v]))
    if len(code_L) > 40:
        return []
    result = []
    for level, position in zip(variable.levels, code_L, strict=False):
        at = job.design.code_PV[:, v] == position
        result.append({"level": level_text(level), "effect": number(np.average(shap_P[at], weights=weight_P[at]))})
    return result


def report(
    target: Target, job: Task, fitted: Attribution, cuts: Sequence[Cut], draws: Mapping[str, Draws], *, jobs: int
) -> dict[str, Any]:
    """Everything that the report says of one target."""
    y_N = job.design.outcome_N
    entries = slopes(job, fitted, draws)
    for name, value in zip(job.design.names, shap_values.interventional_slopes(job), strict=True):
        entries[name]["slope_interventional"] = number(value)
    within = [cut_slope(job, fitted, cut, k, draws) for k, cut in enumerate(cuts)]
    return {
        "label": target.label,
        "unit": target.unit,
        "n_experiments": len(y_N),
        "n_backbones": len(job.design.point_B),
        "n_design_points": job.design.n_points,
        "mean": number(y_N.mean()),
        "problem": None,
        "seeds": len(fitted.slope_SV),
        **fit_quality(job, fitted, draws, jobs=jobs),
        "slopes": entries,
        "parts": shap_values.joint_parts(job, fitted, draws),
        "bundles": interactions.report_bundles(job, cuts, within),
        "interactions": interactions.report(job, cuts, within),
    }
