"""What a longer fit would have changed, estimated on some layers: they are fitted once more, to convergence."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sweep.config import CONVERGED, PENALTIES, Probe
from sweep.probes.converged import TOLERANCE, fit_converged
from sweep.probes.data import ProbeData, ProbeResult

_STRICTER = 100  # how much smaller the gradient of a converged probe must become


def drawn(layers: int, share: float, seed: int) -> list[int]:
    """A share of the layers at random: as many as it is, rounded up or down so that it holds on average."""
    generator = np.random.default_rng(seed)
    count = min(layers, int(np.floor(layers * share + generator.random())))
    return sorted(generator.choice(layers, count, replace=False).tolist())


def checked(
    data: ProbeData,
    recipe: Probe,
    results: Sequence[ProbeResult],
    layers: Sequence[int],
    *,
    budget: int | None,
    cpus: int | None = None,
) -> list[ProbeResult]:
    """Results with ``check_top1`` on some layers.

    A probe of another solver is held against the default one: converged, on standardised embeddings, with the penalty
    that held-out images choose. A converged one is held against itself at its penalty with a gradient a hundredth as
    large.
    """
    found: dict[int, float] = {}
    fit = functools.partial(fit_converged, data, budget=budget, cpus=cpus)
    chosen = {result.layer: result for result in results if result.chosen and result.layer in layers}
    if recipe.solver != CONVERGED:
        sound = [layer for layer in layers if chosen[layer].problem is None]
        refit = Probe(solver=CONVERGED, standardize="feature", label_smoothing=0.0, penalties=PENALTIES[CONVERGED])
        found = {other.layer: other.top1 for other in fit(refit, sound)}
    for layer, result in chosen.items():
        if recipe.solver == CONVERGED and result.penalty is not None:
            alone = recipe.model_copy(update={"penalties": (result.penalty,)})
            (other,) = fit(alone, [layer], tolerance=TOLERANCE / _STRICTER)
            found[layer] = other.top1
    return [replace(result, check_top1=found.get(result.layer)) for result in results]
