"""Probes by AdamW, the protocol's solver ([H24] A.4): every layer, as selection fit and as full fit, many at once.

A probe is multinomial logistic regression on an embedding. Probes of layers of equal width share one batched matmul
per step; the gradient of softmax cross-entropy with label smoothing has a closed form, so there is no autograd; one
fused AdamW step updates all probes of a learning rate. There is no DataLoader: a batch is an index into embeddings.

On CPU few probes are trained at a time, each group on one thread, so that weights and moments stay in the core's
cache from step to step; results do not depend on the number of threads. On a GPU all probes of a fit are trained at
once and the step is a CUDA graph.

Shapes: N images, D width, C classes, L layers of one width, B batch, M images of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sweep.base.seeds import derive_seed
from sweep.config import Probe
from sweep.probes import memory
from sweep.probes.bucket import AdamW, Bucket
from sweep.probes.data import CONVERGED_NORM, LinearProbe, ProbeData, ProbeResult
from sweep.probes.graph import Graphed
from sweep.probes.scores import History, Scores, summarise
from sweep.probes.source import Source
from sweep.probes.threads import each

_STREAM_BYTES = 64 << 20  # embeddings held at once when they are streamed


@dataclass(frozen=True)
class Request:
    """How some layers are fitted: which recipes, with which seed, in which arithmetic.

    Attributes
    ----------
    recipes : equal but for learning rate and weight decay.
    seeds : of initial weights and batch order, one per replicate; the order is shared by all layers and recipes.
    dtype : of weights and arithmetic.
    resident : whether the embeddings are on the device; else they are streamed to it.
    """

    recipes: Sequence[Probe]
    seeds: Sequence[int]
    dtype: torch.dtype
    resident: bool = True


@dataclass(frozen=True)
class _Task:
    """Fits of some layers with one seed: on CPU one fit of layers of one width, on a GPU both fits of all.

    Attributes
    ----------
    groups : layers, each group of one width.
    fits : some of "selection" and "full".
    """

    groups: tuple[tuple[int, ...], ...]
    seed_index: int
    fits: tuple[str, ...]


Outcome = dict[tuple[str, int, tuple[int, ...]], list["_Scored"]]  # by fit, seed and group: one entry per recipe


def fit_adamw(data: ProbeData, request: Request, layers: Sequence[int]) -> list[ProbeResult]:
    """Both fits of some layers, for every recipe and seed.

    Returns
    -------
    results in no particular order; each says which probe it is. One that diverges is a result with a reason.
    """
    by_width: dict[int, list[int]] = {}
    for layer in layers:
        by_width.setdefault(data.width(layer), []).append(layer)
    found: Outcome = {}

    def run(task: _Task) -> Outcome:
        return _fit(data, request, task)

    for outcome in each(run, _tasks(data, request, list(by_width.values())), device=data.device):
        found |= outcome
    results = []
    for (fit, seed_index, group), of_recipes in found.items():
        if fit == "selection":
            continue
        names = [data.layer_names[layer] for layer in group]
        chosen = found["selection", seed_index, group]
        for number, (selection, full) in enumerate(zip(chosen, of_recipes, strict=True)):
            summaries = summarise(History(selection.epochs, full.epochs), full.train, names)
            assert full.left_L is not None
            results += [
                replace(
                    summary,
                    layer=layer,
                    recipe=number,
                    seed_index=seed_index,
                    epochs_run=len(full.epochs),
                    gradient_norm=left,
                    converged=left <= CONVERGED_NORM,
                    linear=full.kept[summary.epoch_chosen - 1][at] if full.kept else None,
                )
                if summary.problem is None
                else replace(summary, layer=layer, recipe=number, seed_index=seed_index)
                for at, (layer, summary, left) in enumerate(zip(group, summaries, full.left_L.tolist(), strict=True))
            ]
    return results


def _tasks(data: ProbeData, request: Request, groups: list[list[int]]) -> list[_Task]:
    """What is computed on its own; on CPU the longest first."""
    seeds = range(len(request.seeds))
    if data.device.type != "cpu":
        whole = tuple(tuple(group) for group in groups)
        return [_Task(whole, seed_index, ("selection", "full")) for seed_index in seeds]
    tasks = [
        _Task((part,), seed_index, (fit,))
        for group in groups
        for part in memory.cached_groups(group, request.recipes, width=data.width(group[0]), classes=data.classes)
        for seed_index in seeds
        for fit in ("full", "selection")
    ]
    return sorted(tasks, key=lambda task: -len(task.groups[0]) * data.width(task.groups[0][0]))


@dataclass(frozen=True)
class _Scored:
    """Scores after each epoch: of the selection fit on the held-out part, of the full fit on the test set.

    ``train`` are those of the full fit after the last epoch on all training images; ``left_L`` the norm of its
    gradient over that at weights of zero, None for the selection fit; ``kept`` the probes of the full fit after each
    epoch, by layer, where their weights are asked for.
    """

    epochs: list[Scores]
    train: Scores
    left_L: Tensor | None
    kept: list[list[LinearProbe]]


@torch.inference_mode()
def _fit(data: ProbeData, request: Request, task: _Task) -> Outcome:
    """Train and score."""
    seed, found = request.seeds[task.seed_index], {}
    train, test = (
        [
            Source([part[layer] for layer in group], data.device, request.dtype, resident=request.resident)
            for group in task.groups
        ]
        for part in (data.train, data.test)
    )
    held_N, every_N = data.heldout_N.nonzero().squeeze(1), torch.ones_like(data.heldout_N)
    with _tensor_float32(data.device):
        for name in task.fits:
            full = name == "full"
            fit = _Fit(data, request, task.groups, train, every_N if full else ~data.heldout_N, seed)
            scored: list[list[list[Scores]]] = [[[] for _ in request.recipes] for _ in task.groups]
            kept: list[list[list[list[LinearProbe]]]] = [[[] for _ in request.recipes] for _ in task.groups]
            for epoch in range(request.recipes[0].epochs):
                fit.train_epoch(derive_seed("order", seed, name, epoch))
                for bucket, tested, of_recipes, copies in zip(fit.buckets, test, scored, kept, strict=True):
                    if full and data.keep_weights:
                        for number, of_recipe in enumerate(copies):
                            of_recipe.append(bucket.linear(number))
                    if full:
                        scores = bucket.scores(tested, data.test_labels_N)
                    else:
                        scores = bucket.scores(bucket.source, data.train_labels_N, held_N)
                    for history, after in zip(of_recipes, scores, strict=True):
                        history.append(after)
            left: Sequence[Sequence[Tensor | None]] = [[None for _ in request.recipes] for _ in task.groups]
            if full:
                left = fit.left(data.train_labels_N)
            for group, bucket, of_recipes, norms, copies in zip(
                task.groups, fit.buckets, scored, left, kept, strict=True
            ):
                last = (
                    bucket.scores(bucket.source, data.train_labels_N) if full else [epochs[-1] for epochs in of_recipes]
                )
                found[name, task.seed_index, group] = [
                    _Scored(*each) for each in zip(of_recipes, last, norms, copies, strict=True)
                ]
    return found


@contextmanager
def _tensor_float32(device: torch.device) -> Iterator[None]:
    """Matmuls of float32 by tensor cores, which keep ten bits of the mantissa: all that a float16 embedding has."""
    if device.type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


_Step = Callable[[Sequence[Source], Tensor, Tensor], None]  # some images of the sources, and their labels


class _Fit:
    """One of the two fits: its training images, its probes in buckets, their optimisers."""

    def __init__(
        self,
        data: ProbeData,
        request: Request,
        groups: Sequence[Sequence[int]],
        sources: Sequence[Source],
        fit_N: Tensor,
        seed: int,
    ) -> None:
        self._images_N, self._labels_N = fit_N.nonzero().squeeze(1), data.train_labels_N
        self._batch_size = request.recipes[0].batch_size
        self.buckets = [
            Bucket(
                source,
                [data.layer_names[layer] for layer in group],
                request.recipes,
                fit_N,
                classes=data.classes,
                seed=seed,
                dtype=request.dtype,
            )
            for group, source in zip(groups, sources, strict=True)
        ]
        self._optimizers = [AdamW(recipe, self.buckets, number) for number, recipe in enumerate(request.recipes)]
        self._chunk = None if request.resident else self._streamed_images()
        self._graphed: Graphed | None = None

    def _streamed_images(self) -> int:
        """Images of a chunk, whole batches."""
        batch_bytes = self._batch_size * sum(bucket.source.row_bytes for bucket in self.buckets)
        return self._batch_size * max(1, _STREAM_BYTES // batch_bytes)

    def train_epoch(self, order_seed: int) -> None:
        """One pass over the images of this fit in a seeded order, the last batch as small as it comes."""
        generator = torch.Generator().manual_seed(order_seed)
        order_N = torch.randperm(len(self._images_N), generator=generator).to(self._images_N.device)
        self._over(self._images_N[order_N], self._trained)

    def _over(self, images_N: Tensor, step: _Step) -> None:
        """Steps over images, a chunk of them at a time on the device where they are streamed."""
        labels_N = self._labels_N[images_N]
        if self._chunk is None:
            self._steps([bucket.source for bucket in self.buckets], images_N, labels_N, step)
            return
        for images_M, labels_M in zip(images_N.split(self._chunk), labels_N.split(self._chunk), strict=True):
            loaded = [bucket.source.loaded(images_M) for bucket in self.buckets]
            self._steps(loaded, torch.arange(len(images_M), device=images_M.device), labels_M, step)

    def _steps(self, sources: Sequence[Source], images_M: Tensor, labels_M: Tensor, step: _Step) -> None:
        """Steps over some images of the sources, in this order."""
        for images_B, labels_B in zip(images_M.split(self._batch_size), labels_M.split(self._batch_size), strict=True):
            step(sources, images_B, labels_B)

    def _trained(self, sources: Sequence[Source], images_B: Tensor, labels_B: Tensor) -> None:
        if images_B.is_cuda and self._chunk is None and len(images_B) == self._batch_size:
            self._graph()(images_B, labels_B)
        else:
            self._step(sources, images_B, labels_B)

    def left(self, labels_N: Tensor) -> list[list[Tensor]]:
        """Norm of the gradient on all images of this fit, over that at weights of zero: by bucket and recipe, (L,)."""
        sums = [[torch.zeros_like(grad_LCD) for grad_LCD in bucket.weight_grads_LCD] for bucket in self.buckets]
        n = len(self._images_N)

        def add(sources: Sequence[Source], images_B: Tensor, labels_B: Tensor) -> None:
            for bucket, source, of_recipes in zip(self.buckets, sources, sums, strict=True):
                bucket.gradients(source, images_B, labels_B)
                for sum_LCD, grad_LCD in zip(of_recipes, bucket.weight_grads_LCD, strict=True):
                    sum_LCD.add_(grad_LCD, alpha=len(images_B) / n)

        self._over(self._images_N, add)
        return [
            [torch.linalg.vector_norm(sum_LCD, dim=(1, 2)) / bucket.slope_at_zero(labels_N) for sum_LCD in of_recipes]
            for bucket, of_recipes in zip(self.buckets, sums, strict=True)
        ]

    def _step(self, sources: Sequence[Source], images_B: Tensor, labels_B: Tensor) -> None:
        for bucket, source in zip(self.buckets, sources, strict=True):
            bucket.gradients(source, images_B, labels_B)
        for optimizer in self._optimizers:
            optimizer.step()

    def _graph(self) -> Graphed:
        if self._graphed is None:
            sources = [bucket.source for bucket in self.buckets]
            self._graphed = Graphed(
                lambda images_B, labels_B: self._step(sources, images_B, labels_B),
                state=[tensor for optimizer in self._optimizers for tensor in optimizer.state],
                batch=self._batch_size,
                device=self._images_N.device,
            )
        return self._graphed
