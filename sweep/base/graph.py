"""A training step as a CUDA graph: launched once per batch, instead of one operator after the other."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_WARM_UP = 3  # steps before capture, as torch's documentation asks for


@functools.cache
def side_stream(device: torch.device, number: int = 0) -> torch.cuda.Stream:
    """One of a few for the process: cuBLAS keeps a workspace of each stream it has seen, 32 MiB on an H100."""
    return torch.cuda.Stream(device)


class Graphed:
    """A step on inputs of the same shapes each time, captured once.

    Parameters
    ----------
    step : updates ``state`` in place from its inputs; no host synchronisation. What it returns is, of every call, the
        same tensor on the device.
    state : every tensor that outlives a step; capturing leaves it, and the device's random numbers, as they were.
    inputs : of a first call, on the device.
    """

    def __init__(
        self, step: Callable[..., Tensor | None], *, state: Sequence[Tensor], inputs: Sequence[Tensor]
    ) -> None:
        device = inputs[0].device
        self._inputs = [each.clone() for each in inputs]
        before, random = [tensor.detach().clone() for tensor in state], torch.cuda.get_rng_state(device)
        here, side = torch.cuda.current_stream(device), side_stream(device)
        side.wait_stream(here)
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                step(*self._inputs)
        here.wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        # others of this process, which read ahead, may go on with the device meanwhile
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._result = step(*self._inputs)
        with torch.no_grad():
            for tensor, value in zip(state, before, strict=True):
                tensor.copy_(value)
        torch.cuda.set_rng_state(random, device)

    def __call__(self, *inputs: Tensor) -> Tensor | None:
        """One step on these."""
        for room, each in zip(self._inputs, inputs, strict=True):
            room.copy_(each)
        self._graph.replay()
        return self._result
