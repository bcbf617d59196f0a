"""Probes by AdamW, the protocol's solver ([H24] A.4): every layer, as selection fit and as full fit, many at once.

A probe is multinomial logistic regression on an embedding. Probes of layers of equal width share one batched matmul
per step; the gradient of softmax cross-entropy with label smoothing has a closed form, so there is no autograd; one
fused AdamW step updates all probes of a learning rate. There is no DataLoader: a batch is an index into embeddings.

On CPU few probes are trained at a time, each group on one thread, so that weights and moments stay in the core's
cache from step to step; results do not depend on the number of threads. On a GPU all probes of a fit are trained at
once and the step is a CUDA graph.

Where each probe ends for itself (``epochs: auto``) the selection fit says when, by its held-out loss; the full fit runs
as many epochs.

Shapes: N images, L layers of one width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sweep.base.seeds import derive_seed
from sweep.config import AUTO
from sweep.probes import memory
from sweep.probes.data import CONVERGED_NORM, LinearProbe, ProbeData, ProbeResult
from sweep.probes.lengths import Lengths
from sweep.probes.scores import History, Scores, summarise
from sweep.probes.source import Source
from sweep.probes.threads import each
from sweep.probes.training import Request, Training


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


_Kept = list[dict[int, LinearProbe]]  # after each epoch the probes by layer of the group
_BOTH = ("selection", "full")
Outcome = dict[tuple[str, int, tuple[int, ...]], list["_Scored"]]  # by fit, seed and group: one entry per recipe


def fit_adamw(data: ProbeData, request: Request, layers: Sequence[int]) -> list[ProbeResult]:
    """Both fits of some layers, for every recipe and seed.

    Returns
    -------
    results in no particular order; each says which probe it is. One that diverges is a result with a reason.
    """
    alike: dict[tuple[int, torch.dtype], list[int]] = {}
    for layer in layers:
        alike.setdefault((data.width(layer), data.train[layer].dtype), []).append(layer)
    found: Outcome = {}

    def run(task: _Task) -> Outcome:
        return _fit(data, request, task)

    for outcome in each(run, _tasks(data, request, list(alike.values())), device=data.device):
        found |= outcome
    results = []
    for (fit, seed_index, group), of_recipes in found.items():
        if fit == "selection":
            continue
        chosen = found["selection", seed_index, group]
        for number, (selection, full) in enumerate(zip(chosen, of_recipes, strict=True)):
            results += [
                replace(result, layer=group[result.layer], recipe=number, seed_index=seed_index)
                for result in _summaries(selection, full, [data.layer_names[layer] for layer in group])
            ]
    return results


def _summaries(selection: _Scored, full: _Scored, names: Sequence[str]) -> Iterator[ProbeResult]:
    """Results of a group's probes by one recipe; ``layer`` is the place in the group."""
    assert full.left_L is not None
    left_L = full.left_L.tolist()
    for end in sorted(set(full.ends_L)):
        layers = [layer for layer, other in enumerate(full.ends_L) if other == end]
        history = History(selection.until(end, layers), full.until(end, layers))
        for layer, summary in zip(
            layers, summarise(history, full.train.some(layers), [names[layer] for layer in layers]), strict=True
        ):
            if summary.problem is not None:
                yield replace(summary, layer=layer)
                continue
            left = left_L[layer]
            yield replace(
                summary,
                layer=layer,
                epochs_run=end,
                gradient_norm=left,
                converged=left <= CONVERGED_NORM,
                linear=full.kept[summary.epoch_chosen - 1][layer] if full.kept else None,
            )


def _tasks(data: ProbeData, request: Request, groups: list[list[int]]) -> list[_Task]:
    """What is computed on its own; on CPU the longest first."""
    seeds = range(len(request.seeds))
    if data.device.type != "cpu":  # one type at a time: it decides the precision of matmuls
        by_type: dict[torch.dtype, list[tuple[int, ...]]] = {}
        for group in groups:
            by_type.setdefault(data.train[group[0]].dtype, []).append(tuple(group))
        wholes = [tuple(of_type) for of_type in by_type.values()]
        return [_Task(whole, seed_index, _BOTH) for whole in wholes for seed_index in seeds]
    # the full fit of a probe without a set end waits for its selection fit
    pieces = (_BOTH,) if request.recipes[0].epochs == AUTO else tuple((fit,) for fit in reversed(_BOTH))
    tasks = [
        _Task((part,), seed_index, fits)
        for group in groups
        for part in memory.cached_groups(group, request.recipes, width=data.width(group[0]), classes=data.classes)
        for seed_index in seeds
        for fits in pieces
    ]
    return sorted(tasks, key=lambda task: -len(task.groups[0]) * data.width(task.groups[0][0]))


@dataclass(frozen=True)
class _Scored:
    """Scores after each epoch: of the selection fit on the held-out part, of the full fit on the test set.

    ``ends_L`` are the epochs that each layer's probe was trained for. ``train`` are scores of the full fit after its
    last epoch on all training images; ``left_L`` the norm of its gradient over that at weights of zero, None for the
    selection fit; ``kept`` the probes of the full fit after each epoch, by layer, where their weights are asked for.
    """

    epochs: list[Scores]
    ends_L: Sequence[int]
    train: Scores
    left_L: Tensor | None
    kept: _Kept

    def until(self, end: int, layers: Sequence[int]) -> list[Scores]:
        """Scores of some layers up to an epoch."""
        if len(layers) == len(self.ends_L):
            return self.epochs[:end]
        return [scores.some(layers) for scores in self.epochs[:end]]


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
    every_N = torch.ones_like(data.heldout_N)
    lengths = [Lengths(request.recipes, len(group)) for group in task.groups]
    with _tensor_float32(data.device, enabled=data.train[task.groups[0][0]].dtype != torch.float32):
        for name in task.fits:
            full = name == "full"
            fit = Training(data, request, task.groups, train, test, every_N if full else ~data.heldout_N, seed)
            scored, kept = _trained(data, fit, lengths, name, seed)
            left: Sequence[Sequence[Tensor | None]] = [[None for _ in request.recipes] for _ in task.groups]
            if full:
                left = fit.left()
            for group, bucket, length, of_recipes, norms, copies in zip(
                task.groups, fit.whole, lengths, scored, left, kept, strict=True
            ):
                last = (
                    bucket.scores(bucket.source, data.train_labels_N) if full else [epochs[-1] for epochs in of_recipes]
                )
                found[name, task.seed_index, group] = [
                    _Scored(*each)
                    for each in zip(of_recipes, length.ends_RL.tolist(), last, norms, copies, strict=True)
                ]
    return found


def _trained(
    data: ProbeData, fit: Training, lengths: Sequence[Lengths], name: str, seed: int
) -> tuple[list[list[list[Scores]]], list[list[_Kept]]]:
    """Train until every probe has ended; scores by group, recipe and epoch, and probes. The last ones of each stay."""
    scored: list[list[list[Scores]]] = [[[] for _ in length.ends_RL] for length in lengths]
    kept: list[list[_Kept]] = [[[] for _ in length.ends_RL] for length in lengths]
    held_N = data.heldout_N.nonzero().squeeze(1)
    open_ended = lengths[0].auto
    if open_ended:
        fit.apart()
    for epoch in range(1, lengths[0].most + 1):
        fit.train_epoch(derive_seed("order", seed, name, epoch - 1))
        for part in fit.parts:
            if name == "full" and data.keep_weights:
                for recipe, copies in enumerate(kept[part.number]):
                    copies.append(dict(zip(part.layers, part.bucket.linear(recipe), strict=True)))
            if name == "full":
                scores = part.bucket.scores(part.test, data.test_labels_N)
            else:
                scores = part.bucket.scores(part.bucket.source, data.train_labels_N, held_N)
            for history, after in zip(scored[part.number], scores, strict=True):
                alone = len(part.layers) < lengths[part.number].layers
                history.append(history[-1].replaced(after, part.layers) if alone else after)
        if open_ended:
            going = {}
            for number, length in enumerate(lengths):
                if name == "selection":
                    length.tell(epoch, [history[-1].loss_L for history in scored[number]])
                going[number] = length.going(epoch)
            fit.end({number: length.ending(epoch) for number, length in enumerate(lengths)})
            if not any(going.values()):
                break
            fit.leave(going)
    return scored, kept


@contextmanager
def _tensor_float32(device: torch.device, *, enabled: bool) -> Iterator[None]:
    """Matmuls of float32 by tensor cores, which keep ten bits of the mantissa: all that a float16 embedding has."""
    if device.type != "cuda" or not enabled:
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
