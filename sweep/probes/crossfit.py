"""Cross-fitting: every training image is scored by a probe that was fitted without its fold.

A tenth of a small training set is too few images to choose a peak layer on. With the penalty that the selection fit
chose, each fold's probe is fitted on the other folds, in the coordinates that all fits of a layer share, and scored on
the fold: all training images then stand behind the choice of a layer. The penalty has seen the held-out images; it is
one number of a layer, chosen by loss.

Shapes: L layers, N training images, C classes, F coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sweep.probes.descent import minimise
from sweep.probes.inverse import Inverse
from sweep.probes.remembered import Memory
from sweep.probes.scores import Scores, Tally
from sweep.probes.softmax import Softmax

TOLERANCE = 0.05  # relative error of the weights that the gradient allows at most; these fits only compare layers


@dataclass(frozen=True)
class OutOfFold:
    """What probes that did not see an image make of it.

    Attributes
    ----------
    scores : of all training images, in the order of the images that were given.
    converged_L : whether every fold's fit did.
    """

    scores: Scores
    converged_L: Tensor


def out_of_fold(
    inverse: Inverse,
    penalty_L: Tensor,
    z_LNF: Tensor,
    labels_N: Tensor,
    folds_N: Tensor,
    start_LCF: Tensor,
    *,
    classes: int,
    smoothing: float,
) -> OutOfFold:
    """Fit without each fold in turn, at each layer's penalty (L,), and score the fold.

    No fold's fit starts from, or remembers, one that has seen the fold.

    Parameters
    ----------
    folds_N : fold of each image, from 0 without gaps.
    start_LCF : weights to start from; they must not have seen any image's label more than class counts do.
    """
    correct_LN = torch.empty(len(z_LNF), len(labels_N), dtype=torch.bool, device=labels_N.device)
    top5_L = torch.zeros(len(z_LNF), dtype=torch.float64, device=labels_N.device)
    loss_L, converged_L = torch.zeros_like(top5_L), torch.ones_like(top5_L, dtype=torch.bool)
    for fold in range(int(folds_N.max()) + 1):
        out_N = folds_N == fold
        rest = Softmax(z_LNF[:, ~out_N], labels_N[~out_N], slice(None), classes=classes, smoothing=smoothing)
        start, memory = rest.value(start_LCF), Memory(start_LCF, inverse)
        inverse.set(rest, start, penalty_L)
        found = minimise(rest, start, memory, inverse, penalty_L, tolerance=TOLERANCE)
        part = _scored(found.value.theta_LCF, z_LNF[:, out_N], labels_N[out_N])
        share = float(out_N.sum()) / len(labels_N)
        correct_LN[:, out_N] = part.correct_LN
        top5_L += share * part.top5_L
        loss_L += share * part.loss_L
        converged_L &= found.converged_L
    return OutOfFold(Scores(correct_LN, top5_L, loss_L), converged_L)


def _scored(theta_LCF: Tensor, z_LNF: Tensor, labels_N: Tensor) -> Scores:
    tally = Tally(len(theta_LCF), theta_LCF.shape[1], labels_N)
    for part in _parts(len(labels_N)):
        logits_LCB = torch.bmm(theta_LCF, z_LNF[:, part].transpose(1, 2))
        tally.add(part, logits_LCB, torch.empty_like(logits_LCB))
    return tally.scores()


def _parts(n: int, rows: int = 1024) -> Sequence[slice]:
    return [slice(start, min(start + rows, n)) for start in range(0, n, rows)]
