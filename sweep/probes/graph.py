"""A training step as a CUDA graph: launched once per batch, instead of one operator after the other."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_WARM_UP = 3  # steps before capture, as torch's documentation asks for


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """One for the process: cuBLAS keeps a workspace of each stream it has seen, 32 MiB on an H100."""
    return torch.cuda.Stream(device)


class Graphed:
    """A step on batches of one size, captured once.

    Parameters
    ----------
    step : updates ``state`` in place from image indices and labels, (B,) each; no host synchronisation.
    state : every tensor that outlives a step; capturing leaves it as it was.
    batch : images of every batch.
    """

    def __init__(
        self,
        step: Callable[[Tensor, Tensor], None],
        *,
        state: Sequence[Tensor],
        batch: int,
        device: torch.device,
    ) -> None:
        self._images_B, self._labels_B = (torch.zeros(batch, dtype=torch.long, device=device) for _ in range(2))
        before = [tensor.clone() for tensor in state]
        side = _side_stream(device)
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                step(self._images_B, self._labels_B)
        torch.cuda.current_stream(device).wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            step(self._images_B, self._labels_B)
        for tensor, value in zip(state, before, strict=True):
            tensor.copy_(value)

    def __call__(self, images_B: Tensor, labels_B: Tensor) -> None:
        """One step on this batch."""
        self._images_B.copy_(images_B)
        self._labels_B.copy_(labels_B)
        self._graph.replay()
