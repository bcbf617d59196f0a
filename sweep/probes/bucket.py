"""Probes of layers of one width: their parameters, the matmuls each way, their gradients in closed form.

On a GPU all layers share a batched matmul. On CPU each has its own, whose rounding then does not depend on how many
layers are trained together; everything else is one operator for all.

Shapes: N images, D width, C classes, L layers of one width, B batch. Logits are (L, C, B): on CPU a softmax over few
classes is many times faster along the images, and no operand of the weight gradient is transposed.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from sweep.base.seeds import derive_seed
from sweep.config import Probe
from sweep.probes.data import LinearProbe
from sweep.probes.scores import Scores, Tally
from sweep.probes.source import Rows, Source

_INIT_STD = 0.01  # [H24] A.4: weights start N(0, 0.01), bias 0
_BETAS, _EPS = (0.9, 0.999), 1e-8  # AdamW's defaults
_SCORE_BYTES = {"cpu": 1 << 20, "cuda": 16 << 20}  # inputs and logits of one layer held at once while scoring


class _Matmul:
    """``out = keep · added + left @ right`` of every layer, the same tensors each time it is called."""

    def __init__(self, out: Tensor, added: Tensor, left: Tensor, right: Tensor, *, keep: float = 1) -> None:
        self._stacks, self._keep = (added, left, right, out), keep
        # on CPU one after the other, from views made once: batched, the rounding of one depends on their number
        self._layers = [] if out.is_cuda else list(zip(added, left, right, out, strict=True))

    def __call__(self) -> Tensor:
        """Compute, and give ``out``."""
        keep = self._keep
        if not self._layers:
            added, left, right, out = self._stacks
            torch.baddbmm(added, left, right, beta=keep, out=out)
        for added, left, right, out in self._layers:
            torch.addmm(added, left, right, beta=keep, out=out)
        return self._stacks[-1]


@dataclass(frozen=True)
class _Batch:
    """Buffers of a step for batches of one size."""

    rows: Rows
    logits_LCB: Tensor
    peak_L1B: Tensor
    total_L1B: Tensor
    spread: Tensor
    less_L1B: Tensor
    forward: list[_Matmul]
    backward: list[_Matmul]


class Bucket:
    """Parameters of every recipe for some layers, their gradients, and the embeddings they read.

    Parameters
    ----------
    source : training embeddings of the layers.
    names : of the layers; with ``seed`` they decide the initial weights.
    fit_N : True for the images of this fit.
    """

    def __init__(
        self,
        source: Source,
        names: Sequence[str],
        recipes: Sequence[Probe],
        fit_N: Tensor,
        *,
        classes: int,
        seed: int,
        dtype: torch.dtype,
    ) -> None:
        self.source, self._smoothing = source, recipes[0].label_smoothing
        initial_LCD = torch.empty(source.layers, classes, source.width)
        for row_CD, name in zip(initial_LCD, names, strict=True):
            generator = torch.Generator().manual_seed(derive_seed("init", seed, name))
            row_CD.copy_(torch.empty(source.width, classes).normal_(0, _INIT_STD, generator=generator).T)
        initial_LCD = initial_LCD.to(fit_N.device, dtype)
        self.weights_LCD = [initial_LCD.clone() for _ in recipes]
        self.biases_LC1 = [initial_LCD.new_zeros(source.layers, classes, 1) for _ in recipes]
        self.weight_grads_LCD = [torch.empty_like(weight_LCD) for weight_LCD in self.weights_LCD]
        self.bias_grads_LC1 = [torch.empty_like(bias_LC1) for bias_LC1 in self.biases_LC1]
        self._scale = source.standardisation(fit_N) if recipes[0].standardize == "feature" else None
        self._batches: dict[int, _Batch] = {}

    def of(self, kept: Sequence[int]) -> Bucket:
        """A bucket of some of these layers, with their parameters as they are now; the two then go their own ways."""
        part, rows = copy(self), list(kept)
        part.source = self.source.of(rows)
        part.weights_LCD = [weight_LCD[rows] for weight_LCD in self.weights_LCD]
        part.biases_LC1 = [bias_LC1[rows] for bias_LC1 in self.biases_LC1]
        part.weight_grads_LCD = [torch.empty_like(weight_LCD) for weight_LCD in part.weights_LCD]
        part.bias_grads_LC1 = [torch.empty_like(bias_LC1) for bias_LC1 in part.biases_LC1]
        if self._scale is not None:
            mean_L1D, scale_L1D = self._scale
            part._scale = mean_L1D[rows], scale_L1D[rows]
        part._batches = {}
        part.__dict__.pop("_room", None)
        return part

    def adopt(self, other: Bucket, recipe: int, theirs: int, ours: int) -> None:
        """Take over the parameters of one probe."""
        self.weights_LCD[recipe][ours] = other.weights_LCD[recipe][theirs]
        self.biases_LC1[recipe][ours] = other.biases_LC1[recipe][theirs]

    def _inputs(self, x_LBD: Tensor) -> Tensor:
        """Embeddings as the probes see them, changed in place."""
        if self._scale is not None:
            mean_L1D, scale_L1D = self._scale
            x_LBD.sub_(mean_L1D).mul_(scale_L1D)
        return x_LBD

    def _batch(self, size: int) -> _Batch:
        if size not in self._batches:
            layers, classes, _ = self.weights_LCD[0].shape
            rows = self.source.buffers(size)
            logits_LCB = self.weights_LCD[0].new_empty(layers, classes, size)
            spread = logits_LCB.new_tensor(-self._smoothing / classes / size)
            less_L1B = logits_LCB.new_full((layers, 1, size), (self._smoothing - 1) / size)
            peak_L1B, total_L1B = torch.empty_like(less_L1B), torch.empty_like(less_L1B)
            x_LDB = rows.x_LBD.transpose(1, 2)
            forward = [
                _Matmul(logits_LCB, bias_LC1, weight_LCD, x_LDB)
                for weight_LCD, bias_LC1 in zip(self.weights_LCD, self.biases_LC1, strict=True)
            ]
            backward = [
                _Matmul(grad_LCD, grad_LCD, logits_LCB, rows.x_LBD, keep=0) for grad_LCD in self.weight_grads_LCD
            ]
            self._batches[size] = _Batch(rows, logits_LCB, peak_L1B, total_L1B, spread, less_L1B, forward, backward)
        return self._batches[size]

    def gradients(self, source: Source, images_B: Tensor, labels_B: Tensor) -> None:
        """Of the mean smoothed cross-entropy: softmax minus smoothed one-hot, averaged over the batch."""
        size, layers = len(images_B), source.layers
        batch = self._batch(size)
        self._inputs(source.gather(images_B, batch.rows))
        grad_LCB = batch.logits_LCB
        truth_L1B = labels_B.expand(layers, 1, size)
        for forward, backward, bias_grad_LC1 in zip(batch.forward, batch.backward, self.bias_grads_LC1, strict=True):
            forward()
            # in place and in as few passes as there are: half the time of torch.softmax; the mean over the batch
            # costs nothing where the softmax is divided by its sum
            torch.amax(grad_LCB, 1, keepdim=True, out=batch.peak_L1B)
            grad_LCB.sub_(batch.peak_L1B).exp_()
            torch.sum(grad_LCB, 1, keepdim=True, out=batch.total_L1B)
            torch.addcmul(batch.spread, grad_LCB, batch.total_L1B.reciprocal_(), value=1 / size, out=grad_LCB)
            grad_LCB.scatter_add_(1, truth_L1B, batch.less_L1B)
            torch.sum(grad_LCB, 2, keepdim=True, out=bias_grad_LC1)
            backward()

    def linear(self, number: int) -> list[LinearProbe]:
        """Copies of the probes of one recipe as they are now, a layer each."""
        weights_LDC = self.weights_LCD[number].transpose(1, 2).clone()
        plain = [
            LinearProbe.plain(*each)
            for each in zip(weights_LDC, self.biases_LC1[number].squeeze(2).clone(), strict=True)
        ]
        if self._scale is None:
            return plain
        moments = zip(*(each_L1D.squeeze(1).double() for each_L1D in self._scale), strict=True)
        return [replace(probe, mean_D=mean, scale_D=scale) for probe, (mean, scale) in zip(plain, moments, strict=True)]

    def slope_at_zero(self, labels_N: Tensor) -> Tensor:
        """Norm of the gradient of the loss on all images, at weights of zero and the best biases for them, (L,)."""
        (layers, classes, width), n = self.weights_LCD[0].shape, len(labels_N)
        sums_LCD = self.weights_LCD[0].new_zeros(layers, classes, width)
        room_LBD = self._room[0]
        for start in range(0, n, room_LBD.shape[1]):
            part = slice(start, min(start + room_LBD.shape[1], n))
            sums_LCD.index_add_(1, labels_N[part], self._inputs(self.source.part(part, room_LBD)))
        total_L1D = sums_LCD.sum(1, keepdim=True)
        shares_C1 = torch.bincount(labels_N, minlength=classes).to(sums_LCD.dtype).unsqueeze(1) / n
        # softmax minus target: the smoothing is in both, and falls out
        slope_LCD = (1 - self._smoothing) * (shares_C1 * total_L1D - sums_LCD) / n
        return torch.linalg.vector_norm(slope_LCD, dim=(1, 2))

    @cached_property
    def _room(self) -> tuple[Tensor, Tensor, Tensor]:
        """For scoring: inputs (L, B, D), logits (L, C, B), a copy of these. Fresh memory would take half the time."""
        layers, classes, width = self.weights_LCD[0].shape
        device = self.weights_LCD[0].device
        chunk = max(128, _SCORE_BYTES[device.type] // (4 * (width + 4 * classes)))
        logits_LCB = self.weights_LCD[0].new_empty(layers, classes, chunk)
        return self.source.room(chunk), logits_LCB, torch.empty_like(logits_LCB)

    def scores(self, source: Source, labels_N: Tensor, images_N: Tensor | None = None) -> list[Scores]:
        """Scores of every recipe's probes on some images of a source, all by default."""
        labels_N = labels_N if images_N is None else labels_N[images_N]
        layers, classes, _ = self.weights_LCD[0].shape
        room_LBD, room_LCB, spare_LCB = self._room
        chunk = room_LBD.shape[1]
        tallies = [Tally(layers, classes, labels_N) for _ in self.weights_LCD]
        for start in range(0, len(labels_N), chunk):
            part = slice(start, min(start + chunk, len(labels_N)))
            x_LBD = self._inputs(source.part(part if images_N is None else images_N[part], room_LBD))
            logits_LCB = room_LCB[..., : part.stop - start]
            for tally, weight_LCD, bias_LC1 in zip(tallies, self.weights_LCD, self.biases_LC1, strict=True):
                _Matmul(logits_LCB, bias_LC1, weight_LCD, x_LBD.transpose(1, 2))()
                tally.add(part, logits_LCB, spare_LCB[..., : part.stop - start])
        return [tally.scores() for tally in tallies]


class AdamW:
    """torch's fused AdamW for the probes of one recipe, without the wrapping of ``torch.optim``.

    Parameters
    ----------
    number : of the recipe in every bucket.
    """

    def __init__(self, recipe: Probe, buckets: Sequence[Bucket], number: int) -> None:
        self._lr, self._weight_decay = recipe.lr, recipe.weight_decay
        stacks = [(b.weights_LCD[number], b.weight_grads_LCD[number]) for b in buckets]
        stacks += [(b.biases_LC1[number], b.bias_grads_LC1[number]) for b in buckets]
        # layer by layer: which numbers end up in a vector's tail must not depend on the layers beside them
        self._parameters = [parameter for parameters, _ in stacks for parameter in parameters]
        self._gradients = [gradient for _, gradients in stacks for gradient in gradients]
        self._means, self._squares = ([torch.zeros_like(p) for p in self._parameters] for _ in range(2))
        self._count, self._one = (made((), device=self._parameters[0].device) for made in (torch.zeros, torch.ones))
        self._counts = [self._count] * len(self._parameters)

    def adopt(self, other: AdamW, kept: Sequence[int]) -> None:
        """Take over the moments of another one's probes: of each of ours, its place among those of the other."""
        places = [*kept, *(place + len(other._parameters) // 2 for place in kept)]  # weights, then biases
        for ours, theirs in ((self._means, other._means), (self._squares, other._squares)):
            for row, place in zip(ours, places, strict=True):
                row.copy_(theirs[place])
        self._count.copy_(other._count)

    @property
    def state(self) -> list[Tensor]:
        """All that a step changes, but gradients."""
        return [*self._parameters, *self._means, *self._squares, self._count]

    def step(self) -> None:
        """Update every parameter from its gradient."""
        self._count += self._one  # a tensor: adding a number takes several times as long
        torch._fused_adamw_(
            self._parameters,
            self._gradients,
            self._means,
            self._squares,
            [],
            self._counts,
            lr=self._lr,
            beta1=_BETAS[0],
            beta2=_BETAS[1],
            weight_decay=self._weight_decay,
            eps=_EPS,
            amsgrad=False,
            maximize=False,
        )
