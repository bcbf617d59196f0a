"""How many directions an embedding uses: RankMe, entropy of the spectrum, share of variance in the first ones.

Shapes: N images, D width, S singular values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_CHUNK = 4096  # rows in float64 at a time: small singular values are the square roots of small eigenvalues
_EPSILON = 1e-7  # Garrido et al. 2023, eq. 1


@dataclass(frozen=True)
class Spectrum:
    """Of one layer's embeddings.

    Attributes
    ----------
    rankme : exp of the entropy of the singular values of the embeddings as they are, each over their sum (Garrido et
        al. 2023; the effective rank of Roy and Vetterli 2007 but for ε).
    spectral_entropy : entropy of the eigenvalues of the covariance, each over their sum, nats; None if all images are
        equal.
    top_share : share of the variance in as many directions as there are classes, the largest first; likewise.
    """

    rankme: float
    spectral_entropy: float | None
    top_share: float | None


def spectrum(emb_ND: Tensor, *, classes: int, device: torch.device) -> Spectrum | None:
    """Spectrum of one layer's embeddings; None if they are not finite.

    Parameters
    ----------
    emb_ND : any float type, on any device; the work is done on ``device`` in float64, a chunk of images at a time.
    classes : directions that ``top_share`` counts.
    """
    if not torch.isfinite(emb_ND).all():
        return None
    n = len(emb_ND)
    second, mean = _second(emb_ND, device)
    values_S = torch.linalg.eigvalsh(second).clamp_min(0)
    rankme = math.exp(_entropy(values_S.sqrt(), epsilon=_EPSILON)) if values_S[-1] > 0 else 1.0
    centred = second - mean * n if second.shape[0] == emb_ND.shape[1] else _centred_gram(second)
    variances_S = torch.linalg.eigvalsh(centred).clamp_min(0).flip(0)
    if variances_S[0] <= torch.finfo(torch.float64).eps * n * float(values_S[-1]):  # all equal, but for rounding
        return Spectrum(rankme, None, None)
    top = variances_S[:classes].sum() / variances_S.sum()
    return Spectrum(rankme, _entropy(variances_S), float(top))


def _second(emb_ND: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """The smaller of X ᵀX and X Xᵀ, float64, and the outer product of the mean (of X ᵀX only)."""
    n, d = emb_ND.shape
    if n < d:
        x_ND = emb_ND.to(device).double()
        return x_ND @ x_ND.T, x_ND.new_zeros(())
    second_DD, sum_D = (torch.zeros(*shape, dtype=torch.float64, device=device) for shape in ((d, d), (d,)))
    for part_BD in emb_ND.split(_CHUNK):
        x_BD = part_BD.to(device).double()
        second_DD += x_BD.T @ x_BD
        sum_D += x_BD.sum(0)
    return second_DD, torch.outer(sum_D, sum_D) / n**2


def _centred_gram(gram_NN: Tensor) -> Tensor:
    """The Gram matrix of deviations from the mean."""
    row_N = gram_NN.mean(0)
    return gram_NN - row_N - row_N[:, None] + row_N.mean()


def _entropy(values_S: Tensor, *, epsilon: float = 0.0) -> float:
    """Entropy of values over their sum, nats."""
    shares_S = values_S / values_S.sum() + epsilon
    return float(torch.special.entr(shares_S).sum())
