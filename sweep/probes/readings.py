"""Readings of a layer beside the linear probe: k nearest neighbours, nearest class mean, a few images per class.

Each gives the class it would say of every image; :func:`shares_right` makes accuracies of that. Neighbours and few
images are looked at around the mean of all training images and at length 1 (CL2N of Wang et al. 2019, SimpleShot): what
all images of a layer have in common, which before a batch norm is most of them, would else hide how they differ.

Shapes: N training images, M images to read, B of a chunk, D width, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sweep.config import Probe
from sweep.probes.detection import unit
from sweep.probes.exact import FitData
from sweep.probes.lbfgs import regression

NEIGHBOURS = 20
_CHUNK, _CELLS = 8192, 1 << 26  # images at once; distances held at once


@dataclass(frozen=True)
class Right:
    """Shares in [0, 1]: of images whose class was said, and the mean of that over the classes that have images."""

    top1: float
    per_class: float


def shares_right(right_M: Tensor, labels_M: Tensor, *, classes: int) -> Right | None:
    """Accuracies from which images were right (bool); None without images."""
    if not len(labels_M):
        return None
    counts_C = torch.bincount(labels_M, minlength=classes).double()
    hits_C = torch.bincount(labels_M, weights=right_M.double(), minlength=classes)
    there_C = counts_C > 0
    return Right(float(right_M.double().mean()), float((hits_C[there_C] / counts_C[there_C]).mean()))


def nearest_neighbours(
    train_ND: Tensor, labels_N: Tensor, emb_MD: Tensor, *, classes: int, neighbours: int = NEIGHBOURS
) -> Tensor:
    """Class that most of the k nearest training images have, by cosine around their mean; of equal ones the first (M,).

    Parameters
    ----------
    train_ND, emb_MD : any float type, on any device; the work is done where the labels are.
    neighbours : k; all images where there are fewer.
    """
    device, k = labels_N.device, min(neighbours, len(train_ND))
    centre_D = centre(train_ND, device)
    bank_ND, found = unit(train_ND.to(device).float() - centre_D), []
    for part_BD in emb_MD.split(max(1, _CELLS // len(bank_ND))):
        nearest_BK = (unit(part_BD.to(device).float() - centre_D) @ bank_ND.T).topk(k, dim=1).indices
        votes_BC = torch.zeros(len(part_BD), classes, device=device)
        votes_BC.scatter_add_(1, labels_N[nearest_BK], torch.ones(nearest_BK.shape, device=device))
        found.append(votes_BC.argmax(1))
    return torch.cat(found) if found else labels_N.new_zeros(0)


def nearest_means(train_ND: Tensor, labels_N: Tensor, emb_MD: Tensor, *, classes: int) -> Tensor:
    """Class of the nearest class mean, by Euclidean distance (M,); a class without images is never said."""
    device = labels_N.device
    counts_C = torch.bincount(labels_N, minlength=classes)
    sums_CD = torch.zeros(classes, train_ND.shape[1], dtype=torch.float64, device=device)
    for part_BD, labels_B in zip(train_ND.split(_CHUNK), labels_N.split(_CHUNK), strict=True):
        sums_CD.index_add_(0, labels_B, part_BD.to(device).double())
    ids_C = (counts_C > 0).nonzero().squeeze(1)
    means_CD = sums_CD[ids_C] / counts_C[ids_C, None]
    found = [ids_C[torch.cdist(part.to(device).double(), means_CD).argmin(1)] for part in emb_MD.split(_CHUNK)]
    return torch.cat(found) if found else labels_N.new_zeros(0)


@dataclass(frozen=True)
class FewShot:
    """A linear classifier: scores are unit(x − centre) @ weight + bias."""

    centre_D: Tensor
    weight_DC: Tensor
    bias_C: Tensor

    def read(self, emb_MD: Tensor) -> Tensor:
        """Class of the highest score (M,)."""
        device = self.weight_DC.device
        found = []
        for part_BD in emb_MD.split(_CHUNK):
            x_BD = unit(part_BD.to(device).float() - self.centre_D)
            found.append(torch.addmm(self.bias_C, x_BD, self.weight_DC).argmax(1))
        return torch.cat(found) if found else torch.zeros(0, dtype=torch.int64, device=device)


def centre(emb_ND: Tensor, device: torch.device) -> Tensor:
    """Mean embedding, float32, added up in float64 (D,)."""
    sums = [part_BD.to(device).sum(0, dtype=torch.float64) for part_BD in emb_ND.split(_CHUNK)]
    return (torch.stack(sums).sum(0) / len(emb_ND)).float()


def few_shot(train_ND: Tensor, labels_N: Tensor, centre_D: Tensor, *, classes: int) -> FewShot | None:
    """Logistic regression on a few images, with scikit-learn's C = 1 as in Tian et al. 2020.

    Minimises Σ cross-entropy + ½ ‖W‖², the bias not penalised. The weights lie in the span of the images, so that it
    is solved in as many coordinates as there are images, where these are fewer than numbers.

    Parameters
    ----------
    centre_D : mean of all training images, whose labels have no part in it.

    Returns
    -------
    None if it does not converge.
    """
    device = labels_N.device
    x_ND = unit(train_ND.to(device).float() - centre_D)
    mean_D = x_ND.mean(0)
    x_ND = x_ND - mean_D
    n, d = x_ND.shape
    basis_DK = torch.linalg.qr(x_ND.T.double()).Q.float() if n < d else torch.eye(d, device=device)
    own_NK = x_ND @ basis_DK
    fit = FitData(own_NK, labels_N, classes, *(own_NK.new_full((own_NK.shape[1],), v).double() for v in (0.0, 1.0)))
    linear = regression(fit, Probe(solver="lbfgs", weight_decay=1 / n, label_smoothing=0.0))
    if linear is None:
        return None
    weight_DC = basis_DK @ linear.weight_DC
    return FewShot(centre_D, weight_DC, linear.bias_C - mean_D @ weight_DC)


def drawn_images(labels_N: Tensor, eligible_N: Tensor, shots: int, seed: int) -> Tensor | None:
    """So many eligible images of every class, drawn without replacement; None if a class has fewer (C · shots,).

    Parameters
    ----------
    labels_N, eligible_N : class ids and bool, on the CPU.
    """
    generator, found = torch.Generator().manual_seed(seed), []
    for label in labels_N.unique():
        own = ((labels_N == label) & eligible_N).nonzero().squeeze(1)
        if len(own) < shots:
            return None
        found.append(own[torch.randperm(len(own), generator=generator)[:shots]])
    return torch.cat(found).sort().values
