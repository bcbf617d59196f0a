"""Boosted trees and SHAP on a design: fits, contributions, slopes, held-out R².

A model of the variables gives experiments with one feature vector one prediction, so everything but the fit of the
paper's protocol works on design points, each weighted by its experiments. For squared error that is exact.

Legend: N experiments, V variables, F features, P design points.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from analysis.design.points import Design, Index, features
from analysis.design.ties import Ties
from analysis.estimates.models import PROTOCOLS, Data, Model, means
from analysis.tables.errors import UserError
from analysis.tables.variables import Array

SMALL, LARGE = 2_000, 20_000  # design points: above the one fewer seeds and folds do, and above the other fewer still
PREDICTED = 2000  # design points that predictions at set levels are averaged over
MOST_LEVELS = 8
A = TypeVar("A")
B = TypeVar("B")


def r_squared(y_N: Array, prediction_N: Array) -> float:
    """Share of the outcomes' variance that predictions explain; NaN if the outcomes are all equal."""
    total = float(((y_N - y_N.mean()) ** 2).sum())
    return 1 - float(((y_N - prediction_N) ** 2).sum()) / total if total > 0 else float("nan")


def slope(z_P: Array, value_P: Array, weight_P: Array) -> float:
    """Weighted least-squares slope of SHAP values on a variable's position in [0, 1]; NaN if it does not vary."""
    use = np.isfinite(z_P) & (weight_P > 0)
    z, value, weight = z_P[use], value_P[use], weight_P[use]
    if len(z) < 2 or np.ptp(z) == 0:
        return float("nan")
    weight = weight / weight.sum()
    centred = z - weight @ z
    return float((weight * centred) @ value / ((weight * centred) @ centred))


def by_variable(values_PF: Array, owner_F: Index, n_variables: int) -> Array:
    """Sum the contributions of a variable's one-hot parts (P, V)."""
    total = np.zeros((len(values_PF), n_variables))
    for f, v in enumerate(owner_F):
        total[:, v] += values_PF[:, f]
    return total


@dataclass(frozen=True)
class Task:
    """One target of one design, ready to fit again and again: plain arrays, so that it can be sent to a process.

    Attributes
    ----------
    y_N : what is fitted, in the model's unit (% retained is divided by 100, [H24] A.9): outcomes without what their
        OOD dataset adds; the paper's protocol leaves it in.
    raw_N : the outcomes themselves, in the same unit: R² is measured on them.
    terms : variables whose SHAP values are summed: each alone, or those that always change together.
    """

    design: Design
    ties: Ties
    protocol: str
    x_PF: Array
    owner_F: Index
    y_N: Array
    raw_N: Array
    terms: tuple[tuple[int, ...], ...]

    def fit(self, seed: int, *, weight_N: Array | None = None, point_N: Index | None = None) -> Model:
        """Fit the protocol's model, to a resample (weights) or a reassignment (points) if given."""
        data = Data(
            self.x_PF,
            self.design.point_N if point_N is None else point_N,
            self.y_N,
            np.ones(len(self.y_N)) if weight_N is None else weight_N,
        )
        return PROTOCOLS[self.protocol].fit(data, seed)

    def contributions(self, model: Model, threads: int = 1) -> Array:
        """SHAP value of each variable at each design point (P, V).

        What a variable gets for not applying goes to the variable that decides it: a CNN has no patch size.
        """
        shap_PV = by_variable(model.contributions(self.x_PF, threads), self.owner_F, len(self.design.variables))
        weight_P = self.counts()
        for name, giver in self.ties.nested.items():
            u, v = self.design.names.index(name), self.design.names.index(giver)
            applies_P = np.isfinite(self.design.code_PV[:, u])
            for group_P in (applies_P, ~applies_P):
                share = float(np.average(shap_PV[group_P, u], weights=weight_P[group_P]))
                shap_PV[group_P, u] -= share
                shap_PV[group_P, v] += share
        return shap_PV

    def term_slopes(self, shap_PV: Array, weight_P: Array) -> Array:
        """Slope of each term's summed SHAP values on its first variable (T,); NaN for unordered categories."""
        return np.array(
            [
                slope(self.design.code_PV[:, term[0]], shap_PV[:, list(term)].sum(axis=1), weight_P)
                if self.design.variables[term[0]].has_slope
                else np.nan
                for term in self.terms
            ]
        )

    def slopes(self, shap_PV: Array, weight_P: Array) -> Array:
        """Slope of each variable (V,); NaN for unordered categories."""
        return np.array(
            [
                slope(self.design.code_PV[:, v], shap_PV[:, v], weight_P) if variable.has_slope else np.nan
                for v, variable in enumerate(self.design.variables)
            ]
        )

    def counts(self) -> Array:
        """Experiments of each design point (P,)."""
        return np.bincount(self.design.point_N, minlength=self.design.n_points).astype(float)


def task(design: Design, ties: Ties, *, protocol: str, scale: float, effect_D: Array | None = None) -> Task:
    """Prepare a target for fitting under a protocol.

    Raises
    ------
    UserError
        If the paper's model is asked for a table with gaps.
    """
    if protocol == "paper" and np.isnan(design.code_PV).any():
        gaps = [v.label for v, column in zip(design.variables, design.code_PV.T, strict=True) if np.isnan(column).any()]
        raise UserError(
            f"--protocol paper: the paper's model takes no gaps, and {', '.join(gaps)} has no value for some "
            "backbones; leave it out (--variables with the others), or use the default protocol"
        )
    x_PF, owner_F = features(design, full_one_hot=PROTOCOLS[protocol].one_hot)
    easy_N = np.zeros(len(design.outcome_N)) if effect_D is None or protocol == "paper" else effect_D[design.dataset_N]
    bundled = {name: bundle for bundle in ties.bundles for name in bundle}
    terms = [
        tuple(design.names.index(member) for member in bundled.get(name, (name,)))
        for name in design.names
        if bundled.get(name, (name,))[0] == name
    ]
    raw_N = design.outcome_N / scale
    return Task(design, ties, protocol, x_PF, owner_F, raw_N - easy_N / scale, raw_N, tuple(terms))


@dataclass(frozen=True)
class Attribution:
    """Fits of one target over seeds.

    Attributes
    ----------
    shap_PV : SHAP values, mean over seeds, in the model's unit.
    slope_SV, term_ST : slope of each variable, of each term, under each seed.
    level_TL : mean prediction at each level of each term's first variable, all else as it is (:func:`predicted`).
    r2_in_sample, r2_ceiling : share of variance the fit explains, and the most any function of the variables could.
    """

    shap_PV: Array
    slope_SV: Array
    term_ST: Array
    level_TL: tuple[Array, ...]
    r2_in_sample: float
    r2_ceiling: float


def seeds(job: Task) -> int:
    """Fits that are averaged: the protocol's number; fewer of a large design, where they hardly differ."""
    wanted = PROTOCOLS[job.protocol].seeds
    n_points = job.design.n_points
    return wanted if n_points <= SMALL else min(wanted, 5 if n_points <= LARGE else 2 if n_points <= 10 * LARGE else 1)


def each(function: Callable[[A], B], items: Iterable[A], *, job: Task, jobs: int) -> list[B]:
    """``function`` of each item, in order; of a large design in threads (LightGBM lets go of Python meanwhile)."""
    threads = (jobs or os.cpu_count() or 1) if job.design.n_points > SMALL and job.protocol == "default" else 1
    if threads == 1:
        return [function(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, items))


def attribute(job: Task, *, jobs: int = 1) -> Attribution:
    """Fit with every seed of the protocol and average."""
    n_points, weight_P = job.design.n_points, job.counts()
    threads = (jobs or os.cpu_count() or 1) if seeds(job) == 1 else 1

    def one(seed: int) -> tuple[Array, Array, Array, list[Array], float]:
        model = job.fit(seed)
        shap_PV = job.contributions(model, threads)
        score = r_squared(job.raw_N, model.predict(job.x_PF)[job.design.point_N])
        slopes_, terms_ = job.slopes(shap_PV, weight_P), job.term_slopes(shap_PV, weight_P)
        return shap_PV, slopes_, terms_, predicted(job, model, weight_P), score

    shaps, slopes, terms, levels, scores = zip(*each(one, range(seeds(job)), job=job, jobs=jobs), strict=True)
    _, mean_P = means(job.design.point_N, job.raw_N, np.ones(len(job.y_N)), n_points)
    return Attribution(
        shap_PV=np.mean(shaps, axis=0),
        slope_SV=np.array(slopes),
        term_ST=np.array(terms),
        level_TL=tuple(np.mean([own[k] for own in levels], axis=0) for k in range(len(job.terms))),
        r2_in_sample=float(np.mean(scores)),
        r2_ceiling=r_squared(job.raw_N, mean_P[job.design.point_N]),
    )


def predicted(job: Task, model: Model, weight_P: Array) -> list[Array]:
    """Mean prediction at each level of each term's first variable, the others as they are (g-computation).

    Variables that always change with it are set along; one that applies only under it is set to what stands there. Of
    a large design some points, drawn by weight, stand for all; of a variable of many levels the ends.
    """
    n_points = job.design.n_points
    chosen = np.flatnonzero(weight_P > 0)
    share_S = weight_P[chosen] / weight_P[chosen].sum()
    if len(chosen) > PREDICTED:
        chosen = np.random.default_rng(0).choice(n_points, PREDICTED, p=weight_P / weight_P.sum())
        share_S = np.full(PREDICTED, 1 / PREDICTED)
    found = []
    for term in job.terms:
        levels = set_codes(job.design, term[0])
        rows = [_set(job, chosen, term, code) for code in levels]
        values = model.predict(np.concatenate(rows)).reshape(len(levels), len(chosen)) if rows else np.zeros((0, 1))
        found.append(values @ share_S if rows else np.zeros(0))
    return found


def set_codes(design: Design, v: int) -> Array:
    """Codes at which a variable is set: its own, or of many levels the lowest and the highest."""
    codes = np.unique(design.code_PV[np.isfinite(design.code_PV[:, v]), v])
    return codes if len(codes) <= MOST_LEVELS or not design.variables[v].ordered else codes[[0, -1]]


def _set(job: Task, chosen: Index, term: tuple[int, ...], code: float) -> Array:
    """Features of the chosen points with a term set to one level of its first variable."""
    design, x_SF = job.design, job.x_PF[chosen].copy()
    there = np.flatnonzero(design.code_PV[:, term[0]] == code)
    for v in term:
        x_SF[:, job.owner_F == v] = job.x_PF[there[0]][job.owner_F == v]
    for name, giver in job.ties.nested.items():
        u = design.names.index(name)
        if giver != design.names[term[0]]:
            continue
        applies = np.isfinite(design.code_PV[there, u]).any()
        own = job.owner_F == u
        if not applies:
            x_SF[:, own] = job.x_PF[there[0]][own]
        else:
            gaps = np.isnan(design.code_PV[chosen, u])
            donors = there[np.isfinite(design.code_PV[there, u])]
            x_SF[np.ix_(gaps, own)] = job.x_PF[donors[np.arange(gaps.sum()) % len(donors)]][:, own]
    return x_SF
