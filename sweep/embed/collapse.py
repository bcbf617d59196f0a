"""Neural collapse of one layer, NC1 to NC4 (Papyan, Han and Donoho 2020), on training images; 0 is collapsed.

Shapes: N images, B images of a chunk, D width, C classes (with images).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sweep.embed.statistics import first_collapse

_CHUNK = 8192


@dataclass(frozen=True)
class Collapse:
    """Of one layer; None where a number is not defined.

    Attributes
    ----------
    nc1 : tr(Σ_W Σ_B⁺) / C; None if the class means are equal, and then the others are None too.
    nc2_norms : standard deviation over mean of the lengths of the centred class means: 0 if they are equally long.
    nc2_angles : mean over pairs of |cos + 1 / (C − 1)| of these: 0 if they are as far apart as C directions can be.
    nc3 : distance of the classifier's weights from the centred class means, each over its Frobenius norm; what all
        classes have in common is no part of the weights, for softmax does not see it. None without a linear classifier.
    nc4 : share of images for which the classifier's class is not that of the nearest class mean; likewise.
    """

    nc1: float | None = None
    nc2_norms: float | None = None
    nc2_angles: float | None = None
    nc3: float | None = None
    nc4: float | None = None


def collapse(
    emb_ND: Tensor, labels_N: Tensor, *, classes: int, weight_DC: Tensor | None, bias_C: Tensor | None
) -> Collapse | None:
    """Neural collapse of a layer; None if it is not finite.

    Parameters
    ----------
    emb_ND : training embeddings, any float type, on any device.
    labels_N : int64 class ids in [0, classes), on the device that does the work.
    weight_DC, bias_C : of the layer's linear classifier, on embeddings as they are stored; None: there is none.
    """
    if not torch.isfinite(emb_ND).all():
        return None
    device = labels_N.device
    counts_C = torch.bincount(labels_N, minlength=classes)
    present_C = counts_C > 0
    sums_CD = torch.zeros(classes, emb_ND.shape[1], dtype=torch.float64, device=device)
    for part_BD, labels_B in zip(emb_ND.split(_CHUNK), labels_N.split(_CHUNK), strict=True):
        sums_CD.index_add_(0, labels_B, part_BD.to(device).double())
    means_CD = sums_CD[present_C] / counts_C[present_C, None]
    centred_CD = means_CD - means_CD.mean(0)
    lengths_C = centred_CD.norm(dim=1)
    nc1 = first_collapse(emb_ND, labels_N, classes=classes)
    if nc1 is None or len(means_CD) < 2 or not (lengths_C > 0).all():
        return Collapse(nc1)
    norms, angles = float(lengths_C.std(correction=0) / lengths_C.mean()), _angles(centred_CD / lengths_C[:, None])
    if weight_DC is None or bias_C is None:
        return Collapse(nc1, norms, angles)
    weight_DC, bias_C = weight_DC.to(device).double(), bias_C.to(device).double()
    own_CD = weight_DC.T[present_C] - weight_DC.T[present_C].mean(0)
    dual = (own_CD / own_CD.norm().clamp_min(1e-300) - centred_CD / centred_CD.norm()).norm()
    return Collapse(nc1, norms, angles, float(dual), _disagreeing(emb_ND, means_CD, present_C, weight_DC, bias_C))


def _angles(directions_CD: Tensor) -> float:
    c = len(directions_CD)
    cosines_CC = directions_CD @ directions_CD.T
    pairs = torch.triu_indices(c, c, offset=1, device=cosines_CC.device)
    return float((cosines_CC[pairs[0], pairs[1]] + 1 / (c - 1)).abs().mean())


def _disagreeing(emb_ND: Tensor, means_CD: Tensor, present_C: Tensor, weight_DC: Tensor, bias_C: Tensor) -> float:
    """Share of images whose class by the classifier is not that of the nearest class mean."""
    ids_C, differing = present_C.nonzero().squeeze(1), 0
    for part_BD in emb_ND.split(_CHUNK):
        x_BD = part_BD.to(means_CD.device).double()
        nearest_B = ids_C[torch.cdist(x_BD, means_CD).argmin(1)]
        differing += int((torch.addmm(bias_C, x_BD, weight_DC).argmax(1) != nearest_B).sum())
    return differing / len(emb_ND)
