"""Loss of multinomial logistic regression, its gradient and its mean curvature, of several layers at once.

Shapes: L layers, N images, B images of a chunk, C classes, F coordinates of an image with a one for the bias.
Logits are (L, C, B): on CPU a softmax over few classes is many times faster along the images.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_ROWS = {"cpu": 1024, "cuda": 1 << 16}  # images of a chunk: on CPU inputs and logits stay in the cache


@dataclass(frozen=True)
class Value:
    """Of probes at a point, without any penalty.

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


class Softmax:
    """The loss on some images of the same layers.

    Parameters
    ----------
    z_LNF : coordinates of all images.
    labels_N : their classes.
    part : which rows count.
    """

    def __init__(self, z_LNF: Tensor, labels_N: Tensor, part: slice, *, classes: int, smoothing: float) -> None:
        rows = _ROWS[z_LNF.device.type]
        self.z_LNF = z_LNF[:, part]
        self.n = self.z_LNF.shape[1]
        labels_L1N = labels_N[part].expand(len(z_LNF), 1, -1)
        self._chunks = list(zip(self.z_LNF.split(rows, 1), labels_L1N.split(rows, 2), strict=True))
        self._classes, self._smoothing = classes, smoothing
        self._less = z_LNF.new_tensor(smoothing - 1)
        self.passes = 0  # over the images, so far

    def value(self, theta_LCF: Tensor) -> Value:
        """Loss, gradient and curvature."""
        self.passes += 1
        slope_LCF = torch.zeros_like(theta_LCF)
        loss_L = theta_LCF.new_zeros(len(theta_LCF), dtype=torch.float64)
        squares_L = torch.zeros_like(loss_L)
        for z_LBF, labels_L1B in self._chunks:
            logits_LCB = torch.bmm(theta_LCF, z_LBF.transpose(1, 2))
            logits_LCB -= logits_LCB.amax(1, keepdim=True)
            expected_L1B = (1 - self._smoothing) * logits_LCB.gather(1, labels_L1B)
            if self._smoothing:
                expected_L1B += self._smoothing * logits_LCB.mean(1, keepdim=True)
            total_L1B = logits_LCB.exp_().sum(1, keepdim=True)
            loss_L += (total_L1B.log() - expected_L1B).sum((1, 2), dtype=torch.float64)
            gradient_LCB = logits_LCB.mul_(total_L1B.reciprocal_())
            squares_L += torch.linalg.vector_norm(gradient_LCB, dim=(1, 2)).double().square()
            if self._smoothing:
                gradient_LCB -= self._smoothing / self._classes
            gradient_LCB.scatter_add_(1, labels_L1B, self._less.expand_as(labels_L1B))
            slope_LCF.baddbmm_(gradient_LCB, z_LBF)
        curvature_L = (1 - squares_L / self.n) / self._classes
        return Value(theta_LCF, loss_L / self.n, slope_LCF / self.n, curvature_L)

    def cross_entropy(self, theta_LCF: Tensor) -> Tensor:
        """Mean cross-entropy of each layer's probe without smoothing, nats, float64 (L,)."""
        loss_L = theta_LCF.new_zeros(len(theta_LCF), dtype=torch.float64)
        for z_LBF, labels_L1B in self._chunks:
            logits_LCB = torch.bmm(theta_LCF, z_LBF.transpose(1, 2))
            loss_LB = logits_LCB.logsumexp(1) - logits_LCB.gather(1, labels_L1B).squeeze(1)
            loss_L += loss_LB.sum(1, dtype=torch.float64)
        return loss_L / self.n
