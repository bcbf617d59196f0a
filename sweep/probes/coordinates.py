"""Standardised embeddings in coordinates in which the Hessian of a probe's loss is about diagonal.

One decomposition per layer, of the smaller side, serves every penalty, every class and both fits. Of few images it is
that of their inner products: probes then live in the span of N images instead of in D numbers. Of narrow layers it is
that of the second moments. Of wide layers with many images a full one costs more than all fits: the coordinates stay,
and only the directions of most variance are known.

Shapes: N images, B images of a chunk, D width, C classes, K known directions, F numbers of an image in the new
coordinates: a one for the bias comes last but for zeros that fill up to a multiple of 4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_CHUNK = 1024  # rows converted to float64 at a time: they stay in the cache
_SPAN = 1024  # images up to which their span is used
_FULL = 512  # width up to which all directions are found
_KNOWN, _ROUNDS, _SAMPLE = 128, 2, 4096  # directions otherwise; subspace iterations for them; images they are found on
_ROUNDING = 16  # of float64, in units of a feature's mean, that a constant feature may vary by
_FILL = 4


@dataclass(frozen=True)
class Standard:
    """Mean 0 and variance 1 of every feature on a layer's training images, computed in float64.

    The moments are those of all training images, for the selection fit too: they know no labels, and both fits then
    share one decomposition. A constant feature becomes zero.
    """

    mean_D: Tensor
    scale_D: Tensor

    @classmethod
    def of(cls, emb_ND: Tensor, device: torch.device, *, scaled: bool = True) -> Standard:
        """Moments of an embedding of any float type; ``scaled`` False only centres."""
        n = len(emb_ND)
        mean_D = torch.stack([part_BD.to(device).double().sum(0) for part_BD in emb_ND.split(_CHUNK)]).sum(0) / n
        if not scaled:
            return cls(mean_D, torch.ones_like(mean_D))
        squares_D = torch.zeros_like(mean_D)
        for part_BD in emb_ND.split(_CHUNK):
            squares_D += (part_BD.to(device).double() - mean_D).square_().sum(0)
        std_D = (squares_D / n).sqrt()
        constant_D = std_D <= _ROUNDING * torch.finfo(torch.float64).eps * mean_D.abs()
        return cls(mean_D, torch.where(constant_D, 0, 1 / std_D))

    def rows(self, emb_BD: Tensor) -> Tensor:
        """Standardised float32 copies of some embeddings, on the device of the moments."""
        return (emb_BD.to(self.mean_D.device).double() - self.mean_D).mul_(self.scale_D).float()


@dataclass(frozen=True)
class Metric:
    """Second moments of the coordinates: a diagonal, and directions K besides where it does not hold all.

    Attributes
    ----------
    variance_F : of each coordinate; 1 for the bias. With ``known_FK`` the mean one outside of these directions.
    penalised_F : 1 where the penalty holds, 0 for the bias.
    known_FK, known_K : orthonormal directions and their variances; K may be 0.
    """

    variance_F: Tensor
    penalised_F: Tensor
    known_FK: Tensor
    known_K: Tensor


@dataclass(frozen=True)
class Coordinates:
    """One layer's training images, and how its probes get back to standardised embeddings.

    Attributes
    ----------
    z_NF : float32, in the order of ``images_N``.
    bias : which coordinate is the one.
    weight : (C, F) of a probe here → its (D, C) weights on standardised embeddings and its (C,) biases.
    """

    z_NF: Tensor
    bias: int
    metric: Metric
    weight: Callable[[Tensor], tuple[Tensor, Tensor]]


def size(n: int, width: int) -> int:
    """F of a layer."""
    used = n if _in_span(n, width) else width
    return -(-(used + 1) // _FILL) * _FILL


def _in_span(n: int, width: int) -> bool:
    return n < width and n <= _SPAN


def coordinates(emb_ND: Tensor, standard: Standard, images_N: Tensor, z_NF: Tensor) -> Coordinates:
    """Those of one layer.

    Parameters
    ----------
    images_N : order of the rows.
    z_NF : room for them, of :func:`size`.
    """
    n, width = emb_ND.shape
    z_NF.zero_()
    if _in_span(n, width):
        return _span(emb_ND, standard, images_N, z_NF)
    for rows_BF, images_B in zip(z_NF.split(_CHUNK), images_N.split(_CHUNK), strict=True):
        rows_BF[:, :width] = standard.rows(emb_ND.index_select(0, images_B.to(emb_ND.device)))
    if width <= _FULL:
        return _rotated(z_NF, width)
    return _partly_known(z_NF, width)


def _span(emb_ND: Tensor, standard: Standard, images_N: Tensor, z_NF: Tensor) -> Coordinates:
    """Inner products X Xᵀ = U S² Uᵀ: the images are U S, and weights w there are Xᵀ U S⁻¹ w."""
    n = len(emb_ND)
    x_ND = standard.rows(emb_ND.index_select(0, images_N.to(emb_ND.device)))
    double_ND = x_ND.double()  # products of float32 would lose directions of small variance, which are squared here
    squares_N, turn_NN = torch.linalg.eigh(double_ND @ double_ND.T)
    del double_ND
    floor = squares_N[-1] * n * torch.finfo(torch.float64).eps
    root_N = torch.where(squares_N > floor, squares_N, 0).sqrt()
    back_NN = (turn_NN * torch.where(root_N > 0, 1 / root_N, 0)).float()
    z_NF[:, :n] = turn_NN * root_N
    z_NF[:, n] = 1

    def weight(theta_CF: Tensor) -> tuple[Tensor, Tensor]:
        return x_ND.T @ (back_NN @ theta_CF[:, :n].T), theta_CF[:, n]

    return Coordinates(z_NF, n, _diagonal(root_N.square() / n, z_NF), weight)


def _rotated(z_NF: Tensor, width: int) -> Coordinates:
    """Eigenbasis of the second moments."""
    values_D, turn_DD = torch.linalg.eigh(_moments(z_NF[:, :width]))
    turn_DD = turn_DD.float()
    for rows_BF in z_NF.split(_CHUNK):
        rows_BF[:, :width] = rows_BF[:, :width] @ turn_DD
    z_NF[:, width] = 1

    def weight(theta_CF: Tensor) -> tuple[Tensor, Tensor]:
        return turn_DD @ theta_CF[:, :width].T, theta_CF[:, width]

    return Coordinates(z_NF, width, _diagonal(values_D.clamp_min(0), z_NF), weight)


def _moments(x_ND: Tensor) -> Tensor:
    """(D, D), float64 sums of float32 products."""
    moments_DD = torch.zeros(x_ND.shape[1], x_ND.shape[1], dtype=torch.float64, device=x_ND.device)
    for x_BD in x_ND.split(_CHUNK):
        moments_DD += x_BD.T @ x_BD
    return moments_DD / len(x_ND)


def _partly_known(z_NF: Tensor, width: int) -> Coordinates:
    """The coordinates as they are; directions of most variance by subspace iteration on some images."""
    x_ND = z_NF[:: -(-len(z_NF) // _SAMPLE), :width]
    known_DK = torch.randn(width, _KNOWN, generator=torch.Generator().manual_seed(0)).to(x_ND.device)
    for _ in range(_ROUNDS):
        known_DK = torch.linalg.qr(x_ND.T @ (x_ND @ known_DK)).Q
    y_NK = x_ND @ known_DK
    known_K, turn_KK = torch.linalg.eigh((y_NK.T @ y_NK).double() / len(x_ND))
    known_K = known_K.clamp_min(0)
    rest = (x_ND.square().sum(dtype=torch.float64) / len(x_ND) - known_K.sum()).clamp_min(0) / (width - _KNOWN)
    z_NF[:, width] = 1
    metric = _diagonal(rest.expand(width), z_NF)
    known_FK = z_NF.new_zeros(z_NF.shape[1], _KNOWN)
    known_FK[:width] = known_DK @ turn_KK.float()

    def weight(theta_CF: Tensor) -> tuple[Tensor, Tensor]:
        return theta_CF[:, :width].T, theta_CF[:, width]

    return Coordinates(z_NF, width, Metric(metric.variance_F, metric.penalised_F, known_FK, known_K.float()), weight)


def _diagonal(variance: Tensor, z_NF: Tensor) -> Metric:
    """Of the coordinates that are there, then 1 for the bias, then 0."""
    variance_F, penalised_F = z_NF.new_zeros(z_NF.shape[1]), z_NF.new_ones(z_NF.shape[1])
    variance_F[: len(variance)] = variance
    variance_F[len(variance)], penalised_F[len(variance)] = 1, 0
    return Metric(variance_F, penalised_F, z_NF.new_zeros(z_NF.shape[1], 0), z_NF.new_zeros(0))
