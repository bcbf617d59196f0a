"""Other ways of sharing out: interventional SHAP values, and whole groups of variables."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.design import points
from analysis.estimates import trees
from analysis.estimates.trees import Attribution, Task, by_variable
from analysis.tables.variables import Array

BACKGROUND, SAMPLED_POINTS, SEEDS = 100, 200, 4


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
    for seed in range(min(SEEDS, trees.seeds(job))):
        values = job.fit(seed).interventional(job.x_PF[chosen], job.x_PF[background])
        shap_PV = np.zeros((n_points, len(job.design.variables)))
        shap_PV[chosen] = by_variable(values, job.owner_F, len(job.design.variables))
        used_P = np.zeros(n_points)
        used_P[chosen] = weight_P[chosen]
        slopes.append(job.slopes(shap_PV, used_P))
    return np.array(slopes).mean(axis=0)


@dataclass(frozen=True)
class Part:
    """Joint attribution of a declared group of variables: mean |sum of SHAP values|, in the model's unit."""

    name: str
    variables: tuple[str, ...]
    mean_abs_shap: float


def joint_parts(job: Task, fitted: Attribution) -> tuple[Part, ...]:
    """Attribution of each declared group (data, architecture, training)."""
    weight_P = job.counts() / job.counts().sum()
    return tuple(
        Part(
            part,
            tuple(job.design.names[v] for v in members),
            float(weight_P @ np.abs(fitted.shap_PV[:, members].sum(axis=1))),
        )
        for part, members in points.parts(job.design).items()
    )
