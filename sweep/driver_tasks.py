"""Cells as Ray tasks: a bounded number in flight, those that were lost tried again after a pause."""

from __future__ import annotations

import heapq
import itertools
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

from sweep.config import Resources
from sweep.errors import InterruptedSweepError
from sweep.grid import Cell
from sweep.task import CellResult, CellTask

POLL_SECONDS = 1.0
_FIRST_PAUSE, _LONGEST_PAUSE = 2.0, 120.0  # s, before a lost cell is tried again; doubled each time


@dataclass(frozen=True)
class Lost:
    """An attempt at a cell that ended without a result.

    Attributes
    ----------
    error : what Ray or the task raised.
    transient : whether another attempt may succeed: I/O, a dead worker or node.
    seconds : how long it lasted.
    """

    cell: Cell
    error: Exception
    transient: bool
    seconds: float


class Signals:
    """Notes SIGTERM and SIGINT; the loop asks. Raising from a handler inside Ray's C code ends in a SystemError."""

    def __init__(self) -> None:
        self._caught: list[int] = []
        # ray.init installs handlers of its own, so this comes after it
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._caught.append(number)

    def check(self) -> None:
        """Raise InterruptedSweepError if a signal has come."""
        if self._caught:
            raise InterruptedSweepError(signal.Signals(self._caught[0]).name)


def pause(attempt: int) -> float:
    """Seconds to wait after a failed attempt, counted from 1: exponential, bounded."""
    return min(_FIRST_PAUSE * 2 ** (attempt - 1), _LONGEST_PAUSE)


def cause_of(error: Exception) -> tuple[Exception, bool]:
    """What is behind an error of Ray, and whether another attempt may succeed."""
    import ray

    if isinstance(error, ray.exceptions.RayTaskError):
        cause = getattr(error, "cause", None) or error
        return cause, isinstance(cause, OSError)
    return error, not isinstance(error, ray.exceptions.RuntimeEnvSetupError)  # dead worker, node, lost object


def _run_task(task: CellTask) -> CellResult:
    """Body of the Ray task; torch is imported in the worker only."""
    from sweep.cell import run_cell

    return run_cell(task)


def _remote(resources: Resources) -> Any:
    import ray

    return ray.remote(
        num_cpus=resources.cpus,
        num_gpus=resources.gpus,
        max_calls=1 if float(resources.gpus) > 0 else 0,  # a fresh process gives the GPU's memory back
        max_retries=0,  # Ray would try again at once, and would not tell
    )(_run_task)


def run_cells(
    cells: Sequence[Cell],
    resources: Resources,
    *,
    task_of: Callable[[Cell], CellTask],
    lost: Callable[[Lost], None],
    show: Callable[[int], None],
) -> None:
    """Keep a bounded number of cells in flight until all have ended.

    Parameters
    ----------
    resources : with ``auto`` resolved.
    task_of : what a worker needs to run a cell.
    lost : told of every attempt without a result.
    show : told once in a while how many cells are in flight.

    Raises
    ------
    InterruptedSweepError
        On SIGINT or SIGTERM.
    """
    import ray

    remote, signals, ticket = _remote(resources), Signals(), itertools.count()
    queue = [(0.0, next(ticket), 1, cell) for cell in cells]  # not before, order, attempt
    heapq.heapify(queue)
    running: dict[Any, tuple[Cell, int, float]] = {}
    while queue or running:
        signals.check()
        while queue and len(running) < int(resources.max_in_flight) and queue[0][0] <= time.monotonic():
            _, _, attempt, cell = heapq.heappop(queue)
            running[remote.remote(task_of(cell))] = (cell, attempt, time.monotonic())
        if not running:
            time.sleep(POLL_SECONDS / 4)
            continue
        ended, _ = ray.wait(list(running), num_returns=1, timeout=POLL_SECONDS)
        for reference in ended:
            cell, attempt, since = running.pop(reference)
            try:
                ray.get(reference)
            except ray.exceptions.RayError as error:
                cause, transient = cause_of(error)
                lost(Lost(cell, cause, transient, time.monotonic() - since))
                if transient and attempt <= resources.retries:
                    heapq.heappush(queue, (time.monotonic() + pause(attempt), next(ticket), attempt + 1, cell))
        show(len(running))
