"""What an embedding looks like, without labels.

Shapes: N images, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

_CHUNK = 8192  # rows converted to float32 at a time


def covariance(emb_ND: Tensor) -> Tensor:
    """Sample covariance of an embedding, accumulated in chunks around the mean, float64 (D, D)."""
    n, d = emb_ND.shape
    mean_D = torch.zeros(d, dtype=torch.float64, device=emb_ND.device)
    for part_ND in emb_ND.split(_CHUNK):
        mean_D += part_ND.double().sum(0)
    mean_D /= n
    total_DD = torch.zeros(d, d, dtype=torch.float64, device=emb_ND.device)
    for part_ND in emb_ND.split(_CHUNK):
        centred_ND = (part_ND.double() - mean_D).float()
        total_DD += (centred_ND.T @ centred_ND).double()
    return total_DD / max(n - 1, 1)


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
    values_D = torch.linalg.eigvalsh(covariance(emb_ND)).clamp_min(0)
    largest = values_D[-1]
    if largest <= 0:
        return 0
    return int((values_D > threshold * largest).sum())
