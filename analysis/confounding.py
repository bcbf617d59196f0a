"""What the design cannot tell apart: correlated variables, exact dependences, and what that does to attributions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from analysis import attribution, design, resampling
from analysis.attribution import Attribution, Task, by_variable
from analysis.design import CONFOUNDED, Array, Design
from analysis.resampling import POINTS, Draws

BACKGROUND, SAMPLED_POINTS, SEEDS = 100, 200, 4


def describe(made: Design) -> dict[str, Any]:
    """Correlation and variance inflation of the variables over backbones, and exact dependences by name."""
    rho_VV, vif_V = design.correlation(made), design.inflation(made)
    names = made.names
    pairs = [
        {
            "first": names[u],
            "second": names[v],
            "rho": float(rho_VV[u, v]),
            "confounded": bool(abs(rho_VV[u, v]) > CONFOUNDED),
        }
        for u in range(len(names)) for v in range(u + 1, len(names)) if np.isfinite(rho_VV[u, v])
    ]  # fmt: skip
    return {
        "variables": list(names),
        "correlation": [[None if not np.isfinite(x) else float(x) for x in row] for row in rho_VV],
        "pairs": sorted(pairs, key=lambda pair: -abs(pair["rho"])),
        "vif": {
            name: None if np.isnan(x) else ("infinite" if np.isinf(x) else float(x))
            for name, x in zip(names, vif_V, strict=True)
        },
        "dependences": [{"variable": name, "determined_by": list(by)} for name, by in design.dependences(made)],
    }


def partners(about: Mapping[str, Any]) -> dict[str, list[str]]:
    """For each variable the others that it cannot be told from: |ρ| above the limit, or one of them gives the other."""
    found: dict[str, set[str]] = {name: set() for name in about["variables"]}
    for pair in about["pairs"]:
        if pair["confounded"]:
            found[pair["first"]].add(pair["second"])
            found[pair["second"]].add(pair["first"])
    for dependence in about["dependences"]:
        if len(dependence["determined_by"]) == 1:
            found[dependence["variable"]].add(dependence["determined_by"][0])
    return {name: sorted(others) for name, others in found.items() if others}


def together(about: Mapping[str, Any]) -> list[list[str]]:
    """Groups of variables that always change together: each gives every other one of its group."""
    gives = {(d["determined_by"][0], d["variable"]) for d in about["dependences"] if len(d["determined_by"]) == 1}
    left, found = list(about["variables"]), []
    while left:
        first = left.pop(0)
        members = [first, *(name for name in left if (first, name) in gives and (name, first) in gives)]
        left = [name for name in left if name not in members]
        found += [members] if len(members) > 1 else []
    return found


def interventional_slopes(job: Task, *, rng_seed: int = 0) -> Array:
    """Slopes from interventional SHAP values, mean over seeds (V,).

    At most :data:`SAMPLED_POINTS` design points against a background of :data:`BACKGROUND`, drawn by their weight.
    """
    weight_P = job.counts()
    rng = np.random.default_rng(rng_seed)
    share_P, n_points = weight_P / weight_P.sum(), job.design.n_points
    background = rng.choice(n_points, min(BACKGROUND, max(n_points, 30)), p=share_P)
    chosen = (
        np.arange(n_points)
        if n_points <= SAMPLED_POINTS
        else np.unique(rng.choice(n_points, SAMPLED_POINTS, p=share_P))
    )
    slopes = []
    for seed in range(min(SEEDS, attribution.seeds(job))):
        values = job.fit(seed).interventional(job.x_PF[chosen], job.x_PF[background])
        shap_PV = np.zeros((n_points, len(job.design.variables)))
        shap_PV[chosen] = by_variable(values, job.owner_F, len(job.design.variables))
        used_P = np.zeros(n_points)
        used_P[chosen] = weight_P[chosen]
        slopes.append(job.slopes(shap_PV, used_P))
    return np.array(slopes).mean(axis=0)


def joint_parts(job: Task, fitted: Attribution, draws: Mapping[str, Draws]) -> list[dict[str, Any]]:
    """Attribution of whole groups (data, architecture, training): mean |sum of SHAP values|, with its interval."""
    weight_P = job.counts() / job.counts().sum()
    grouped = design.parts(job.design)
    rows = []
    for number, (part, members) in enumerate(grouped.items()):
        low, high = resampling.interval(draws[POINTS].part_RG[:, number]) if POINTS in draws else (None, None)
        rows.append({
            "part": part,
            "variables": [job.design.names[v] for v in members],
            "mean_abs_shap": float(weight_P @ np.abs(fitted.shap_PV[:, members].sum(axis=1))),
            "low": low,
            "high": high,
        })  # fmt: skip
    return rows
