"""Scores of fitted probes on some images, and the choice of an epoch from them.

Shapes: L layers, N images, B images of a chunk, C classes, E epochs. Logits are (L, C, B): on CPU a softmax over few
classes is many times faster along the images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from sweep.probes.data import ProbeResult

_TOP = 5


@dataclass(frozen=True)
class Scores:
    """Of each layer's probe on some images: who is right, shares in [0, 1], cross-entropy in nats."""

    correct_LN: Tensor
    top5_L: Tensor
    loss_L: Tensor

    @property
    def top1_L(self) -> Tensor:
        """Share of images that are right."""
        return self.correct_LN.double().mean(1)

    def bits(self, layer: int) -> bytes:
        """Who is right at a layer, numpy.packbits over images."""
        return np.packbits(self.correct_LN[layer].cpu().numpy()).tobytes()

    def of(self, layer: int) -> Scores:
        """Those of one layer."""
        at = slice(layer, layer + 1)
        return Scores(self.correct_LN[at], self.top5_L[at], self.loss_L[at])

    def some(self, layers: Sequence[int]) -> Scores:
        """Those of some layers."""
        rows = list(layers)
        return Scores(self.correct_LN[rows], self.top5_L[rows], self.loss_L[rows])

    def replaced(self, part: Scores, layers: Sequence[int]) -> Scores:
        """These, with those of some layers as they are in ``part``."""
        rows = list(layers)
        new = Scores(self.correct_LN.clone(), self.top5_L.clone(), self.loss_L.clone())
        new.correct_LN[rows], new.top5_L[rows], new.loss_L[rows] = part.correct_LN, part.top5_L, part.loss_L
        return new


class Tally:
    """Scores gathered chunk by chunk, on the device, without waiting for it."""

    def __init__(self, layers: int, classes: int, labels_N: Tensor) -> None:
        device = labels_N.device
        self._labels_N = labels_N
        self._correct_LN = torch.empty(layers, len(labels_N), dtype=torch.bool, device=device)
        self._top5_L = torch.zeros(layers, dtype=torch.float64, device=device)
        self._loss_L = torch.zeros(layers, dtype=torch.float64, device=device)

    def add(self, part: slice, logits_LCB: Tensor, spare_LCB: Tensor) -> None:
        """Count a chunk of images; of equal logits the first counts as the higher, as for ``argmax``.

        Parameters
        ----------
        logits_LCB : destroyed.
        spare_LCB : room for as many numbers.
        """
        labels_B = self._labels_N[part]
        true_L1B = logits_LCB.gather(1, labels_B.expand(len(logits_LCB), 1, -1))
        peak_L1B = logits_LCB.amax(1, keepdim=True)
        # as numbers: counting bools is several times slower
        torch.ge(logits_LCB, true_L1B, out=spare_LCB)
        rank_LB = spare_LCB.sum(1) - 1
        if ((true_L1B == peak_L1B).squeeze(1) & (rank_LB > 0)).any():
            rank_LB = _rank_of_ties(logits_LCB, true_L1B, labels_B)
        self._correct_LN[:, part] = rank_LB == 0
        self._top5_L += (rank_LB < _TOP).sum(1)
        total_LB = logits_LCB.sub_(peak_L1B).exp_().sum(1)
        self._loss_L += (total_LB.log_() - (true_L1B - peak_L1B).squeeze(1)).sum(1, dtype=torch.float64)

    def scores(self) -> Scores:
        """Of all images added."""
        n = len(self._labels_N)
        return Scores(self._correct_LN, self._top5_L / n, self._loss_L / n)


def _rank_of_ties(logits_LCB: Tensor, true_L1B: Tensor, labels_B: Tensor) -> Tensor:
    """How many classes are ahead of the true one, (L, B), where it shares the first place with others."""
    earlier_CB = torch.arange(logits_LCB.shape[1], device=labels_B.device).unsqueeze(1) < labels_B
    return ((logits_LCB > true_L1B) | ((logits_LCB == true_L1B) & earlier_CB)).sum(1)


@dataclass
class History:
    """Scores of the probes of some layers after every epoch: held out by the selection fit, test by the full fit."""

    heldout: list[Scores] = field(default_factory=list)
    test: list[Scores] = field(default_factory=list)


def summarise(history: History, train: Scores, names: Sequence[str]) -> list[ProbeResult]:
    """One result per layer: the epoch is chosen on held-out data only, highest top-1, lowest loss, earliest.

    Parameters
    ----------
    train : of the full fit after the last epoch, on all training images.
    names : of the layers, for messages.
    """

    def stacked(scores: Sequence[Tensor]) -> np.ndarray:
        return torch.stack(list(scores), dim=1).cpu().numpy()

    heldout_LE = stacked([s.top1_L for s in history.heldout])
    heldout_loss_LE = stacked([s.loss_L for s in history.heldout])
    top1_LE = stacked([s.top1_L for s in history.test])
    top5_LE = stacked([s.top5_L for s in history.test])
    loss_LE = stacked([s.loss_L for s in history.test])
    train_top1_L, train_loss_L = train.top1_L.cpu().numpy(), train.loss_L.cpu().numpy()
    results = []
    for at, name in enumerate(names):
        broken_E = ~(np.isfinite(heldout_loss_LE[at]) & np.isfinite(loss_LE[at]))
        if broken_E.any():
            reason = f"probe of {name} diverged: loss not finite after epoch {int(broken_E.argmax()) + 1}"
            results.append(ProbeResult(reason))
            continue
        chosen = int(np.lexsort((heldout_loss_LE[at], -heldout_LE[at]))[0])
        best = int(top1_LE[at].argmax())
        results.append(
            ProbeResult(
                problem=None,
                epoch_chosen=chosen + 1,
                epoch_best=best + 1,
                top1=float(top1_LE[at, chosen]),
                top1_last=float(top1_LE[at, -1]),
                top1_best=float(top1_LE[at, best]),
                top5=float(top5_LE[at, chosen]),
                heldout_top1=float(heldout_LE[at, chosen]),
                train_top1=float(train_top1_L[at]),
                test_loss=float(loss_LE[at, chosen]),
                heldout_loss=float(heldout_loss_LE[at, chosen]),
                train_loss=float(train_loss_L[at]),
                top1_E=tuple(top1_LE[at].tolist()),
                heldout_top1_E=tuple(heldout_LE[at].tolist()),
                correct=history.test[chosen].bits(at),
                heldout_correct=history.heldout[chosen].bits(at),
            )
        )
    return results
