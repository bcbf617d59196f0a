"""Cells as Ray tasks: a bounded number in flight, those that were lost tried again after a pause."""

from __future__ import annotations

import heapq
import itertools
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any, Literal

from sweep.base.errors import InterruptedSweepError
from sweep.base.spans import span
from sweep.cell import CellResult, CellTask, profiled
from sweep.config import Resources
from sweep.driver.cluster import places, room
from sweep.driver.processes import start
from sweep.study import Planned, PlannedCell

POLL_SECONDS = 1.0
Stage = Literal["whole", "train", "curves"]
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

    cell: PlannedCell
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
    with profiled(task):
        with span("loading torch"):
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


@dataclass(frozen=True)
class _Job:
    """A task to start: a whole cell, the training of one, or some of its curves."""

    cell: PlannedCell
    stage: Stage = "whole"
    attempt: int = 1

    @property
    def processes(self) -> int:
        """How many processes it takes, each in a place of the cluster."""
        return 1 if self.stage == "curves" else self.cell.backbone.processes

    def split(self, places: int, others: int) -> list[_Job]:
        """The jobs to start instead: this one, or its parts where fewer backbones are left than the cluster has places.

        Then a backbone is trained by one task, and its curves are embedded and probed by several; always so where
        several processes train together.
        """
        if self.processes > 1:
            return [replace(self, stage="train")]
        if self.stage != "whole" or others >= places or places == 1 or len(self.cell.curves) == 1:
            return [self]
        return [replace(self, stage="train")] if self.cell.backbone.recipe else self.curves(self.cell.curves, places)

    def curves(self, left: Sequence[Planned], places: int) -> list[_Job]:
        """Some of the curves in as many jobs as there are places."""
        chunks = [tuple(left[start::places]) for start in range(min(places, len(left)))]
        return [_Job(replace(self.cell, curves=chunk), "curves", self.attempt) for chunk in chunks]

    def again(self) -> _Job:
        """The next attempt; weights that several processes trained are theirs to make again if they are damaged."""
        together = self.cell.backbone.processes > 1
        return replace(self, stage="train" if together else self.stage, attempt=self.attempt + 1)


class _Queue:
    """Jobs in the order they may start: not before a moment, then as they came."""

    def __init__(self, cells: Sequence[PlannedCell]) -> None:
        self._ticket = itertools.count()
        self._heap: list[tuple[float, int, _Job]] = []
        self.put(*map(_Job, cells))

    def put(self, *jobs: _Job, wait: float = 0.0) -> None:
        """Add jobs that may start after so many seconds; without a wait, before those that came earlier and wait."""
        moment = time.monotonic() + wait if wait else 0.0
        for job in jobs:
            heapq.heappush(self._heap, (moment, next(self._ticket), job))

    def take(self, fits: Callable[[_Job], bool] = lambda _job: True) -> _Job | None:
        """The next job if it may start now; none overtakes one that does not fit yet."""
        if self._heap and self._heap[0][0] <= time.monotonic() and fits(self._heap[0][2]):
            return heapq.heappop(self._heap)[2]
        return None

    def __len__(self) -> int:
        return len(self._heap)


def _fits(job: _Job, running: Sequence[_Job], resources: Resources) -> bool:
    """Whether Ray may have a job now: a bounded number of tasks waits there.

    Not so while processes train together: they start once there is a place for each, and would never start if the
    tasks that wait took every place that becomes free.
    """
    together = [other for other in (job, *running) if other.processes > 1]
    if resources.wait_for_nodes or not together:
        return len(running) < int(resources.max_in_flight)
    return not running or sum(other.processes for other in (job, *running)) <= room(resources)


def run_cells(
    cells: Sequence[PlannedCell],
    resources: Resources,
    *,
    task_of: Callable[[PlannedCell, bool], CellTask],
    lost: Callable[[Lost], None],
    show: Callable[[int], None],
) -> None:
    """Keep a bounded number of tasks in flight until all cells have ended.

    A task is a cell; the last ones, when there are fewer than the cluster has places, are split into their curves.
    Those that several processes train come first, and each takes as many places.

    Parameters
    ----------
    resources : with ``auto`` resolved.
    task_of : what a worker needs to run a cell, or only to train it.
    lost : told of every attempt without a result.
    show : told once in a while how many tasks are in flight.

    Raises
    ------
    InterruptedSweepError
        On SIGINT or SIGTERM.
    """
    import ray

    remote, signals = _remote(resources), Signals()
    queue = _Queue(sorted(cells, key=lambda cell: cell.backbone.processes == 1))
    running: dict[Any, tuple[_Job, float]] = {}

    def fits(job: _Job) -> bool:
        return _fits(job, [other for other, _ in running.values()], resources)

    while queue or running:
        signals.check()
        while job := queue.take(fits):
            job, *rest = job.split(places(resources), len(queue) + len(running))
            task = task_of(job.cell, job.stage == "train")
            reference = start(task, resources) if job.processes > 1 else remote.remote(task)
            running[reference] = (job, time.monotonic())
            queue.put(*rest)
        if not running:
            time.sleep(POLL_SECONDS / 4)
            continue
        ended, _ = ray.wait(list(running), num_returns=1, timeout=POLL_SECONDS)
        for reference in ended:
            job, since = running.pop(reference)
            try:
                result = ray.get(reference)
                if job.stage == "train":
                    left = [planned for planned in job.cell.curves if planned.key not in result.failed]
                    queue.put(*job.curves(left, places(resources)))
            except ray.exceptions.RayError as error:
                cause, transient = cause_of(error)
                lost(Lost(job.cell, cause, transient, time.monotonic() - since))
                if transient and job.attempt <= resources.retries:
                    queue.put(job.again(), wait=pause(job.attempt))
        show(len(running))
