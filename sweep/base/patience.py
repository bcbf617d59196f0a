"""Waiting with a limit, and a word about what is waited for."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SAY_SECONDS = 15.0


@contextmanager
def limited(what: str, seconds: float) -> Iterator[None]:
    """Raise TimeoutError in a block of Python that takes longer; say after a while what it waits for.

    Signals reach the main thread only: in another one the block has no limit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    left = seconds

    def alarm(_number: int, _frame: FrameType | None) -> None:
        nonlocal left
        first, left = left == seconds, left - min(SAY_SECONDS, seconds)
        if left <= 0:
            raise TimeoutError(f"{what}: not done after {seconds:g} s")
        if first:
            print(f"waiting for {what} …", file=sys.stderr, flush=True)

    before = signal.signal(signal.SIGALRM, alarm)
    signal.setitimer(signal.ITIMER_REAL, min(SAY_SECONDS, seconds), SAY_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def watched(what: str, seconds: float, advice: str) -> Iterator[None]:
    """End the process with exit code 2 where a block of foreign code takes longer, which no exception would reach."""
    done = threading.Event()

    def watch() -> None:
        if not done.wait(min(SAY_SECONDS, seconds)):
            print(f"waiting for {what} …", file=sys.stderr, flush=True)
            if not done.wait(max(0.0, seconds - SAY_SECONDS)):
                print(f"{what}: not there after {seconds:g} s; {advice}", file=sys.stderr, flush=True)
                os._exit(2)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        done.set()
