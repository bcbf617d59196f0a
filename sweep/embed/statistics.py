"""What an embedding looks like: numerical rank, likeness to other layers, neural collapse.

Everything follows from first and second moments, which one read of the embeddings accumulates; images are never
sent through the backbone for it.

Shapes: N images, B images of a chunk, D and E widths of two layers, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_CHUNK = 8192  # rows converted to float32 at a time
_COLLAPSED = 1e-10  # share of the largest between-class variance below which a direction is rounding (float32 sums)


@dataclass(frozen=True)
class Statistics:
    """Of one layer's embeddings; None where a number is not defined (see :func:`layer_statistics`).

    Attributes
    ----------
    rank : numerical rank of the covariance ([M23]).
    cka_first, cka_last : linear CKA with the first and the last layer, in [0, 1] (Kornblith et al. 2019).
    cka_first_debiased, cka_last_debiased : the same from unbiased HSIC; comparable between datasets of different
        size, about 0 for unrelated layers, may leave [0, 1].
    within_variance, between_variance : traces of the covariance within classes and of the class means.
    nc1 : tr(Σ_W Σ_B⁺) / C, neural collapse 1 (Papyan, Han and Donoho 2020); 0 is collapsed.
    """

    rank: int
    cka_first: float | None
    cka_last: float | None
    cka_first_debiased: float | None
    cka_last_debiased: float | None
    within_variance: float
    between_variance: float
    nc1: float | None


def layer_statistics(
    train: Sequence[Tensor], labels_N: Tensor, *, classes: int, threshold: float = 1e-3
) -> list[Statistics | None]:
    """Statistics of every layer's training embeddings.

    Parameters
    ----------
    train : one (N, D) tensor per layer, any float type, on any device.
    labels_N : int64 class ids in [0, classes), on the device that does the work.
    threshold : of the numerical rank, see :func:`numerical_rank`.

    Returns
    -------
    one entry per layer: None if its embeddings are not all finite. CKA is None if the other layer is not finite
    or either is constant (debiased also below four images), NC1 if the class means are equal.
    """
    last = len(train) - 1
    ends = {at: _centred(train[at], labels_N.device) for at in (0, last)}
    moments = []
    for at, emb_ND in enumerate(train):
        own = ends[at] if at in ends else _centred(emb_ND, labels_N.device)
        moments.append(None if own is None else _accumulate(own, [ends[0], ends[last]], labels_N, classes))
    return [_summary(own, moments[0], moments[-1], threshold) if own is not None else None for own in moments]


@dataclass(frozen=True)
class _Centred:
    """An embedding as deviations from its mean, converted a chunk at a time."""

    emb_ND: Tensor
    mean_D: Tensor

    def chunk(self, start: int) -> Tensor:
        return self.emb_ND[start : start + _CHUNK].float() - self.mean_D.float()


def _centred(emb_ND: Tensor, device: torch.device) -> _Centred | None:
    """An embedding on the device, around its mean; None if it is not finite."""
    emb_ND = emb_ND.to(device)
    low, high = torch.aminmax(emb_ND)  # both are NaN if any number is
    return _Centred(emb_ND, _mean(emb_ND)) if torch.isfinite(low) and torch.isfinite(high) else None


@dataclass(frozen=True)
class _Moments:
    """Second moments of one layer, float64.

    Attributes
    ----------
    scatter_DD : sum over images of the outer product of deviations from the mean.
    squares_N : squared distance of each image from the mean.
    cross : squared Frobenius norm of the scatter between this layer and the first, and the last; None: no such layer.
    class_sums_CD : summed deviations of each class.
    counts_C : images of each class.
    """

    scatter_DD: Tensor
    squares_N: Tensor
    cross: tuple[float | None, float | None]
    class_sums_CD: Tensor
    counts_C: Tensor


def _mean(emb_ND: Tensor) -> Tensor:
    n, d = emb_ND.shape
    sum_D = torch.zeros(d, dtype=torch.float64, device=emb_ND.device)
    for part_BD in emb_ND.split(_CHUNK):
        sum_D += part_BD.sum(0, dtype=torch.float64)
    return sum_D / n


def _accumulate(own: _Centred, others: Sequence[_Centred | None], labels_N: Tensor, classes: int) -> _Moments:
    """One read of a layer, and beside it of the first and the last."""
    n, d = own.emb_ND.shape
    double = own.mean_D  # new tensors share its type, float64, and its device
    scatter_DD, class_sums_CD, squares_N = double.new_zeros(d, d), double.new_zeros(classes, d), double.new_empty(n)
    crosses = [
        double.new_zeros(d, other.emb_ND.shape[1]) if other is not None and other.emb_ND is not own.emb_ND else None
        for other in others
    ]
    for start in range(0, n, _CHUNK):
        x_BD, part = own.chunk(start), slice(start, start + _CHUNK)
        scatter_DD += x_BD.T @ x_BD
        squares_N[part] = (x_BD * x_BD).sum(1)
        class_sums_CD += x_BD.new_zeros(classes, d).index_add_(0, labels_N[part], x_BD)
        for cross_DE, other in zip(crosses, others, strict=True):
            if cross_DE is not None and other is not None:
                cross_DE += x_BD.T @ other.chunk(start)
    norms = [
        None if other is None else float((scatter_DD if cross_DE is None else cross_DE).square().sum())
        for cross_DE, other in zip(crosses, others, strict=True)
    ]
    counts_C = torch.bincount(labels_N, minlength=classes).double()
    return _Moments(scatter_DD, squares_N, (norms[0], norms[1]), class_sums_CD, counts_C)


def _summary(own: _Moments, first: _Moments | None, last: _Moments | None, threshold: float) -> Statistics:
    n = len(own.squares_N)
    within, between, nc1 = _collapse(own)
    pairs = [(own.cross[0], first), (own.cross[1], last)]
    plain = [_cka(own, other, cross) for cross, other in pairs]
    debiased = [_cka_debiased(own, other, cross) for cross, other in pairs]
    rank = _rank(own.scatter_DD / max(n - 1, 1), threshold)
    return Statistics(rank, plain[0], plain[1], debiased[0], debiased[1], within, between, nc1)


def _cka(own: _Moments, other: _Moments | None, cross: float | None) -> float | None:
    if other is None or cross is None:
        return None
    scale = float(own.scatter_DD.norm() * other.scatter_DD.norm())
    return cross / scale if scale > 0 else None


def _cka_debiased(own: _Moments, other: _Moments | None, cross: float | None) -> float | None:
    if other is None or cross is None or len(own.squares_N) < 4:
        return None
    mine = _hsic(float(own.scatter_DD.square().sum()), own.squares_N, own.squares_N)
    theirs = _hsic(float(other.scatter_DD.square().sum()), other.squares_N, other.squares_N)
    if mine <= 0 or theirs <= 0:
        return None
    return _hsic(cross, own.squares_N, other.squares_N) / math.sqrt(mine * theirs)


def _hsic(cross: float, squares_N: Tensor, others_N: Tensor) -> float:
    """Unbiased HSIC of two linear kernels, up to a factor that CKA divides out (Song et al. 2012, eq. 5).

    Of centred embeddings the rows of K sum to zero, so that with the diagonal removed 1ᵀK̃ = −diag(K), and the
    three terms of the estimator need no N × N matrix.
    """
    n = len(squares_N)
    diagonal = float(squares_N @ others_N)
    total = float(squares_N.sum() * others_N.sum())
    return cross - diagonal + total / ((n - 1) * (n - 2)) - 2 * diagonal / (n - 2)


def _collapse(own: _Moments) -> tuple[float, float, float | None]:
    """Variance within and between classes, each class weighted by its images so that the two add up, and NC1."""
    n = len(own.squares_N)
    present_C = own.counts_C > 0
    counts_C1 = own.counts_C[present_C].unsqueeze(1)
    # deviations are from a mean rounded to float32; what is left of it would pass for a direction between classes
    means_CD = own.class_sums_CD[present_C] / counts_C1 - own.class_sums_CD.sum(0) / n
    means_CD *= (counts_C1 / n).sqrt()
    gram_CC = means_CD @ means_CD.T
    between = float(gram_CC.trace())
    within = max(float(own.scatter_DD.trace()) / n - between, 0.0)
    values_C, vectors_CC = torch.linalg.eigh(gram_CC)
    kept_C = values_C > _COLLAPSED * values_C[-1]
    if between <= 0 or not kept_C.any():
        return within, between, None
    # Σ_W = Σ − Σ_B, and Σ_B⁺ in the span of the class means: tr(Σ_W Σ_B⁺) = Σ_k uₖᵀ M Σ Mᵀ uₖ / λₖ² − 1
    spread_CD = vectors_CC.T @ means_CD
    total_C = ((spread_CD @ own.scatter_DD) * spread_CD).sum(1) / n
    ratios_C = total_C[kept_C] / values_C[kept_C].square() - 1
    return within, between, max(float(ratios_C.sum()) / len(values_C), 0.0)


def covariance(emb_ND: Tensor) -> Tensor:
    """Sample covariance of an embedding, accumulated in chunks around the mean, float64 (D, D)."""
    n, d = emb_ND.shape
    centred = _Centred(emb_ND, _mean(emb_ND))
    scatter_DD = torch.zeros(d, d, dtype=torch.float64, device=emb_ND.device)
    for start in range(0, n, _CHUNK):
        x_BD = centred.chunk(start)
        scatter_DD += x_BD.T @ x_BD
    return scatter_DD / max(n - 1, 1)


def numerical_rank(emb_ND: Tensor, *, threshold: float = 1e-3) -> int:
    """Numerical rank ([M23]): singular values of the sample covariance above ``threshold`` × the largest.

    Parameters
    ----------
    emb_ND : (N, D) embeddings, any float type.
    threshold : share of the largest singular value.

    Returns
    -------
    rank, between 0 (all embeddings equal) and D.
    """
    return _rank(covariance(emb_ND), threshold)


def _rank(covariance_DD: Tensor, threshold: float) -> int:
    values_D = torch.linalg.eigvalsh(covariance_DD).clamp_min(0)
    largest = values_D[-1]
    if largest <= 0:
        return 0
    return int((values_D > threshold * largest).sum())
