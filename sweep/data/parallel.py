"""Work of several processes in the order of its items, such as decoding.

Processes, not threads: Pillow keeps Python's lock while it resizes, two thirds of the work at 224 px. Each is a fresh
interpreter that is asked through its pipes, :mod:`sweep.data.worker`. Those of ``multiprocessing`` would import the
main program once more, which may be Ray's or one of a user that does not expect it; a fork would take over the threads
and locks of torch and Ray. They end with the pipe, whatever this process dies of.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

from sweep.data.worker import Answer

Item = TypeVar("Item")
Result = TypeVar("Result")
_AHEAD = 3  # groups of each process that are read before they are needed: bounded, as they hold images
_GROUP_SECONDS, _MOST = 0.05, 256  # groups grow until one takes so long, or has so many items
_TRIAL_SECONDS = 0.2  # of work that this process does itself before it thinks of others
_WORTH_SECONDS = 0.5  # of work for which another is worth its start
_SERVE = "from sweep.data.worker import serve; serve()"


class LostProcessError(OSError):
    """A process that worked for this one died; ``items``: one of them was under way."""

    def __init__(self, code: int, items: Sequence[Any]) -> None:
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        hint = " (is memory short?)" if code == -signal.SIGKILL else ""
        super().__init__(f"a process died of {how}{hint}")
        self.items = items


class _Process:
    """A process that works for this one."""

    def __init__(self) -> None:
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _SERVE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
            process_group=0,  # a terminal's Ctrl-C is for us: we end it
        )

    def ask(self, work: Callable[[Any], Any], items: Sequence[Any]) -> Answer:
        """What work makes of the items up to one that fails, its error, and how many seconds it took."""
        asked = pickle.dumps((work, items), protocol=5)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(asked)
            self._process.stdin.flush()
            answer: Answer = pickle.load(self._process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            raise LostProcessError(self._process.wait(), items) from error
        return answer

    def kill(self) -> None:
        """It holds nothing that would be lost."""
        self._process.kill()

    def close(self) -> None:
        """Once nobody asks it any more."""
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # of a question that it did not hear to its end
                assert pipe is not None
                pipe.close()


def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], *, count: int, processes: int
) -> Generator[Result, None, None]:
    """What work makes of each item, in the order of items; errors are raised where their item stands.

    The first ones tell how long the others will take, and so how many processes are worth their start.

    Parameters
    ----------
    work, items : both can be pickled where there are several processes; items are taken in this one.
    count : of the items, about.
    processes : the most that work beside this one; with 1 this one does it.

    Raises
    ------
    LostProcessError
        A process was killed, or fell over an item.
    """
    rest, done, seconds = iter(items), 0, 0.0
    for item in rest:
        started = time.perf_counter()
        result = work(item)
        seconds, done = seconds + time.perf_counter() - started, done + 1
        yield result
        if processes > 1 and seconds >= _TRIAL_SECONDS:
            break
    else:
        return
    left = (count - done) * seconds / done
    number = min(processes, int(left / _WORTH_SECONDS))
    yield from _by_others(work, rest, number) if number > 1 else map(work, rest)


def _by_others(work: Callable[[Item], Result], items: Iterator[Item], processes: int) -> Iterator[Result]:
    workers = [_Process() for _ in range(processes)]
    idle: queue.SimpleQueue[_Process] = queue.SimpleQueue()
    for worker in workers:
        idle.put(worker)

    def ask(group: Sequence[Item]) -> Answer:
        """Have a process work that has nothing to do; there is one for each thread."""
        worker = idle.get()
        try:
            return worker.ask(work, group)
        finally:
            idle.put(worker)

    pool = ThreadPoolExecutor(processes, thread_name_prefix="asks-process")
    try:
        yield from _answers(lambda group: pool.submit(ask, group), items, ahead=_AHEAD * processes)
    finally:
        for worker in workers:
            worker.kill()
        pool.shutdown(cancel_futures=True)
        for worker in workers:
            worker.close()


def _answers(
    submit: Callable[[Sequence[Item]], Future[Answer]],
    items: Iterator[Item],
    *,
    ahead: int,
) -> Iterator[Result]:
    """Results of all items, in groups so large that asking costs little beside answering."""
    waiting: deque[Future[Answer]] = deque()
    size, more = 1, True
    while more or waiting:
        while more and len(waiting) < ahead:
            group = list(islice(items, size))
            more = bool(group)
            if group:
                waiting.append(submit(group))
        if waiting:
            results, error, seconds = waiting.popleft().result()
            yield from results
            if error is not None:
                raise error
            if seconds < _GROUP_SECONDS / 2 and len(results) == size < _MOST:
                size *= 2
