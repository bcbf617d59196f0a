"""How sure a slope is: refits on resampled design points, on design points × OOD datasets, and on shuffled outcomes.

Every refit draws its own model seed and column order, so no tie between confounded variables falls the same way
each time. Draws depend on their number only: the same for every target, and for any number of processes.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.design.points import Index, parts, totals
from analysis.estimates.interactions import Cut, slope_within
from analysis.estimates.trees import Task, r_squared
from analysis.tables.variables import Array

POINTS, CROSSED, SHUFFLED = "points", "points x datasets", "shuffled"
CHUNK = 10  # refits of one unit of work
FEWEST_POINTS = 5  # below this a bootstrap over design points says nothing
WORTH_PROCESSES = 300  # refits below which starting processes costs more than it saves


@dataclass(frozen=True)
class Unit:
    """Some refits of one target."""

    target: int
    kind: str
    numbers: range


@dataclass(frozen=True)
class Draws:
    """Refits of one kind, in order.

    Attributes
    ----------
    slope_RV, importance_RV : slope and mean |SHAP| of each variable.
    part_RG : mean |sum of SHAP| of each group of variables.
    cut_RK : slope within each cut (:mod:`analysis.interactions`).
    r2_R : in-sample R² of each refit.
    """

    slope_RV: Array
    importance_RV: Array
    part_RG: Array
    cut_RK: Array
    r2_R: Array


Refit = tuple[Array, Array, Array, Array, float]  # the fields of Draws, of one refit


def _refit(job: Task, cuts: Sequence[Cut], kind: str, number: int) -> Refit:
    design, groups = job.design, list(parts(job.design).values())
    rng = np.random.default_rng([number, (POINTS, CROSSED, SHUFFLED).index(kind)])
    weight_N, point_N = np.ones(len(job.y_N)), design.point_N
    if kind == SHUFFLED:  # whole backbones change places, so that rows of a backbone stay together
        point_N = rng.permutation(design.point_B)[design.backbone_N]
    else:
        weight_N = _multiplicity(design.n_points, rng)[design.point_N]
        if kind == CROSSED:
            weight_N = weight_N * _multiplicity(int(design.dataset_N.max()) + 1, rng)[design.dataset_N]
    seed = int(rng.integers(2**31 - 1))
    weight_P = totals(point_N, weight_N, design.n_points)
    if (weight_P > 0).sum() < 2:
        nothing = np.full(len(design.variables), np.nan)
        return nothing, nothing, np.full(len(groups), np.nan), np.full(len(cuts), np.nan), float("nan")
    model = job.fit(seed, weight_N=weight_N, point_N=point_N)
    shap_PV = job.contributions(model)
    share_P = weight_P / weight_P.sum()
    part_G = np.array([share_P @ np.abs(shap_PV[:, members].sum(axis=1)) for members in groups])
    cut_K = np.array([slope_within(job, shap_PV, cut, weight_P) for cut in cuts])
    score = r_squared(job.y_N, model.predict(job.x_PF)[point_N]) if kind == SHUFFLED else float("nan")
    return job.slopes(shap_PV, weight_P), share_P @ np.abs(shap_PV), part_G, cut_K, score


def _multiplicity(n: int, rng: np.random.Generator) -> Array:
    return np.bincount(rng.integers(0, n, n), minlength=n).astype(float)


def _run(job: Task, cuts: Sequence[Cut], unit: Unit) -> list[Refit]:
    return [_refit(job, cuts, unit.kind, number) for number in unit.numbers]


_received: dict[str, Any] = {}  # in a worker process: the targets, sent once and not with every unit


def _receive(tasks: Sequence[Task], cuts: Sequence[Sequence[Cut]]) -> None:
    _received.update(tasks=tasks, cuts=cuts)


def _run_received(unit: Unit) -> list[Refit]:
    return _run(_received["tasks"][unit.target], _received["cuts"][unit.target], unit)


def resample(
    tasks: Sequence[Task],
    cuts: Sequence[Sequence[Cut]],
    *,
    bootstrap: int,
    permutations: int,
    jobs: int,
    progress: Callable[[int, int], None],
    kinds: Collection[str] = (POINTS, CROSSED, SHUFFLED),
) -> list[dict[str, Draws]]:
    """Refit every target ``bootstrap`` times per kind of bootstrap and ``permutations`` times on shuffled outcomes.

    Parameters
    ----------
    cuts : per target, the cuts whose slopes are wanted.
    jobs : processes; 0: one per core.
    progress : called with refits done and in all.
    kinds : which of them to do.

    Returns
    -------
    per target, kind → draws. Kinds that cannot be done (too few design points, one dataset) are absent.
    """
    units = [
        Unit(target, kind, range(start, min(start + CHUNK, count)))
        for target, job in enumerate(tasks)
        for kind, count in _kinds(job, bootstrap, permutations).items()
        if kind in kinds
        for start in range(0, count, CHUNK)
    ]
    total = sum(len(unit.numbers) for unit in units)
    processes = min(jobs or os.cpu_count() or 1, len(units))
    done, results = 0, []
    if processes <= 1 or (total < WORTH_PROCESSES and tasks[0].protocol == "default"):
        for unit in units:
            results.append(_run(tasks[unit.target], cuts[unit.target], unit))
            progress(done := done + len(unit.numbers), total)
    else:
        # spawn: a fork would copy the OpenMP threads' locks of LightGBM in whatever state they are
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, context, initializer=_receive, initargs=(tasks, cuts)) as pool:
            futures = [pool.submit(_run_received, unit) for unit in units]
            for unit, future in zip(units, futures, strict=True):
                results.append(future.result())
                progress(done := done + len(unit.numbers), total)
    return [_gather(target, units, results) for target in range(len(tasks))]


def _kinds(job: Task, bootstrap: int, permutations: int) -> dict[str, int]:
    design = job.design
    if not bootstrap or not len(job.y_N):
        return {}
    kinds = {}
    if design.n_points >= FEWEST_POINTS:
        kinds[POINTS] = bootstrap
        if design.dataset_N.max() > 0:
            kinds[CROSSED] = bootstrap
    if len(design.point_B) >= FEWEST_POINTS:
        kinds[SHUFFLED] = permutations
    return kinds


def _gather(target: int, units: Sequence[Unit], results: Sequence[list[Refit]]) -> dict[str, Draws]:
    rows: dict[str, list[Refit]] = {}
    for unit, result in zip(units, results, strict=True):
        if unit.target == target:
            rows.setdefault(unit.kind, []).extend(result)
    return {kind: Draws(*(np.array(column) for column in zip(*found, strict=True))) for kind, found in rows.items()}


def ranks(importance: Array) -> Index:
    """Rank of each variable, 1 is the most important (V,)."""
    order = np.argsort(-importance, kind="stable")
    result = np.empty(len(importance), dtype=np.int64)
    result[order] = np.arange(1, len(importance) + 1)
    return result


def rank_share(importance_V: Array, draws: Draws) -> Array:
    """Share of the resamples in which a variable keeps its rank (V,)."""
    own = ranks(importance_V)
    return np.mean([ranks(row) == own for row in draws.importance_RV], axis=0)
