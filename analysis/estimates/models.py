"""The boosted trees of both protocols, and their SHAP values: fitted to design points, asked about design points.

Legend: N experiments, F features, P design points.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import lightgbm
import numpy as np
from sklearn.ensemble import GradientBoostingRegressor

from analysis.design.points import Index, totals
from analysis.tables.variables import Array

CHUNK = 20_000  # design points whose contributions are computed at a time

# For small tables: shallow trees; leaves are bounded by the experiments in them, not by design points (a leaf of one
# point must be possible); no row sampling; half the features per split, so that confounded variables share. L2:
# LightGBM's Huber takes an absolute threshold and is L2 for outcomes in [0, 1] anyway, and L2 is exact on points.
LIGHTGBM: Mapping[str, object] = {
    "objective": "regression",
    "num_leaves": 6,
    "max_depth": 3,
    "learning_rate": 0.1,
    "min_data_in_leaf": 0,  # LightGBM estimates a leaf's rows from weights: 1 would refuse light design points
    "min_data_in_bin": 1,
    "min_sum_hessian_in_leaf": 1e-3,
    "feature_fraction_bynode": 0.5,
    "feature_pre_filter": False,
    "boost_from_average": True,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbosity": -1,
}

ROUNDS = 100


class Model(Protocol):
    """A fitted model: answers for design points, whatever column order it was fitted in."""

    def predict(self, x_PF: Array) -> Array:
        """Predictions (P,)."""

    def contributions(self, x_PF: Array, threads: int = 1) -> Array:
        """Path-dependent (conditional) SHAP values (P, F); they do not depend on the threads."""

    def interventional(self, x_PF: Array, background_BF: Array) -> Array:
        """Interventional SHAP values against a background (P, F)."""

    def interactions(self, x_PF: Array) -> Array:
        """SHAP interaction values (P, F, F); a row of the last two axes sums to the feature's SHAP value."""


@dataclass(frozen=True)
class Data:
    """What a model is fitted to: features of the points, and the experiments' outcomes and weights.

    A weight is how often a resample drew the experiment.
    """

    x_PF: Array
    point_N: Index
    y_N: Array
    weight_N: Array


Fit = Callable[[Data, int], Model]


def _explainer(*arguments: Any, **options: Any) -> Any:
    """SHAP's tree explainer, imported where it is needed: worker processes of the default protocol do without."""
    with warnings.catch_warnings():
        # shap's plotting module, which is not used here, calls functions that other libraries have deprecated
        warnings.simplefilter("ignore")
        import shap
    return shap.TreeExplainer(*arguments, **options)


class _Trees:
    """What both models share: features permuted by the seed, so that ties do not fall by column order."""

    def __init__(self, n_features: int, seed: int) -> None:
        self._order = np.random.default_rng(seed).permutation(n_features)
        self._back = np.argsort(self._order)
        self._model: Any = None

    def predict(self, x_PF: Array) -> Array:
        return np.asarray(self._model.predict(x_PF[:, self._order]), dtype=float)

    def contributions(self, x_PF: Array, threads: int = 1) -> Array:
        values = _explainer(self._model).shap_values(x_PF[:, self._order])
        return np.asarray(values, dtype=float)[:, self._back]

    def interventional(self, x_PF: Array, background_BF: Array) -> Array:
        explainer = _explainer(self._model, data=background_BF[:, self._order], feature_perturbation="interventional")
        values = explainer.shap_values(x_PF[:, self._order], check_additivity=False)
        return np.asarray(values, dtype=float)[:, self._back]

    def interactions(self, x_PF: Array) -> Array:
        values = _explainer(self._model).shap_interaction_values(x_PF[:, self._order])
        return np.asarray(values, dtype=float)[:, self._back][:, :, self._back]


class _LightGBM(_Trees):
    """LightGBM on design points."""

    def __init__(self, data: Data, seed: int) -> None:
        super().__init__(data.x_PF.shape[1], seed)
        weight_P, mean_P = means(data.point_N, data.y_N, data.weight_N, len(data.x_PF))
        used = weight_P > 0
        settings = {**LIGHTGBM, "seed": seed}
        inputs_PF = data.x_PF[used][:, self._order]
        matrix = lightgbm.Dataset(inputs_PF, mean_P[used], weight=weight_P[used], params=settings)
        self._model = lightgbm.Booster(settings, matrix)
        for _ in range(ROUNDS):  # lightgbm.train would serialise the model once more: half of a small fit's time
            if self._model.update():
                break

    def predict(self, x_PF: Array) -> Array:
        return np.asarray(self._model.predict(x_PF[:, self._order], num_threads=1), dtype=float)

    def contributions(self, x_PF: Array, threads: int = 1) -> Array:
        result = np.empty_like(x_PF)
        for start in range(0, len(x_PF), CHUNK):
            rows = x_PF[start : start + CHUNK, self._order]
            values = self._model.predict(rows, pred_contrib=True, num_threads=threads)
            result[start : start + CHUNK] = values[:, self._back]
        return result


class _Paper(_Trees):
    """[H24] A.9: scikit-learn's gradient boosting with Huber loss, fitted to every experiment."""

    def __init__(self, data: Data, seed: int) -> None:
        super().__init__(data.x_PF.shape[1], seed)
        rows = np.repeat(np.arange(len(data.y_N)), np.round(data.weight_N).astype(int))
        self._model = GradientBoostingRegressor(loss="huber", random_state=seed)
        self._model.fit(data.x_PF[data.point_N[rows]][:, self._order], data.y_N[rows])


@dataclass(frozen=True)
class Recipe:
    """How outcomes are attributed: which model, with how many repetitions by default."""

    fit: Fit
    one_hot: bool
    seeds: int
    resamples: int
    text: str


PROTOCOLS: Mapping[str, Recipe] = {
    "default": Recipe(
        _LightGBM, False, 20, 500,
        f"LightGBM, squared error, {ROUNDS} trees of depth ≤ {LIGHTGBM['max_depth']}, fitted to design points weighted "
        "by their experiments; path-dependent SHAP values",
    ),
    "paper": Recipe(
        _Paper, True, 10, 30,
        "the paper's model: scikit-learn GradientBoostingRegressor, Huber loss, one-hot categories; "
        "path-dependent SHAP",
    ),
}  # fmt: skip


def means(point_N: Index, y_N: Array, weight_N: Array, n_points: int) -> tuple[Array, Array]:
    """Weight and weighted mean outcome of each design point; the mean is 0 where the weight is (P,), (P,)."""
    weight_P = totals(point_N, weight_N, n_points)
    total_P = totals(point_N, weight_N * y_N, n_points)
    return weight_P, total_P / np.where(weight_P > 0, weight_P, 1.0)
