"""The same work by several processes side by side, and how long it takes them: what they can share a device for."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.synchronize import Barrier
from threading import BrokenBarrierError
from typing import TypeAlias

Work: TypeAlias = Callable[
    [Callable[[], None]], float
]  # calls what it is given once it is ready; seconds from there on

_WAIT_SECONDS = 300.0  # for the slowest to be ready
_meeting: Barrier  # of the processes, in each of them


def at_once(work: Work, number: int) -> float:
    """The longest seconds of so many fresh processes that do the same work, all from the same moment on.

    Parameters
    ----------
    work : can be pickled. It prepares itself, calls what it is given, which waits for the others, does what is timed
        and returns how long that took.

    Raises
    ------
    Exception
        What befell one of them, such as too little memory of the device.
    """
    context = multiprocessing.get_context("spawn")  # a fork would take over CUDA, and threads with their locks
    meeting = context.Barrier(number)
    with ProcessPoolExecutor(number, context, initializer=_set_meeting, initargs=(meeting,)) as pool:
        asked = [pool.submit(_timed, work) for _ in range(number)]
        errors = [error for each in asked if (error := each.exception()) is not None]
    if errors:  # the others only waited in vain for one that had a reason
        raise next((error for error in errors if not isinstance(error, BrokenBarrierError)), errors[0])
    return max(each.result() for each in asked)


def _set_meeting(meeting: Barrier) -> None:
    global _meeting
    _meeting = meeting


def _meet() -> None:
    _meeting.wait(_WAIT_SECONDS)


def _timed(work: Work) -> float:
    try:
        return work(_meet)
    except BaseException:
        _meeting.abort()  # or the others would wait
        raise
