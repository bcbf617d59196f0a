"""R² on experiments that were not fitted.

Legend: N experiments, G groups.
"""

from __future__ import annotations

import numpy as np

from analysis.design.points import Index
from analysis.estimates.trees import LARGE, SMALL, Task, each, r_squared
from analysis.tables.variables import Array

FOLDS, FOLD_REPEATS = 5, 4

HELD_OUT_ROWS = 100_000  # experiments of a large design that held-out R² is estimated on, drawn at random


def folds_of(n_groups: int, folds: int, seed: int) -> Index:
    """Fold of each group, shuffled: as scikit-learn's GroupKFold deals them, without its look-ups by row."""
    order = np.random.RandomState(seed).permutation(n_groups)
    fold_G = np.zeros(n_groups, dtype=np.int64)
    for number, members in enumerate(np.array_split(order, folds)):
        fold_G[members] = number
    return fold_G


def held_out(job: Task, group_N: Index, *, folds: int = FOLDS, jobs: int = 1) -> float:
    """R² on experiments whose group (design point, backbone, …) was not fitted, over shuffled folds.

    Parameters
    ----------
    group_N : numbers of the groups, without gaps.
    folds : folds of each repeat; fewer if there are fewer groups. NaN below two groups.
    """
    n_groups = int(group_N.max(initial=-1)) + 1
    if n_groups < 2:
        return float("nan")
    folds = min(folds, n_groups)
    repeats = FOLD_REPEATS if job.design.n_points <= SMALL else 1
    used = held_out_rows(job)
    scores = []
    for repeat in range(repeats):
        fold_N = np.full(len(group_N), -1)
        fold_N[used] = folds_of(n_groups, folds, repeat)[group_N[used]]

        def one(fold: int, fold_N: Index = fold_N, seed: int = repeat) -> tuple[Index, Array]:
            tested = np.flatnonzero(fold_N == fold)
            model = job.fit(seed, weight_N=((fold_N >= 0) & (fold_N != fold)).astype(float))
            points, own = np.unique(job.design.point_N[tested], return_inverse=True)
            return tested, model.predict(job.x_PF[points])[own]

        prediction_N = np.zeros(len(group_N))
        for tested, prediction in each(one, range(folds), job=job, jobs=jobs):
            prediction_N[tested] = prediction
        scores.append(r_squared(job.raw_N[used], prediction_N[used]))
    return float(np.mean(scores))


def held_out_rows(job: Task) -> Index:
    """The experiments that held-out R² is estimated on: all of them, or of a large design a random part."""
    n = len(job.y_N)
    if job.design.n_points <= LARGE or n <= HELD_OUT_ROWS:
        return np.arange(n)
    return np.sort(np.random.default_rng(0).choice(n, HELD_OUT_ROWS, replace=False))
