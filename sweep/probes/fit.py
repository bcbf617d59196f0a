"""The front of the probe engine: which probes are asked for, how many are in flight, which one is chosen."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sweep import register
from sweep.base.errors import UserError
from sweep.base.seeds import derive_seed
from sweep.config import CONVERGED, Probe
from sweep.probes import memory
from sweep.probes.adamw import fit_adamw
from sweep.probes.check import checked
from sweep.probes.converged import fit_converged
from sweep.probes.data import ProbeData, ProbeResult
from sweep.probes.exact import exact_bytes
from sweep.probes.plugin import fit_registered
from sweep.probes.training import Request

log = logging.getLogger(__name__)
_ON_CPU = "%s does not fit the device; its probes are fitted on the CPU"
_BATCHED = "adamw"  # fits all layers at once, in a memory budget; our others take one layer at a time


def fit_probes(
    data: ProbeData,
    recipes: Probe | Sequence[Probe],
    *,
    seed: int,
    seeds: int = 1,
    dtype: torch.dtype = torch.float32,
    budget: int | None = None,
    check: Sequence[int] = (),
    cpus: int | None = None,
) -> list[ProbeResult]:
    """Fit linear probes on every layer, each twice: without the held-out part (chooses) and on all.

    Parameters
    ----------
    data : embeddings, and labels on the device that shall do the work; embeddings that are elsewhere are moved there.
    recipes : one, or several that differ in learning rate and weight decay only.
    seed : of batch order and initial weights; the order is shared by all layers and recipes.
    seeds : how many replicates of every probe; the first has ``seed`` itself.
    dtype : of weights and arithmetic.
    budget : bytes of the device that may be in use; fewer layers are in flight if it asks for it, with the same
        results. None: as many as there are, fewer when memory runs out.
    check : layers that are fitted once more to convergence, which changes no other number, see :func:`checked`.
    cpus : threads for what a solver leaves to the CPU; None: as many as torch may use. They change no number.

    Returns
    -------
    results by layer, then recipe, then seed. A layer with non-finite embeddings, or a probe that diverges, is a
    result with a reason, and does not touch its neighbours.

    Raises
    ------
    UserError
        If the recipes differ in more, or name an unknown solver.
    """
    recipes = (recipes,) if isinstance(recipes, Probe) else tuple(recipes)
    _check_alike(recipes)
    solver = recipes[0].solver
    asked = [(recipe, replicate) for recipe in range(len(recipes)) for replicate in range(seeds)]
    finite, results = [], []
    for layer, name in enumerate(data.layer_names):
        problem = _non_finite(data.train[layer], data.test[layer], name)
        if problem is None:
            finite.append(layer)
        else:
            results += [ProbeResult(problem, layer, *which) for which in asked]
    replicates = replicate_seeds(seed, seeds)
    ours = register.find_ours("probe", solver)
    if solver == _BATCHED:
        results += _in_waves(data, Request(recipes, replicates, dtype), finite, budget)
    elif solver == CONVERGED:
        results += fit_converged(data, recipes[0], finite, budget=budget, cpus=cpus)
    elif ours is not None:
        for layer in finite:
            results += _one_alone(data, recipes, layer, ours, budget)
    else:
        results += [
            replace(result, layer=layer, recipe=recipe, seed_index=replicate)
            for recipe, replicate in asked
            for layer, result in zip(
                finite, _registered(data, recipes[recipe], finite, replicates[replicate]), strict=True
            )
        ]
    ordered = _flagged(sorted(results, key=lambda r: (r.layer, r.recipe, r.seed_index)))
    return checked(data, recipes[0], ordered, check, budget=budget, cpus=cpus) if check else ordered


def replicate_seeds(seed: int, seeds: int) -> list[int]:
    """Seeds of a probe's replicates; the first is the curve's own."""
    return [seed, *(derive_seed("probe replicate", seed, number) for number in range(1, seeds))]


def _check_alike(recipes: Sequence[Probe]) -> None:
    shared = {recipe.model_copy(update={"lr": 1.0, "weight_decay": 0.0}) for recipe in recipes}
    if len(shared) != 1:
        raise UserError("the probes of a curve may differ in lr and weight_decay only")


def _non_finite(train_ND: Tensor, test_ND: Tensor, name: str) -> str | None:
    for split, emb_ND in (("training", train_ND), ("test", test_ND)):
        low, high = torch.aminmax(emb_ND)  # both are NaN if any number is
        if torch.isfinite(low) and torch.isfinite(high):
            continue
        bad_N = ~torch.isfinite(emb_ND).all(1)
        if bad_N.any():
            first = int(bad_N.nonzero()[0])
            return f"embedding of {name} is not finite for {int(bad_N.sum())} {split} images, first: image {first}"
    return None


def _in_waves(data: ProbeData, request: Request, layers: Sequence[int], budget: int | None) -> list[ProbeResult]:
    """As many layers at a time as the budget holds; a layer that does not fit alone is streamed."""
    if data.device.type == "cpu":  # where the embeddings already are
        budget = None
    probes = len(request.recipes) * len(request.seeds)
    costs = [memory.fit_bytes(data, layer, probes=probes) for layer in layers]
    results = []
    for wave in memory.waves(layers, costs, budget):
        alone = len(wave) == 1 and budget is not None and costs[layers.index(wave[0])] > budget
        results += _short_of_memory(data, replace(request, resident=not alone), wave)
    return results


def _short_of_memory(data: ProbeData, request: Request, layers: list[int]) -> list[ProbeResult]:
    """Fit; if the device's memory runs out, half of the layers at a time, and a single one streamed."""
    try:
        return fit_adamw(data, request, layers)
    except torch.OutOfMemoryError:
        if len(layers) == 1 and not request.resident:
            raise
    # here the exception, and with it what filled the memory, is gone
    if len(layers) == 1:
        return fit_adamw(data, replace(request, resident=False), layers)
    half = len(layers) // 2
    return [result for part in (layers[:half], layers[half:]) for result in _short_of_memory(data, request, part)]


def _one_alone(
    data: ProbeData, recipes: Sequence[Probe], layer: int, fit: Callable[..., list[ProbeResult]], budget: int | None
) -> list[ProbeResult]:
    """A layer by a solver that takes one at a time; on the CPU if the budget or the device's memory is too small."""
    fits = budget is None or data.device.type == "cpu" or exact_bytes(data, layer) <= budget
    if fits:
        try:
            return fit(data, recipes, layer)
        except torch.OutOfMemoryError:
            pass
    # here the exception, and with it what filled the memory, is gone
    log.warning(_ON_CPU, data.layer_names[layer])
    return fit(data.on_cpu(), recipes, layer)


def _registered(data: ProbeData, recipe: Probe, layers: Sequence[int], seed: int) -> list[ProbeResult]:
    """By a plug-in; if the device's memory runs out, half of the layers at a time, and a single one on the CPU."""
    try:
        return fit_registered(data, recipe, layers, seed=seed)
    except torch.OutOfMemoryError:
        pass
    if len(layers) == 1:
        log.warning(_ON_CPU, data.layer_names[layers[0]])
        return fit_registered(data.on_cpu(), recipe, layers, seed=seed)
    half = len(layers) // 2
    return [result for part in (layers[:half], layers[half:]) for result in _registered(data, recipe, part, seed)]


def _flagged(results: list[ProbeResult]) -> list[ProbeResult]:
    """Flag one probe of each layer: the recipe with the highest mean held-out top-1, then lowest loss, then first."""
    by_layer: dict[int, dict[int, list[ProbeResult]]] = {}
    for result in results:
        by_layer.setdefault(result.layer, {}).setdefault(result.recipe, []).append(result)

    def rank(of_recipe: list[ProbeResult]) -> tuple[bool, float, float]:
        failed = any(result.problem is not None for result in of_recipe)
        n = len(of_recipe)
        return failed, -sum(r.heldout_top1 for r in of_recipe) / n, sum(r.heldout_loss for r in of_recipe) / n

    best = {layer: min(recipes, key=lambda number: rank(recipes[number])) for layer, recipes in by_layer.items()}
    return [replace(r, chosen=r.recipe == best[r.layer] and r.seed_index == 0) for r in results]
