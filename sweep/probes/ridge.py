"""Ridge regression on one-hot labels: one eigendecomposition serves every strength of the penalty.

Shapes: N images, D width, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sweep.config import Probe
from sweep.probes.data import ProbeData, ProbeResult
from sweep.probes.exact import FitData, Linear, both_fits, result_of

_CHUNK = 8192  # rows whose products are summed in float32


@torch.inference_mode()
def fit_ridge(data: ProbeData, recipes: Sequence[Probe], layer: int) -> list[ProbeResult]:
    """Both fits of one layer for every strength.

    Minimises ½ mean ‖y − x W − b‖² + ½ λ ‖W‖² with λ the recipe's ``weight_decay``; the bias is not penalised. The
    scores stand for logits: their softmax is what the losses are computed from.

    Parameters
    ----------
    recipes : they differ in ``weight_decay``.
    """
    strengths = [recipe.weight_decay for recipe in recipes]
    selection, full = (_path(fit, strengths) for fit in both_fits(data, layer, recipes[0]))
    return [
        replace(result_of(data, layer, *fits), layer=layer, recipe=number)
        for number, fits in enumerate(zip(selection, full, strict=True))
    ]


def _path(fit: FitData, strengths: Sequence[float]) -> list[Linear]:
    """The probe of every strength: W = V (S + λ)⁻¹ Vᵀ Xᵀ Y / N with the covariance V S Vᵀ.

    Where there are fewer images than features it is Xᵀ U (S + λ)⁻¹ Uᵀ Y / N with X Xᵀ / N = U S Uᵀ: the same weights,
    by a decomposition of N × N.
    """
    n, d = fit.x_ND.shape
    few = n < d
    symmetric, cross_C = _gram(fit) if few else _moments(fit)
    values, vectors = torch.linalg.eigh(symmetric)
    # directions that are rounding alone would dominate a penalty near zero
    floor = values[-1].clamp_min(0) * d * torch.finfo(torch.float32).eps
    rotated_C = vectors.T @ cross_C
    share_C = torch.bincount(fit.labels_N, minlength=fit.classes).double() / n

    def solved(strength: float) -> Linear:
        scaled = values.clamp_min(0) + strength
        inverse = torch.where((values > floor) | (strength > floor), 1 / scaled, torch.zeros_like(scaled))
        weight_C = vectors @ (inverse[:, None] * rotated_C)
        return fit.linear(_of_features(fit, weight_C) if few else weight_C, share_C)

    return [solved(strength) for strength in strengths]


def _gram(fit: FitData) -> tuple[Tensor, Tensor]:
    """Products of the images' inputs (N, N), and the one-hot labels (N, C), both over N, float64."""
    n = len(fit.labels_N)
    one_hot_NC = torch.zeros(n, fit.classes, dtype=torch.float64, device=fit.x_ND.device)
    one_hot_NC.scatter_(1, fit.labels_N[:, None], 1 / n)
    x_ND = fit.x_ND.double()  # few: the rounding of float32 would show in directions that only the penalty holds
    return x_ND @ x_ND.T / n, one_hot_NC


def _of_features(fit: FitData, weight_NC: Tensor) -> Tensor:
    """Weights of features (D, C) from those of images."""
    weight_DC = weight_NC.new_zeros(fit.x_ND.shape[1], fit.classes)
    for x_BD, weight_BC in zip(fit.x_ND.split(_CHUNK), weight_NC.split(_CHUNK), strict=True):
        weight_DC += x_BD.T.double() @ weight_BC
    return weight_DC


def _moments(fit: FitData) -> tuple[Tensor, Tensor]:
    """Covariance of the inputs (D, D), and their covariance with the one-hot labels (D, C), float64."""
    n, d = fit.x_ND.shape
    covariance_DD = torch.zeros(d, d, dtype=torch.float64, device=fit.x_ND.device)
    sums_CD = torch.zeros(fit.classes, d, dtype=torch.float64, device=fit.x_ND.device)
    for x_BD, labels_B in zip(fit.x_ND.split(_CHUNK), fit.labels_N.split(_CHUNK), strict=True):
        covariance_DD += x_BD.T @ x_BD
        sums_CD.index_add_(0, labels_B, x_BD.double())
    return covariance_DD / n, sums_CD.T / n  # the inputs are centred: centring the labels changes nothing
