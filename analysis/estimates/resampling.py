"""How far the trees' numbers move: refits on resampled units, and on outcomes shuffled between backbones.

Units are those of the levels on which variables vary (:mod:`analysis.design.levels`): whole architectures, whole
configurations or whole backbones are drawn. Every refit draws its own model seed and column order, so no tie between
variables falls the same way each time. Draws depend on their number only: the same for any number of processes.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import joblib
import numpy as np

from analysis.design.levels import Level
from analysis.design.points import Index, totals
from analysis.estimates.models import Model
from analysis.estimates.trees import Task, predicted, r_squared, set_codes
from analysis.tables.variables import Array

SHUFFLED = "shuffled"
CHUNK = 10  # refits of one unit of work
FEWEST_UNITS = 5  # below this a bootstrap says nothing
WORTH_PROCESSES = 300  # refits below which starting processes costs more than it saves


@dataclass(frozen=True)
class Draws:
    """Refits of one kind, in order.

    Attributes
    ----------
    slope_RV, importance_RV : slope and mean |SHAP| of each variable.
    term_RT : slope of each term.
    level_TRL : per term, the mean prediction at each level.
    r2_R : in-sample R² of each refit on shuffled outcomes.
    """

    slope_RV: Array
    importance_RV: Array
    term_RT: Array
    level_TRL: tuple[Array, ...]
    r2_R: Array


@dataclass(frozen=True)
class Piece:
    """Some refits of one target."""

    target: int
    kind: str
    numbers: range


Refit = tuple[Array, Array, Array, list[Array], float]  # the fields of Draws, of one refit


def _refit(job: Task, level: Level | None, number: int) -> Refit:
    design = job.design
    rng = np.random.default_rng([number, zlib.crc32((level.name if level else SHUFFLED).encode())])
    weight_N, point_N = np.ones(len(job.y_N)), design.point_N
    if level is None:  # whole backbones change places, so that rows of a backbone stay together
        point_N = rng.permutation(design.point_B)[design.backbone_N]
    else:
        drawn_U = np.bincount(rng.integers(0, level.n_units, level.n_units), minlength=level.n_units)
        weight_N = drawn_U[level.unit_B][design.backbone_N].astype(float)
    seed = int(rng.integers(2**31 - 1))
    weight_P = totals(point_N, weight_N, design.n_points)
    if (weight_P > 0).sum() < 2:
        return _undefined(job)
    model = job.fit(seed, weight_N=weight_N, point_N=point_N)
    if level is None:
        score = r_squared(job.raw_N, model.predict(job.x_PF)[point_N])
        return (*_undefined(job)[:4], score)
    shap_PV = job.contributions(model)
    share_P = weight_P / weight_P.sum()
    slope_V, term_T = job.slopes(shap_PV, weight_P), job.term_slopes(shap_PV, weight_P)
    return slope_V, share_P @ np.abs(shap_PV), term_T, _levels(job, model, weight_P), float("nan")


def _levels(job: Task, model: Model, weight_P: Array) -> list[Array]:
    """Predictions at each level; NaN at one that the resample lacks, where trees only guess."""
    found = predicted(job, model, weight_P)
    for term, value_L in zip(job.terms, found, strict=True):
        drawn = job.design.code_PV[weight_P > 0, term[0]]
        value_L[~np.isin(set_codes(job.design, term[0]), drawn)] = np.nan
    return found


def _undefined(job: Task) -> Refit:
    nothing = np.full(len(job.design.variables), np.nan)
    levels = [np.full(len(set_codes(job.design, term[0])), np.nan) for term in job.terms]
    return nothing, nothing, np.full(len(job.terms), np.nan), levels, float("nan")


def _run(job: Task, piece: Piece) -> list[Refit]:
    level = next((level for level in job.design.levels if level.name == piece.kind), None)
    return [_refit(job, level, number) for number in piece.numbers]


def resample(
    tasks: Sequence[Task],
    kinds: Sequence[Sequence[str]],
    *,
    bootstrap: int,
    permutations: int,
    jobs: int,
    progress: Callable[[int, int], None],
) -> list[dict[str, Draws]]:
    """Refit every target ``bootstrap`` times per level, and ``permutations`` times on shuffled outcomes.

    Parameters
    ----------
    kinds : per target, names of the levels whose units are drawn.
    jobs : processes; 0: one per core.
    progress : called with refits done and in all.

    Returns
    -------
    per target, kind → draws. Kinds that cannot be done (too few units) are absent.
    """
    pieces = [
        Piece(target, kind, range(start, min(start + CHUNK, count)))
        for target, job in enumerate(tasks)
        for kind, count in _counts(job, kinds[target], bootstrap, permutations).items()
        for start in range(0, count, CHUNK)
    ]
    total = sum(len(piece.numbers) for piece in pieces)
    processes = min(jobs or os.cpu_count() or 1, max(len(pieces), 1))
    if total < WORTH_PROCESSES and all(job.protocol == "default" for job in tasks):
        processes = 1
    work = joblib.Parallel(n_jobs=processes, return_as="generator")
    done, results = 0, []
    for piece, found in zip(
        pieces, work(joblib.delayed(_run)(tasks[piece.target], piece) for piece in pieces), strict=True
    ):
        results.append(found)
        progress(done := done + len(piece.numbers), total)
    return [_gather(target, pieces, results) for target in range(len(tasks))]


def _counts(job: Task, kinds: Sequence[str], bootstrap: int, permutations: int) -> dict[str, int]:
    if not bootstrap or not len(job.y_N):
        return {}
    found = {
        level.name: bootstrap for level in job.design.levels if level.name in kinds and level.n_units >= FEWEST_UNITS
    }
    if len(job.design.point_B) >= FEWEST_UNITS:
        found[SHUFFLED] = permutations
    return found


def _gather(target: int, pieces: Sequence[Piece], results: Sequence[list[Refit]]) -> dict[str, Draws]:
    rows: dict[str, list[Refit]] = {}
    for piece, result in zip(pieces, results, strict=True):
        if piece.target == target:
            rows.setdefault(piece.kind, []).extend(result)
    made = {}
    for kind, found in rows.items():
        slope, importance, term, levels, score = zip(*found, strict=True)
        by_term = tuple(np.array(column) for column in zip(*levels, strict=True))
        made[kind] = Draws(np.array(slope), np.array(importance), np.array(term), by_term, np.array(score))
    return made


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


def global_p(observed: float, draws: Mapping[str, Draws]) -> float | None:
    """Global test: share of shuffles between backbones whose R² reaches the table's, which is counted too."""
    if SHUFFLED not in draws or not np.isfinite(observed):
        return None
    null = draws[SHUFFLED].r2_R
    null = null[np.isfinite(null)]
    return float((1 + (null >= observed).sum()) / (1 + len(null))) if len(null) else None
