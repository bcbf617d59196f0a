"""Several processes that train one network together, each on its part of every batch.

What they compute is what one process computes on the whole batch, up to the order of its sums: the loss is the mean
over the whole batch, batch norm sees all of it, and every random choice but the model's own noise (dropout, drop
path) is the same. The first process leads: it alone reads and writes the store.

Shapes: N images, B batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from sweep.train.batch_norm import synchronised

T = TypeVar("T")


class RankLostError(ConnectionError):
    """Another process of a training run is gone, or could not start; another attempt may succeed."""


class Ranks:
    """One process among those that train together; torch.distributed connects them.

    Parameters
    ----------
    rank : of this process; 0 leads.
    size : how many there are.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self.told = False  # whether the leader has said what is to be done

    @property
    def leads(self) -> bool:
        """Whether this process reads and writes the store."""
        return self.rank == 0

    @property
    def noise(self) -> tuple[int, ...]:
        """What the seed of the model's own noise needs besides: other images need other noise."""
        return (self.rank,) if self.rank else ()

    def part(self, indices_B: np.ndarray) -> np.ndarray:
        """Its own images of a batch; parts differ by one image at most."""
        return np.array_split(indices_B, self.size)[self.rank]

    def weight(self, part: int, batch: int) -> float:
        """Factor of the mean loss over this process's part, so that the processes' average is that over the batch."""
        return part * self.size / batch

    def share(self, model: nn.Module) -> nn.Module:
        """The model as training calls it: gradients averaged over processes, batch norm over the whole batch."""
        if self.size == 1:
            return model
        with self.watched():
            # static: a model may have parameters that it never uses
            return nn.parallel.DistributedDataParallel(synchronised(model), static_graph=True)

    def total(self, value: Tensor) -> Tensor:
        """Sum over processes."""
        if self.size > 1:
            with self.watched():
                dist.all_reduce(value)
        return value

    def agreed(self, value: T) -> T:
        """The leader's value, for all."""
        if self.size == 1:
            return value
        box: list[Any] = [value]
        with self.watched():
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def tell(self, plan: Any) -> None:
        """The leader says what is to be done, once; the others wait for it in :meth:`hear`."""
        self.told = True
        self.agreed(plan)

    def hear(self) -> Any:
        """What the leader said."""
        return self.agreed(None)

    @contextmanager
    def all_or_none(self, device: torch.device) -> Iterator[None]:
        """Nobody goes on from this block unless everybody does; the others get a RankLostError."""
        error: Exception | None = None
        try:
            yield
        except Exception as caught:
            error = caught
        failed = self.total(torch.tensor(float(error is not None), device=device)) if self.size > 1 else 0.0
        if error is not None:
            raise error
        if failed:
            raise RankLostError("another process of this training run could not start")

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Make a failing exchange a RankLostError: torch raises a plain RuntimeError when a process is gone."""
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if self.size == 1:
                raise
            first = str(error).splitlines()[0]
            raise RankLostError(f"a process of this training run was lost, or failed: {first}") from error


ALONE = Ranks()


def connected() -> Ranks:
    """The process that runs this, among those that torch.distributed has connected."""
    return Ranks(dist.get_rank(), dist.get_world_size())
