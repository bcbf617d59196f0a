"""Independent pieces of work: on CPU side by side, one to a thread; on a GPU one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


def each(
    run: Callable[[T], R], tasks: Sequence[T], *, device: torch.device, alone: bool = False, cpus: int | None = None
) -> list[R]:
    """Run tasks one to a thread, as many as torch may use; torch's operators then stay on their thread.

    Parameters
    ----------
    device : that does the work. On a GPU one task follows the other: each fills it, a graph cannot be captured while
        another one is, and the precision of matmuls belongs to the process.
    alone : a single task stays on one thread too, where its rounding would depend on how many there are.
    cpus : so many threads, whatever torch may use.
    """
    threads = min(cpus or torch.get_num_threads(), len(tasks)) if device.type == "cpu" else 0
    if threads == 0 or (threads == 1 and not alone):
        return [run(task) for task in tasks]
    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(run, tasks))
    finally:
        torch.set_num_threads(before)  # what threads to come start with
