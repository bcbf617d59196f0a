"""How many probes are in flight: what fits the device's memory, and on CPU what fits its caches.

However the probes are split, their results are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch

from sweep.base.memory import host_memory
from sweep.config import Probe
from sweep.probes.data import ProbeData

CACHE_BYTES = 6 << 20  # of a core's caches, for probes trained together on CPU (measured: tests/bench)
_STATE_BYTES = 16  # of a weight: itself, its gradient and both moments, float32
_INPUT_BYTES = 6  # of a number in a batch: float16 as stored, float32 as used


def budget_bytes(device: torch.device, fraction: float, *, tasks: int = 1) -> int:
    """Memory that a task may take now: a fraction of what is free on the device, or on the host for CPU.

    Parameters
    ----------
    tasks : how many share the device or the host; each has its part of the whole, free or not.
    """
    if device.type == "cuda":
        # what torch holds and does not use is free for whoever asks torch
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        free, total = torch.cuda.mem_get_info(device)
        return int(fraction * min(free + unused, total / tasks))
    free, total = host_memory()
    return int(fraction * min(free, total / tasks))


def fit_bytes(data: ProbeData, layer: int, *, probes: int) -> int:
    """Device memory of one layer in flight: its embeddings, and the state of both fits of so many probes."""
    emb_bytes = data.train[layer].nbytes + data.test[layer].nbytes
    return emb_bytes + 2 * probes * _STATE_BYTES * data.width(layer) * data.classes


def waves(layers: Sequence[int], costs: Sequence[int], budget: int | None) -> Iterator[list[int]]:
    """Layers in order, as many at once as the budget holds, at least one.

    Parameters
    ----------
    costs : bytes of each of ``layers``.
    budget : bytes; None for no limit.
    """
    wave: list[int] = []
    used = 0
    for layer, cost in zip(layers, costs, strict=True):
        if wave and budget is not None and used + cost > budget:
            yield wave
            wave, used = [], 0
        wave.append(layer)
        used += cost
    if wave:
        yield wave


def cached_groups(
    layers: Sequence[int], recipes: Sequence[Probe], *, width: int, classes: int
) -> Iterator[tuple[int, ...]]:
    """Layers of one width in groups of about equal size, whose probes and a batch of inputs fit a core's caches."""
    state = len(recipes) * _STATE_BYTES * width * classes
    most = max(1, CACHE_BYTES // (state + _INPUT_BYTES * recipes[0].batch_size * width))
    groups = -(-len(layers) // most)
    bounds = [number * len(layers) // groups for number in range(groups + 1)]
    for start, end in pairwise(bounds):
        yield tuple(layers[start:end])
