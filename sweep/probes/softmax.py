"""Loss of multinomial logistic regression, its gradient and its mean curvature, of several layers at once.

Matmuls of a layer round alike whether it is alone or among others, and so does everything else here: what a layer's
probe becomes does not depend on its neighbours.

Shapes: L layers, G of them that are asked for, N images, B images of a chunk, C classes, F coordinates of an image with
a one for the bias. Logits are (G, C, B): on CPU a softmax over few classes is many times faster along the images.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sweep.probes.small import small

_ROWS = 1 << 16  # images of a chunk on a GPU
_CACHE = 768 << 10  # bytes of a chunk on CPU, inputs and logits of a layer: they stay in the cache for both matmuls
_ALIKE = 16  # chunks are multiples of it


@dataclass(frozen=True)
class Value:
    """Of probes at a point, without any penalty; nought for layers that were not asked for.

    Attributes
    ----------
    loss_L : mean smoothed cross-entropy, nats, float64.
    slope_LCF : its gradient.
    curvature_L : mean of p (1 − p) over images and classes, p the probabilities.
    """

    theta_LCF: Tensor
    loss_L: Tensor
    slope_LCF: Tensor
    curvature_L: Tensor


@dataclass(frozen=True)
class _Chunk:
    """Some images of every layer."""

    part: slice
    z_LBF: Tensor
    labels_11B: Tensor

    def logits(self, theta_LCF: Tensor, going: Sequence[int] | None, room: Tensor) -> Tensor:
        """(G, C, B), in ``room``."""
        layers, classes, _ = theta_LCF.shape
        shape = (layers if going is None else len(going), classes, self.labels_11B.shape[2])
        logits_GCB = room[: shape[0] * shape[1] * shape[2]].view(shape)
        if going is None:
            return torch.bmm(theta_LCF, self.z_LBF.transpose(1, 2), out=logits_GCB)
        for layer, logits_CB in zip(going, logits_GCB.unbind(), strict=True):
            torch.mm(theta_LCF[layer], self.z_LBF[layer].T, out=logits_CB)
        return logits_GCB

    def add_slope(self, slope_LCF: Tensor, left_GCB: Tensor, going: Sequence[int] | None) -> None:
        """Add the images' share of the slope, from probabilities minus targets."""
        if going is None:
            slope_LCF.baddbmm_(left_GCB, self.z_LBF)
            return
        for layer, left_CB in zip(going, left_GCB.unbind(), strict=True):
            slope_LCF[layer].addmm_(left_CB, self.z_LBF[layer])


class Softmax:
    """The loss on some images of the same layers.

    Parameters
    ----------
    z_LNF : coordinates of all images.
    labels_N : their classes.
    part : which rows count.
    """

    def __init__(self, z_LNF: Tensor, labels_N: Tensor, part: slice, *, classes: int, smoothing: float) -> None:
        self.z_LNF, labels_N = z_LNF[:, part], labels_N[part]
        self.n = len(labels_N)
        self._rows = chunk_rows(self.n, z_LNF.shape[2], classes) if z_LNF.is_cpu else min(self.n, _ROWS)
        parts = [slice(start, min(start + self._rows, self.n)) for start in range(0, self.n, max(1, self._rows))]
        self._chunks = [_Chunk(part, self.z_LNF[:, part], labels_N[part].view(1, 1, -1)) for part in parts]
        self._classes, self._smoothing = classes, smoothing
        self._less_111 = z_LNF.new_full((1, 1, 1), smoothing - 1)

    def value(self, theta_LCF: Tensor, going: Sequence[int] | None = None) -> Value:
        """Loss, gradient and curvature.

        Parameters
        ----------
        going : layers that are asked for; None for all.
        """
        layers = len(theta_LCF) if going is None else len(going)
        slope_LCF = torch.zeros_like(theta_LCF)
        total_G1N, expected_G1N = (theta_LCF.new_empty(layers, 1, self.n) for _ in range(2))
        norms_GK = theta_LCF.new_empty(layers, len(self._chunks))
        for number, (chunk, logits_GCB) in enumerate(self._over(theta_LCF, going)):
            labels_G1B, total_G1B = chunk.labels_11B.expand(layers, 1, -1), total_G1N[..., chunk.part]
            self._expected(logits_GCB, labels_G1B, expected_G1N[..., chunk.part])
            torch.sum(logits_GCB.exp_(), 1, keepdim=True, out=total_G1B)
            p_GCB = logits_GCB.div_(total_G1B)
            norms_GK[:, number] = torch.linalg.vector_norm(p_GCB, dim=(1, 2))
            if self._smoothing:
                p_GCB -= self._smoothing / self._classes
            p_GCB.scatter_add_(1, labels_G1B, self._less_111.expand_as(labels_G1B))
            chunk.add_slope(slope_LCF, p_GCB, going)
        loss_G = total_G1N.log_().sub_(expected_G1N).sum((1, 2), dtype=torch.float64) / self.n
        curvature_G = (1 - norms_GK.double().square_().sum(1) / self.n) / self._classes
        loss_L, curvature_L = (_placed(each_G, len(theta_LCF), going) for each_G in (loss_G, curvature_G))
        return Value(theta_LCF, loss_L, slope_LCF.div_(self.n), curvature_L)

    def _over(self, theta_LCF: Tensor, going: Sequence[int] | None) -> Iterator[tuple[_Chunk, Tensor]]:
        """Chunks and logits, whose largest of each image is nought; they may be overwritten, and are."""
        layers = len(theta_LCF) if going is None else len(going)
        room = theta_LCF.new_empty(layers * self._classes * self._rows)
        for chunk in self._chunks:
            logits_GCB = chunk.logits(theta_LCF, going, room)
            yield chunk, logits_GCB.sub_(logits_GCB.amax(1, keepdim=True))

    def _expected(self, logits_GCB: Tensor, labels_G1B: Tensor, out_G1B: Tensor) -> None:
        """Mean logit under the targets."""
        torch.gather(logits_GCB, 1, labels_G1B, out=out_G1B)
        if self._smoothing:
            out_G1B.mul_(1 - self._smoothing).add_(logits_GCB.mean(1, keepdim=True), alpha=self._smoothing)

    def cross_entropy(self, theta_LCF: Tensor, going: Sequence[int] | None = None) -> Tensor:
        """Mean cross-entropy of each layer's probe without smoothing, nats, float64 (L,)."""
        layers = len(theta_LCF) if going is None else len(going)
        total_G1N, true_G1N = (theta_LCF.new_empty(layers, 1, self.n) for _ in range(2))
        for chunk, logits_GCB in self._over(theta_LCF, going):
            torch.gather(logits_GCB, 1, chunk.labels_11B.expand(layers, 1, -1), out=true_G1N[..., chunk.part])
            torch.sum(logits_GCB.exp_(), 1, keepdim=True, out=total_G1N[..., chunk.part])
        loss_G = total_G1N.log_().sub_(true_G1N).sum((1, 2), dtype=torch.float64) / self.n
        return _placed(loss_G, len(theta_LCF), going)


def chunk_rows(n: int, numbers: int, classes: int) -> int:
    """Images of a chunk on CPU, about equally many in each; it must not depend on how many layers there are."""
    chunks = max(1, math.ceil(4 * n * (numbers + 2 * classes) / _CACHE))
    return min(n, max(_ALIKE, math.ceil(n / chunks / _ALIKE) * _ALIKE))


def _placed(each_G: Tensor, layers: int, going: Sequence[int] | None) -> Tensor:
    """(L,), nought where nothing was asked for."""
    if going is None:
        return each_G
    whole_L = each_G.new_zeros(layers)
    small(whole_L)[list(going)] = small(each_G)
    return whole_L
