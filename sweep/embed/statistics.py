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
    device, last = labels_N.device, len(train) - 1
    ends = {at: _centred(train[at], device) for at in (0, last)}
    measured = {at: _accumulate(own, labels_N, classes) if own else None for at, own in ends.items()}
    found: list[Statistics | None] = []
    for at, emb_ND in enumerate(train):  # of the others one at a time is held
        own = ends[at] if at in ends else _centred(emb_ND, device)
        if own is None:
            found.append(None)
            continue
        moments = measured[at] if at in ends else _accumulate(own, labels_N, classes)
        assert moments is not None
        found.append(_summary(moments, measured[0], measured[last], threshold))
    return found


def moments_bytes(n: int, widths: Sequence[int]) -> int:
    """Memory that :func:`layer_statistics` takes besides embeddings: moments of the first, the last and another layer,
    a copy of these for their eigenvalues, and what is between two layers.

    Parameters
    ----------
    n, widths : images, and numbers of an embedding, layer by layer.
    """
    ends = [widths[0], widths[-1]]

    def own(d: int) -> int:
        return torch.float64.itemsize * min(n, d) ** 2

    def between(d: int, e: int) -> int:
        return 0 if n < min(d, e) else torch.float64.itemsize * d * e

    return sum(map(own, ends)) + max(2 * own(d) + max(between(d, e) for e in ends) for d in widths)


@dataclass(frozen=True)
class _Centred:
    """An embedding, wherever it lies, as deviations from its mean, brought to a device a chunk at a time."""

    emb_ND: Tensor
    mean_D: Tensor

    def chunk(self, start: int) -> Tensor:
        part_BD = self.emb_ND[start : start + _CHUNK].to(self.mean_D.device, non_blocking=True)
        return part_BD.float() - self.mean_D.float()

    @property
    def starts(self) -> range:
        return range(0, len(self.emb_ND), _CHUNK)


def _centred(emb_ND: Tensor, device: torch.device) -> _Centred | None:
    """An embedding around its mean; None if it is not finite."""
    n, d = emb_ND.shape
    sum_D = torch.zeros(d, dtype=torch.float64, device=device)
    for part_BD in emb_ND.split(_CHUNK):
        part_BD = part_BD.to(device, non_blocking=True)
        low, high = torch.aminmax(part_BD)  # both are NaN if any number is
        if not (torch.isfinite(low) and torch.isfinite(high)):
            return None
        sum_D += part_BD.sum(0, dtype=torch.float64)
    return _Centred(emb_ND, sum_D / n)


@dataclass(frozen=True)
class _Moments:
    """Second moments of one layer, float64.

    Attributes
    ----------
    own : the embedding that they are of.
    second : the scatter, (D, D): sum over images of the outer product of deviations from the mean; where there are
        fewer images than numbers the Gram matrix, (N, N), of the same eigenvalues but for zeros.
    squares_N : squared distance of each image from the mean.
    class_sums_CD : summed deviations of each class.
    counts_C : images of each class.
    """

    own: _Centred
    second: Tensor
    squares_N: Tensor
    class_sums_CD: Tensor
    counts_C: Tensor

    @property
    def is_gram(self) -> bool:
        return _is_gram(self.own)


def _is_gram(own: _Centred) -> bool:
    n, d = own.emb_ND.shape
    return n < d


def _second(own: _Centred) -> Tensor:
    """The smaller of scatter and Gram matrix."""
    n, d = own.emb_ND.shape
    if not _is_gram(own):
        scatter_DD = own.mean_D.new_zeros(d, d)  # float64, on its device
        for start in own.starts:
            x_BD = own.chunk(start)
            scatter_DD += x_BD.T @ x_BD
        return scatter_DD
    gram_NN = own.mean_D.new_empty(n, n)
    for start in own.starts:
        x_BD = own.chunk(start)
        for other in own.starts:
            gram_NN[start : start + _CHUNK, other : other + _CHUNK] = x_BD @ own.chunk(other).T
    return gram_NN


def _accumulate(own: _Centred, labels_N: Tensor, classes: int) -> _Moments:
    n, d = own.emb_ND.shape
    double = own.mean_D  # new tensors share its type, float64, and its device
    class_sums_CD, squares_N = double.new_zeros(classes, d), double.new_empty(n)
    for start in own.starts:
        x_BD, part = own.chunk(start), slice(start, start + _CHUNK)
        squares_N[part] = (x_BD * x_BD).sum(1)
        class_sums_CD += x_BD.new_zeros(classes, d).index_add_(0, labels_N[part], x_BD)
    counts_C = torch.bincount(labels_N, minlength=classes).double()
    return _Moments(own, _second(own), squares_N, class_sums_CD, counts_C)


def _cross(own: _Moments, other: _Moments) -> float:
    """Squared Frobenius norm of the scatter between two layers."""
    if own.own.emb_ND is other.own.emb_ND:
        return float(own.second.square().sum())
    if own.is_gram and other.is_gram:
        return float((own.second * other.second).sum())
    cross_DE = own.second.new_zeros(own.own.emb_ND.shape[1], other.own.emb_ND.shape[1])
    for start in own.own.starts:
        cross_DE += own.own.chunk(start).T @ other.own.chunk(start)
    return float(cross_DE.square().sum())


def _summary(own: _Moments, first: _Moments | None, last: _Moments | None, threshold: float) -> Statistics:
    n = len(own.squares_N)
    within, between, nc1 = _collapse(own)
    pairs = [(None if other is None else _cross(own, other), other) for other in (first, last)]
    plain = [_cka(own, other, cross) for cross, other in pairs]
    debiased = [_cka_debiased(own, other, cross) for cross, other in pairs]
    rank = _rank(own.second / max(n - 1, 1), threshold)
    return Statistics(rank, plain[0], plain[1], debiased[0], debiased[1], within, between, nc1)


def _cka(own: _Moments, other: _Moments | None, cross: float | None) -> float | None:
    if other is None or cross is None:
        return None
    scale = float(own.second.norm() * other.second.norm())
    return cross / scale if scale > 0 else None


def _cka_debiased(own: _Moments, other: _Moments | None, cross: float | None) -> float | None:
    if other is None or cross is None or len(own.squares_N) < 4:
        return None
    mine = unbiased_hsic(float(own.second.square().sum()), own.squares_N, own.squares_N)
    theirs = unbiased_hsic(float(other.second.square().sum()), other.squares_N, other.squares_N)
    if mine <= 0 or theirs <= 0:
        return None
    return unbiased_hsic(cross, own.squares_N, other.squares_N) / math.sqrt(mine * theirs)


def unbiased_hsic(cross: float, squares_N: Tensor, others_N: Tensor) -> float:
    """Unbiased HSIC of two linear kernels, up to a factor that CKA divides out (Song et al. 2012, eq. 5).

    Of centred embeddings the rows of K sum to zero, so that with the diagonal removed 1ᵀK̃ = −diag(K), and the
    three terms of the estimator need no N × N matrix.
    """
    n = len(squares_N)
    diagonal = float(squares_N @ others_N)
    total = float(squares_N.sum() * others_N.sum())
    return cross - diagonal + total / ((n - 1) * (n - 2)) - 2 * diagonal / (n - 2)


def first_collapse(emb_ND: Tensor, labels_N: Tensor, *, classes: int) -> float | None:
    """NC1 of one finite layer, see :class:`Statistics`; the work is done where the labels are."""
    own = _centred(emb_ND, labels_N.device)
    return None if own is None else _collapse(_accumulate(own, labels_N, classes))[2]


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
    within = max(float(own.second.trace()) / n - between, 0.0)
    values_C, vectors_CC = torch.linalg.eigh(gram_CC)
    kept_C = values_C > _COLLAPSED * values_C[-1]
    if between <= 0 or not kept_C.any():
        return within, between, None
    # Σ_W = Σ − Σ_B, and Σ_B⁺ in the span of the class means: tr(Σ_W Σ_B⁺) = Σ_k uₖᵀ M Σ Mᵀ uₖ / λₖ² − 1
    spread_CD = vectors_CC.T @ means_CD
    total_C = _along(own, spread_CD) / n
    ratios_C = total_C[kept_C] / values_C[kept_C].square() - 1
    return within, between, max(float(ratios_C.sum()) / len(values_C), 0.0)


def _along(own: _Moments, spread_CD: Tensor) -> Tensor:
    """Summed squares of all deviations along some directions, not of length 1, (C,)."""
    if not own.is_gram:
        return ((spread_CD @ own.second) * spread_CD).sum(1)
    sums_C = spread_CD.new_zeros(len(spread_CD))
    for start in own.own.starts:
        sums_C += (own.own.chunk(start).double() @ spread_CD.T).square().sum(0)
    return sums_C


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
    mean_D = emb_ND.mean(0, dtype=torch.float64)
    return _rank(_second(_Centred(emb_ND, mean_D)) / max(len(emb_ND) - 1, 1), threshold)


def _rank(second: Tensor, threshold: float) -> int:
    """Of a covariance, or of a Gram matrix with the same eigenvalues."""
    values_D = torch.linalg.eigvalsh(second).clamp_min(0)
    largest = values_D[-1]
    if largest <= 0:
        return 0
    return int((values_D > threshold * largest).sum())
