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
        same tensor on the device, which the next step of this or another graph of its pool writes over.
    state : every tensor that outlives a step; capturing leaves it, and the device's random numbers, as they were, also
        where there is too little memory for it.
    inputs : of a first call, on the device.
    beside : another graph whose memory this one shares, as the two never run at once; it has warmed up for both.

    Raises
    ------
    torch.OutOfMemoryError
        As ``step`` does, or if there is no room for the graph's own memory.
    """

    def __init__(
        self,
        step: Callable[..., Tensor | None],
        *,
        state: Sequence[Tensor],
        inputs: Sequence[Tensor],
        beside: Graphed | None = None,
    ) -> None:
        device = inputs[0].device
        self._inputs = [each.clone() for each in inputs]
        random = torch.cuda.get_rng_state(device)
        if beside is None:
            _warmed_up(step, self._inputs, state)
        self._graph = torch.cuda.CUDAGraph()
        pool = None if beside is None else beside._graph.pool()
        # others of this process, which read ahead, may go on with the device meanwhile
        with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
            self._result = step(*self._inputs)
        torch.cuda.set_rng_state(random, device)

    def __call__(self, *inputs: Tensor) -> Tensor | None:
        """One step on these."""
        for room, each in zip(self._inputs, inputs, strict=True):
            room.copy_(each)
        self._graph.replay()
        return self._result


def _warmed_up(step: Callable[..., Tensor | None], inputs: Sequence[Tensor], state: Sequence[Tensor]) -> None:
    """Take some steps on another stream, and put back what they changed."""
    device = inputs[0].device
    here, side = torch.cuda.current_stream(device), side_stream(device)
    before, random = [tensor.detach().clone() for tensor in state], torch.cuda.get_rng_state(device)
    try:
        side.wait_stream(here)
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                step(*inputs)
    finally:
        here.wait_stream(side)
        with torch.no_grad():
            for tensor, value in zip(state, before, strict=True):
                tensor.copy_(value)
        torch.cuda.set_rng_state(random, device)
