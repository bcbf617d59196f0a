"""How often the 95 % interval of a slope holds the truth, on tables whose truth is known.

    python -m tests.bench coverage

Each table has two additive effects, two variables without one, and noise of images; 64 backbones (about 58 distinct
settings) are the size the limit is for, 16 show what the report warns of in small tables.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from analysis.design import points
from analysis.estimates import estimate, resampling, trees
from analysis.tables.variables import describe
from tests.synthetic_tables import experiment_table

from . import report

TRUTH: Mapping[str, float] = {"a": 0.3, "b": -0.2, "c": 0.0, "d": 0.0}
TABLES, RESAMPLES = 100, 200
SIZES = (64, 16)  # backbones
KINDS = (resampling.POINTS, resampling.CROSSED)
Interval = tuple[float, float]


def intervals(
    seed: int, *, resamples: int, backbones: int = SIZES[0], kinds: Sequence[str] = KINDS
) -> dict[str, list[Interval]]:
    """95 % intervals of the slopes of TRUTH's variables on table number ``seed``, for each kind of bootstrap."""
    effects = {name: effect for name, effect in TRUTH.items() if effect}
    frame = experiment_table(n_backbones=backbones, effects=effects, seed=seed)
    made = points.build(frame, describe(frame, list(TRUTH)), "retained")
    job = trees.task(made, protocol="default", scale=100.0)
    slope_V = trees.attribute(job).slope_SV.mean(0)
    draws = resampling.resample(
        [job], [()], bootstrap=resamples, permutations=0, jobs=1, progress=lambda done, total: None, kinds=kinds
    )[0]
    found = {}
    for kind in kinds:
        bounds = [estimate.basic_interval(slope_V[v], draws[kind].slope_RV[:, v]) for v in range(len(TRUTH))]
        found[kind] = [(low, high) for low, high in bounds if low is not None and high is not None]
    return found


def _in_processes(one: Callable[[int], dict[str, list[Interval]]], tables: int) -> list[dict[str, list[Interval]]]:
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(one, range(tables)))


def run(*, quick: bool) -> dict[str, Any]:
    """Coverage of each variable's interval over the tables, by number of backbones and kind of bootstrap."""
    tables, resamples = (3, 60) if quick else (TABLES, RESAMPLES)
    truth_V = np.array(list(TRUTH.values()))
    found = []
    for size in SIZES:
        one = partial(intervals, resamples=resamples, backbones=size)
        made = [one(table) for table in range(tables)] if quick else _in_processes(one, tables)
        for kind in KINDS:
            low_TV, high_TV = np.moveaxis(np.array([table[kind] for table in made]), 2, 0)
            inside_TV = (low_TV <= truth_V) & (truth_V <= high_TV)
            coverage = dict(zip(TRUTH, inside_TV.mean(0).tolist(), strict=True))
            width = dict(zip(TRUTH, (high_TV - low_TV).mean(0).tolist(), strict=True))
            found.append({"backbones": size, "over": kind, "coverage": coverage, "mean_width": width})
    return {"tables": tables, "resamples": resamples, "truth": dict(TRUTH), "intervals": found}


def markdown(result: Mapping[str, Any]) -> str:
    """The figures as a table."""
    truth = result["truth"]
    head = ["backbones", "bootstrap over", *(f"{name}: true slope {effect:g}" for name, effect in truth.items())]
    rows = [
        [str(row["backbones"]), row["over"],
         *(f"{row['coverage'][name]:.0%} (width {row['mean_width'][name]:.3f})" for name in truth)]
        for row in result["intervals"]
    ]  # fmt: skip
    return (
        f"Share of {result['tables']} tables whose 95 % interval of the SHAP slope holds the truth, and its mean "
        f"width; {result['resamples']} resamples each.\n\n{report.table(head, rows)}"
    )
