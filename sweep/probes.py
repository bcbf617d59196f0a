"""Many linear probes at once: every layer of a curve, as selection fit and as full fit, in one computation.

A probe is multinomial logistic regression on an embedding ([H24] A.4, protocol §6). Probes of layers of equal
width share one batched matmul per step; the gradient of softmax cross-entropy with label smoothing has a closed
form, so there is no autograd; one fused AdamW step updates every probe. No I/O here.

Shapes: N images, D width, C classes, L layers of one width, B batch, E epochs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sweep.config import SOLVERS, Probe
from sweep.seeds import derive_seed

_INIT_STD = 0.01  # [H24] A.4: weights start N(0, 0.01), bias 0
_EVALUATION_BYTES = 64 << 20  # logits held at once while evaluating


@dataclass(frozen=True)
class ProbeData:
    """Embeddings of one dataset, all layers.

    Attributes
    ----------
    train, test : one (N, D) tensor per layer, any float type.
    train_labels_N, test_labels_N : int64 class ids in [0, classes).
    heldout_N : bool; True for the training images that only choose the epoch.
    """

    train: Sequence[Tensor]
    train_labels_N: Tensor
    heldout_N: Tensor
    test: Sequence[Tensor]
    test_labels_N: Tensor
    classes: int
    layer_names: Sequence[str]


@dataclass(frozen=True)
class ProbeResult:
    """One fitted probe; ``problem`` says why there are no numbers, and is None when there are."""

    problem: str | None
    epoch_chosen: int = 0
    epoch_best: int = 0
    top1: float = float("nan")
    top1_last: float = float("nan")
    top1_best: float = float("nan")
    top5: float = float("nan")
    heldout_top1: float = float("nan")
    train_top1: float = float("nan")
    test_loss: float = float("nan")
    heldout_loss: float = float("nan")
    train_loss: float = float("nan")
    top1_E: tuple[float, ...] = ()
    heldout_top1_E: tuple[float, ...] = ()
    correct: bytes = b""


def fit_probes(data: ProbeData, recipe: Probe, *, seed: int, dtype: torch.dtype = torch.float32) -> list[ProbeResult]:
    """Fit a linear probe on every layer, twice: without the held-out part (chooses the epoch) and on all.

    Parameters
    ----------
    data : embeddings, and labels on the device that shall do the work; embeddings that are elsewhere are moved there
        width by width. Fewer layers are fitted at once while memory is short, with the same results.
    recipe : optimiser settings.
    seed : of batch order and initial weights; the order is shared by all layers.
    dtype : of weights and arithmetic.

    Returns
    -------
    one result per layer, in order. A layer with non-finite embeddings, or a probe that diverges, is a result
    with a reason, and does not touch its neighbours.
    """
    problems = [
        _non_finite(train_ND, test_ND, name)
        for train_ND, test_ND, name in zip(data.train, data.test, data.layer_names, strict=True)
    ]
    finite = [layer for layer, problem in enumerate(problems) if problem is None]
    results = [ProbeResult(problem) for problem in problems]
    if recipe.solver not in SOLVERS:
        from sweep.registered_probes import fit_registered  # it builds on this module

        for layer, result in zip(finite, fit_registered(data, recipe, finite, seed=seed), strict=True):
            results[layer] = result
        return results
    for layer, result in _fit_layers(data, recipe, finite, seed=seed, dtype=dtype):
        results[layer] = result
    return results


def _fit_layers(
    data: ProbeData, recipe: Probe, layers: list[int], *, seed: int, dtype: torch.dtype
) -> list[tuple[int, ProbeResult]]:
    """Both fits of some layers at once; half of them at a time if the device's memory does not hold all."""
    if not layers:
        return []
    try:
        stacks = _stacks(data, layers)
        selection = _Fit(data, recipe, stacks, ~data.heldout_N, seed=seed, dtype=dtype)
        full = _Fit(data, recipe, stacks, torch.ones_like(data.heldout_N), seed=seed, dtype=dtype)
        return _run(selection, full, data, recipe, seed)
    except torch.OutOfMemoryError:
        if len(layers) == 1:
            raise
    half = len(layers) // 2  # here the exception, and with it what filled the memory, is gone
    return [
        result
        for part in (layers[:half], layers[half:])
        for result in _fit_layers(data, recipe, part, seed=seed, dtype=dtype)
    ]


def _non_finite(train_ND: Tensor, test_ND: Tensor, name: str) -> str | None:
    for split, emb_ND in (("training", train_ND), ("test", test_ND)):
        bad_N = ~torch.isfinite(emb_ND).all(1)
        if bad_N.any():
            first = int(bad_N.nonzero()[0])
            return f"embedding of {name} is not finite for {int(bad_N.sum())} {split} images, first: image {first}"
    return None


@dataclass(frozen=True)
class _Stack:
    """Embeddings of the layers of one width, on the device of the labels; both fits read the same."""

    layers: list[int]
    train_LND: Tensor
    test_LND: Tensor


def _stacks(data: ProbeData, layers: list[int]) -> list[_Stack]:
    by_width: dict[int, list[int]] = {}
    for layer in layers:
        by_width.setdefault(data.train[layer].shape[1], []).append(layer)
    device = data.train_labels_N.device

    def stacked(embeddings: Sequence[Tensor], group: list[int]) -> Tensor:
        return torch.stack([embeddings[layer].to(device) for layer in group])

    return [_Stack(group, stacked(data.train, group), stacked(data.test, group)) for group in by_width.values()]


class _Bucket:
    """Probes of the layers of one width: parameters, and the embeddings they read."""

    def __init__(self, data: ProbeData, stack: _Stack, fit_N: Tensor, recipe: Probe, seed: int, dtype: torch.dtype):
        self.layers = layers = stack.layers
        self.train_LND, self.test_LND = stack.train_LND, stack.test_LND
        device, width = self.train_LND.device, self.train_LND.shape[2]
        weight_LDC = torch.empty(len(layers), width, data.classes, dtype=torch.float32)
        for row_DC, layer in zip(weight_LDC, layers, strict=True):
            generator = torch.Generator().manual_seed(derive_seed("init", seed, data.layer_names[layer]))
            row_DC.normal_(0, _INIT_STD, generator=generator)
        self.weight_LDC = weight_LDC.to(device, dtype)
        self.bias_L1C = torch.zeros(len(layers), 1, data.classes, dtype=dtype, device=device)
        self.mean_L1D, self.scale_L1D = _standardisation(self.train_LND, fit_N, recipe, dtype)

    def inputs(self, emb_LBD: Tensor) -> Tensor:
        """Embeddings as the probes see them."""
        x_LBD = emb_LBD.to(self.weight_LDC.dtype)
        if self.mean_L1D is not None and self.scale_L1D is not None:
            x_LBD = (x_LBD - self.mean_L1D) * self.scale_L1D
        return x_LBD

    def logits(self, x_LBD: Tensor) -> Tensor:
        """(L, B, C) logits."""
        return torch.baddbmm(self.bias_L1C, x_LBD, self.weight_LDC)


def _standardisation(
    train_LND: Tensor, fit_N: Tensor, recipe: Probe, dtype: torch.dtype
) -> tuple[Tensor | None, Tensor | None]:
    """Mean and 1/std of each feature over the images of this fit; constant features stay zero."""
    if recipe.standardize == "none":
        return None, None
    chosen = [emb_ND[fit_N].double() for emb_ND in train_LND]
    mean_L1D = torch.stack([x_ND.mean(0, keepdim=True) for x_ND in chosen])
    std_L1D = torch.stack([x_ND.std(0, correction=0, keepdim=True) for x_ND in chosen])
    scale_L1D = torch.where(std_L1D > 0, 1 / std_L1D, torch.zeros_like(std_L1D))
    return mean_L1D.to(dtype), scale_L1D.to(dtype)


class _Fit:
    """One of the two fits: its training images, its probes in buckets, its optimiser."""

    def __init__(
        self,
        data: ProbeData,
        recipe: Probe,
        stacks: list[_Stack],
        fit_N: Tensor,
        *,
        seed: int,
        dtype: torch.dtype,
    ):
        self.images_N = fit_N.nonzero().squeeze(1)
        self.labels_N = data.train_labels_N
        self.buckets = [_Bucket(data, stack, fit_N, recipe, seed, dtype) for stack in stacks]
        self.smoothing = recipe.label_smoothing
        self.batch_size = recipe.batch_size
        parameters = [p for bucket in self.buckets for p in (bucket.weight_LDC, bucket.bias_L1C)]
        self.optimizer = torch.optim.AdamW(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)

    def train_epoch(self, order_seed: int) -> None:
        """One pass over the images of this fit in a seeded order, the last batch as small as it comes."""
        generator = torch.Generator().manual_seed(order_seed)
        order_N = torch.randperm(len(self.images_N), generator=generator).to(self.images_N.device)
        for batch_B in self.images_N[order_N].split(self.batch_size):
            target_B = self.labels_N[batch_B]
            for bucket in self.buckets:
                self._accumulate(bucket, batch_B, target_B)
            self.optimizer.step()

    def _accumulate(self, bucket: _Bucket, batch_B: Tensor, target_B: Tensor) -> None:
        """Gradient of the mean smoothed cross-entropy: softmax minus smoothed one-hot, averaged over the batch."""
        x_LBD = bucket.inputs(bucket.train_LND[:, batch_B])
        grad_LBC = torch.softmax(bucket.logits(x_LBD), dim=2)
        classes = grad_LBC.shape[2]
        grad_LBC -= self.smoothing / classes
        grad_LBC[:, torch.arange(len(target_B), device=target_B.device), target_B] -= 1 - self.smoothing
        grad_LBC /= len(target_B)
        bucket.weight_LDC.grad = torch.bmm(x_LBD.transpose(1, 2), grad_LBC)
        bucket.bias_L1C.grad = grad_LBC.sum(1, keepdim=True)


@dataclass(frozen=True)
class _Scores:
    """Of each layer of a bucket on some images: who is right, how likely the truth is."""

    correct_LN: Tensor
    top5_L: Tensor
    loss_L: Tensor

    @property
    def top1_L(self) -> Tensor:
        return self.correct_LN.double().mean(1)


def _score(bucket: _Bucket, emb_LND: Tensor, labels_N: Tensor) -> _Scores:
    layers, n = emb_LND.shape[:2]
    chunk = max(1, _EVALUATION_BYTES // (layers * bucket.weight_LDC.shape[2] * 8))
    correct_LN = torch.empty(layers, n, dtype=torch.bool, device=emb_LND.device)
    top5_L = torch.zeros(layers, dtype=torch.float64, device=emb_LND.device)
    loss_L = torch.zeros(layers, dtype=torch.float64, device=emb_LND.device)
    for start in range(0, n, chunk):
        part = slice(start, start + chunk)
        logits_LBC = bucket.logits(bucket.inputs(emb_LND[:, part]))
        target_B = labels_N[part]
        true_LB1 = logits_LBC.gather(2, target_B.expand(layers, -1).unsqueeze(2))
        correct_LN[:, part] = logits_LBC.argmax(2) == target_B
        top5_L += ((logits_LBC > true_LB1).sum(2) < 5).double().sum(1)
        loss_L += (logits_LBC.logsumexp(2) - true_LB1.squeeze(2)).double().sum(1)
    return _Scores(correct_LN, top5_L / n, loss_L / n)


@dataclass
class _History:
    """Scores of one bucket after every epoch."""

    heldout_top1: list[Tensor]
    heldout_loss: list[Tensor]
    top1: list[Tensor]
    top5: list[Tensor]
    loss: list[Tensor]
    correct: list[Tensor]


def _run(selection: _Fit, full: _Fit, data: ProbeData, recipe: Probe, seed: int) -> list[tuple[int, ProbeResult]]:
    held_N = data.heldout_N.nonzero().squeeze(1)
    held_labels_N = data.train_labels_N[held_N]
    histories = [_History([], [], [], [], [], []) for _ in full.buckets]
    held = [bucket.train_LND[:, held_N] for bucket in selection.buckets]
    for epoch in range(recipe.epochs):
        selection.train_epoch(derive_seed("order", seed, "selection", epoch))
        full.train_epoch(derive_seed("order", seed, "full", epoch))
        for history, held_LND, chooser, probe in zip(histories, held, selection.buckets, full.buckets, strict=True):
            heldout = _score(chooser, held_LND, held_labels_N)
            test = _score(probe, probe.test_LND, data.test_labels_N)
            history.heldout_top1.append(heldout.top1_L)
            history.heldout_loss.append(heldout.loss_L)
            history.top1.append(test.top1_L)
            history.top5.append(test.top5_L)
            history.loss.append(test.loss_L)
            history.correct.append(test.correct_LN)
    results = []
    for bucket, history in zip(full.buckets, histories, strict=True):
        train = _score(bucket, bucket.train_LND, data.train_labels_N)
        for position, layer in enumerate(bucket.layers):
            results.append((layer, _result(position, history, train, data.layer_names[layer])))
    return results


def _result(layer: int, history: _History, train: _Scores, name: str) -> ProbeResult:
    """Choose the epoch on held-out data only: highest top-1, then lowest loss, then earliest."""

    def of(scores: list[Tensor]) -> np.ndarray:
        return torch.stack(scores)[:, layer].cpu().numpy()

    heldout_E, heldout_loss_E, top1_E, loss_E = map(
        of, (history.heldout_top1, history.heldout_loss, history.top1, history.loss)
    )
    broken_E = ~(np.isfinite(heldout_loss_E) & np.isfinite(loss_E))
    if broken_E.any():
        return ProbeResult(f"probe of {name} diverged: loss not finite after epoch {int(broken_E.argmax()) + 1}")
    chosen = int(np.lexsort((heldout_loss_E, -heldout_E))[0])
    best = int(top1_E.argmax())
    return ProbeResult(
        problem=None,
        epoch_chosen=chosen + 1,
        epoch_best=best + 1,
        top1=float(top1_E[chosen]),
        top1_last=float(top1_E[-1]),
        top1_best=float(top1_E[best]),
        top5=float(of(history.top5)[chosen]),
        heldout_top1=float(heldout_E[chosen]),
        train_top1=float(train.top1_L[layer]),
        test_loss=float(loss_E[chosen]),
        heldout_loss=float(heldout_loss_E[chosen]),
        train_loss=float(train.loss_L[layer]),
        top1_E=tuple(top1_E.tolist()),
        heldout_top1_E=tuple(heldout_E.tolist()),
        correct=np.packbits(history.correct[chosen][layer].cpu().numpy()).tobytes(),
    )
