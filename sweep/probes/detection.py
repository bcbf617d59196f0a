"""Telling OOD images from ID ones by a score of each image: AUROC, FPR95, energy and k-NN distance.

Shapes: N ID images, M OOD images, B images of a chunk, D width, C classes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sweep.probes.data import LinearProbe

NEIGHBOURS = 50  # Sun et al. 2022: k of CIFAR
_CHUNK, _CELLS = 8192, 1 << 26  # images scored at once; distances held at once


def auroc(id_N: Tensor, ood_M: Tensor) -> float:
    """Chance that an ID image scores higher than an OOD one, a tie counting half: 0.5 if the scores tell nothing."""
    id_N, ood_M = id_N.double(), ood_M.double().sort().values
    below_N = torch.searchsorted(ood_M, id_N, right=False)
    through_N = torch.searchsorted(ood_M, id_N, right=True)
    return float((below_N + through_N).double().mean()) / (2 * len(ood_M))


def fpr95(id_N: Tensor, ood_M: Tensor) -> float:
    """Share of OOD images that pass for ID ones at the highest threshold that lets 95 % of the ID images pass."""
    threshold = id_N.sort(descending=True).values[math.ceil(0.95 * len(id_N) - 1e-9) - 1]
    return float((ood_M >= threshold).double().mean())


def energies(probe: LinearProbe, emb_ND: Tensor, device: torch.device) -> Tensor:
    """Negative free energy (Liu et al. 2020), ln Σ exp(score), of each image: high for ID ones (N,)."""
    found = []
    mean_D, scale_D, weight_DC, bias_C = (
        each.to(device).double() for each in (probe.mean_D, probe.scale_D, probe.weight_DC, probe.bias_C)
    )
    for part_BD in emb_ND.split(_CHUNK):
        x_BD = (part_BD.to(device).double() - mean_D) * scale_D
        found.append(torch.addmm(bias_C, x_BD, weight_DC).logsumexp(1).cpu())
    return torch.cat(found)


def nearness(bank_ND: Tensor, emb_MD: Tensor, device: torch.device, *, neighbours: int = NEIGHBOURS) -> Tensor:
    """Minus the distance to the k-th nearest image of a bank, all embeddings at length 1 (Sun et al. 2022) (M,).

    Parameters
    ----------
    bank_ND : embeddings of the ID training images.
    neighbours : k; all of the bank where it holds fewer.
    """
    bank_ND = unit(bank_ND.to(device).float())
    k = min(neighbours, len(bank_ND))
    found = []
    for part_BD in emb_MD.split(max(1, _CELLS // len(bank_ND))):
        cosines_BN = unit(part_BD.to(device).float()) @ bank_ND.T
        kth_B = cosines_BN.topk(k, dim=1).values[:, -1]
        found.append(-(2 - 2 * kth_B).clamp_min(0).sqrt().cpu())
    return torch.cat(found)


def unit(emb_ND: Tensor) -> Tensor:
    """Embeddings at length 1; one of length 0 stays."""
    return emb_ND / emb_ND.norm(dim=1, keepdim=True).clamp_min(torch.finfo(emb_ND.dtype).tiny)
