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

from sweep.base.errors import DeviceError, InterruptedSweepError
from sweep.base.spans import span
from sweep.cell import CellResult, CellTask, profiled
from sweep.config import Resources
from sweep.driver.cluster import places, room
from sweep.driver.nodes import Nodes, NoNodeLeftError, located, node_id
from sweep.driver.processes import start
from sweep.study import Planned, PlannedCell

POLL_SECONDS = 1.0
Stage = Literal["whole", "train", "curves"]
_PASSES = (OSError, DeviceError, MemoryError)  # another attempt may succeed
_FIRST_PAUSE, _LONGEST_PAUSE = 2.0, 120.0  # s, before a lost cell is tried again; doubled each time


@dataclass(frozen=True)
class Lost:
    """An attempt at a cell that ended without a result.

    Attributes
    ----------
    error : what Ray or the task raised.
    transient : whether another attempt may succeed: I/O, a device, too little memory, a dead worker or node.
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
        return cause, isinstance(cause, _PASSES) or type(cause).__name__ == "OutOfMemoryError"  # torch's, not imported
    return error, not isinstance(error, ray.exceptions.RuntimeEnvSetupError)  # dead worker, node, lost object


def _run_task(task: CellTask) -> CellResult:
    """Body of the Ray task; torch is imported in the worker only."""
    with profiled(task):
        with span("loading torch"):
            from sweep.cell import run_cell

        with located():
            result = run_cell(task)
    return replace(result, node=node_id())


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
    """A task to start: a whole cell, the training of one, or some of its curves; not, if there are others, on the nodes
    whose devices it has met failing.
    """

    cell: PlannedCell
    stage: Stage = "whole"
    attempt: int = 1
    avoid: frozenset[str] = frozenset()

    @property
    def processes(self) -> int:
        """How many processes it takes, each in a place of the cluster."""
        return 1 if self.stage == "curves" else self.cell.backbone.processes

    def split(self, places: int, others: int) -> list[_Job]:
        """The jobs to start instead: this one, or its parts where fewer backbones are left than the cluster has places.

        Then a backbone is trained by one task, and its curves are embedded and probed by several; always so where
        several processes train together. A backbone that learns further tasks stays with one task.
        """
        if self.cell.courses:
            return [self]
        if self.processes > 1:
            return [replace(self, stage="train")]
        if self.stage != "whole" or others >= places or places == 1 or len(self.cell.curves) == 1:
            return [self]
        return [replace(self, stage="train")] if self.cell.backbone.recipe else self.curves(self.cell.curves, places)

    def curves(self, left: Sequence[Planned], places: int) -> list[_Job]:
        """Some of the curves in as many jobs as there are places."""
        chunks = [tuple(left[start::places]) for start in range(min(places, len(left)))]
        return [replace(self, cell=replace(self.cell, curves=chunk), stage="curves") for chunk in chunks]

    def again(self, avoid: str | None = None) -> _Job:
        """The next attempt; weights that several processes trained are theirs to make again if they are damaged."""
        together = self.cell.backbone.processes > 1
        unwanted = self.avoid | ({avoid} if avoid else set())
        stage = "train" if together else self.stage
        return replace(self, stage=stage, attempt=self.attempt + 1, avoid=unwanted)


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

    def drain(self) -> list[_Job]:
        """Take all, in order."""
        found = [job for _, _, job in sorted(self._heap)]
        self._heap = []
        return found

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


class _Flight:
    """The tasks that Ray has, those that wait, and what becomes of each.

    Parameters
    ----------
    resources, task_of, lost : see :func:`run_cells`.
    """

    def __init__(
        self,
        cells: Sequence[PlannedCell],
        resources: Resources,
        task_of: Callable[[PlannedCell, bool], CellTask],
        lost: Callable[[Lost], None],
    ) -> None:
        self._resources, self._task_of, self._lost = resources, task_of, lost
        self._remote, self.nodes = _remote(resources), Nodes(resources)
        self.queue = _Queue(sorted(cells, key=lambda cell: cell.backbone.processes == 1))
        self.running: dict[Any, tuple[_Job, float]] = {}

    def _fits(self, job: _Job) -> bool:
        return _fits(job, [other for other, _ in self.running.values()], self._resources)

    def start(self) -> None:
        """Give Ray what may start now."""
        while not self.nodes.are_gone and (job := self.queue.take(self._fits)):
            job, *rest = job.split(self._places(), len(self.queue) + len(self.running))
            task = self._task_of(job.cell, job.stage == "train")
            if job.processes > 1:
                reference = start(task, self._resources)
            else:
                reference = self._remote.options(**self.nodes.options(job.avoid)).remote(task)
            self.running[reference] = (job, time.monotonic())
            self.queue.put(*rest)

    def land(self) -> None:
        """Wait a moment for tasks that end."""
        import ray

        ended, _ = ray.wait(list(self.running), num_returns=1, timeout=POLL_SECONDS)
        for reference in ended:
            job, since = self.running.pop(reference)
            try:
                self._ended(job, ray.get(reference))
            except ray.exceptions.RayError as error:
                self._failed(job, error, time.monotonic() - since)

    def _ended(self, job: _Job, result: CellResult) -> None:
        train = job.stage == "train"
        if result.done or (train and not result.failed):
            self.nodes.succeeded(result.node)
        if train:
            left = [planned for planned in job.cell.curves if planned.key not in result.failed]
            self.queue.put(*job.curves(left, self._places()))

    def _failed(self, job: _Job, error: Exception, seconds: float) -> None:
        cause, transient = cause_of(error)
        self._lost(Lost(job.cell, cause, transient, seconds))
        avoid = None
        if isinstance(cause, DeviceError):
            self.nodes.failed(cause, job.cell.run)
            avoid = cause.node
        if transient and job.attempt <= self._resources.retries:
            self.queue.put(job.again(avoid), wait=pause(job.attempt))

    def give_up(self) -> None:
        """No node is left: what waits is left for the next run, with the reason."""
        reason = NoNodeLeftError("no node is left: " + "; ".join(self.nodes.out.values()))
        for job in self.queue.drain():
            self._lost(Lost(job.cell, reason, True, 0.0))

    def _places(self) -> int:
        return places(self._resources, without=self.nodes.out)


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
    Those that several processes train come first, and each takes as many places. What fails by a device goes to
    another node if there is one, see :mod:`sweep.driver.nodes`; once none is left the rest is given up.

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
    flight, signals = _Flight(cells, resources, task_of, lost), Signals()
    while flight.queue or flight.running:
        signals.check()
        flight.start()
        if flight.running:
            flight.land()
            show(len(flight.running))
        elif flight.nodes.are_gone:
            flight.give_up()
        else:
            time.sleep(POLL_SECONDS / 4)
