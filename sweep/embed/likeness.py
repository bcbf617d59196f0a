"""Linear CKA between any two layers (Kornblith et al. 2019), plain and from unbiased HSIC.

The matrix of all layers needs every layer's Gram matrix at once, so it is of a draw of images where there are many;
the debiased number does not depend on how many they are (Nguyen et al. 2021).

Shapes: N images, M images drawn, D width, L layers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sweep.base.seeds import derive_seed
from sweep.embed.statistics import unbiased_hsic

MOST_IMAGES = 2048
_ROWS = 64  # of the Gram matrices whose products are summed in one go, in float32


@dataclass(frozen=True)
class Likeness:
    """Of two layers, by place from 0; None where one is not finite or constant, debiased also below 4 images."""

    one: int
    other: int
    cka: float | None
    cka_debiased: float | None


def likeness(train: Sequence[Tensor], *, seed: int, device: torch.device) -> list[Likeness]:
    """CKA of every pair of layers, ``one`` before ``other``.

    Parameters
    ----------
    train : one (N, D) tensor per layer, any float type, on any device.
    seed : of the draw of at most :data:`MOST_IMAGES` images.
    """
    grams = [_gram(emb_ND, seed, device) for emb_ND in train]
    at = [layer for layer, gram_MM in enumerate(grams) if gram_MM is not None]
    finite = [gram_MM for gram_MM in grams if gram_MM is not None]
    cross_LL = _products(finite)
    squares = [gram_MM.diagonal().double() for gram_MM in finite]
    place = {layer: number for number, layer in enumerate(at)}
    found = []
    for one in range(len(train)):
        for other in range(one + 1, len(train)):
            if one not in place or other not in place:
                found.append(Likeness(one, other, None, None))
                continue
            i, j = place[one], place[other]
            crosses = (float(cross_LL[i, j]), float(cross_LL[i, i]), float(cross_LL[j, j]))
            found.append(Likeness(one, other, _plain(*crosses), _debiased(crosses, squares[i], squares[j])))
    return found


def _gram(emb_ND: Tensor, seed: int, device: torch.device) -> Tensor | None:
    """Gram matrix of the drawn images' deviations from their mean, float32; None if it is not finite."""
    n = len(emb_ND)
    if n > MOST_IMAGES:
        generator = torch.Generator().manual_seed(derive_seed("cka", seed, n))
        drawn_M = torch.randperm(n, generator=generator)[:MOST_IMAGES].sort().values
        emb_ND = emb_ND[drawn_M.to(emb_ND.device)]
    x_MD = emb_ND.to(device).double()
    x_MD = x_MD - x_MD.mean(0)
    scale = x_MD.abs().max() if len(x_MD) else x_MD.new_zeros(())
    if not torch.isfinite(scale):
        return None
    x_MD = (x_MD / scale if scale > 0 else x_MD).float()  # CKA knows no scale, float32 does
    return x_MD @ x_MD.T


def _products(grams: Sequence[Tensor]) -> Tensor:
    """Sum of the products of any two Gram matrices' entries (L, L), float64."""
    if not grams:
        return torch.zeros(0, 0, dtype=torch.float64)
    total_LL = torch.zeros(len(grams), len(grams), dtype=torch.float64, device=grams[0].device)
    for start in range(0, len(grams[0]), _ROWS):
        part_LX = torch.stack([gram_MM[start : start + _ROWS].reshape(-1) for gram_MM in grams])
        total_LL += (part_LX @ part_LX.T).double()
    return total_LL.cpu()


def _plain(cross: float, own: float, others: float) -> float | None:
    return cross / math.sqrt(own * others) if own > 0 and others > 0 else None


def _debiased(crosses: tuple[float, float, float], squares_M: Tensor, others_M: Tensor) -> float | None:
    if len(squares_M) < 4:
        return None
    cross, own, others = crosses
    mine, theirs = unbiased_hsic(own, squares_M, squares_M), unbiased_hsic(others, others_M, others_M)
    if mine <= 0 or theirs <= 0:
        return None
    return unbiased_hsic(cross, squares_M, others_M) / math.sqrt(mine * theirs)
