"""How often the 95 % interval of a slope holds the truth, on tables whose truth is known.

    python -m tests.bench coverage

Each table has 64 design points, two additive effects and two variables without one, and noise.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[1])]
from synthetic_tables import experiment_table  # noqa: E402  (it lies beside the tests)

from analysis import attribution, design, resampling  # noqa: E402

TRUTH: Mapping[str, float] = {"a": 0.3, "b": -0.2, "c": 0.0, "d": 0.0}
TABLES, RESAMPLES = 100, 200


def intervals(seed: int, *, resamples: int, jobs: int = 1) -> list[tuple[float, float]]:
    """95 % intervals of the slopes of TRUTH's variables on table number ``seed``."""
    frame = experiment_table(effects={name: effect for name, effect in TRUTH.items() if effect}, seed=seed)
    made = design.build(frame, design.describe(frame, list(TRUTH)), "retained")
    job = attribution.task(made, protocol="default", scale=100.0)
    slope_V = attribution.attribute(job).slope_SV.mean(0)
    draws = resampling.resample(
        [job], [()], bootstrap=resamples, permutations=0, jobs=jobs, progress=lambda done, total: None
    )[0][resampling.POINTS]
    found = [resampling.basic_interval(slope_V[v], draws.slope_RV[:, v]) for v in range(len(TRUTH))]
    return [(low, high) for low, high in found if low is not None and high is not None]


def run(*, quick: bool) -> dict[str, Any]:
    """Coverage of each variable's interval over the tables."""
    tables, resamples = (3, 60) if quick else (TABLES, RESAMPLES)
    truth_V = np.array(list(TRUTH.values()))
    low_TV, high_TV = np.moveaxis(np.array([intervals(t, resamples=resamples, jobs=0) for t in range(tables)]), 2, 0)
    inside_TV = (low_TV <= truth_V) & (truth_V <= high_TV)
    return {
        "tables": tables,
        "resamples": resamples,
        "truth": dict(TRUTH),
        "coverage": dict(zip(TRUTH, inside_TV.mean(0).tolist(), strict=True)),
        "mean_width": dict(zip(TRUTH, (high_TV - low_TV).mean(0).tolist(), strict=True)),
    }


def markdown(result: Mapping[str, Any]) -> str:
    """The figures as a table."""
    lines = [
        f"{result['tables']} tables, {result['resamples']} resamples each; 95 % intervals of SHAP slopes.",
        "",
        "| variable | true slope | tables whose interval holds it | mean width |",
        "|---|---:|---:|---:|",
    ]
    lines += [
        f"| {name} | {truth:g} | {result['coverage'][name]:.0%} | {result['mean_width'][name]:.3f} |"
        for name, truth in result["truth"].items()
    ]
    return "\n".join(lines)
