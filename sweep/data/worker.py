"""What a process of :mod:`sweep.data.parallel` does: answer what it is asked on standard input, until that ends."""

from __future__ import annotations

import os
import pickle
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

# results up to an item that fails, its error, and the seconds it took
Answer: TypeAlias = tuple[list[Any], Exception | None, float]


def serve() -> None:
    """Answer until nobody asks any more."""
    asked, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a decoder prints must not stand among the answers
    try:
        while True:
            work, items = pickle.load(asked)
            pickle.dump(_answer(work, items), answers, protocol=5)
            answers.flush()
    except (EOFError, BrokenPipeError):  # who asked is gone
        os._exit(0)


def _answer(work: Callable[[Any], Any], items: Iterable[Any]) -> Answer:
    results: list[Any] = []
    started = time.perf_counter()
    try:
        for item in items:
            results.append(work(item))
    except Exception as error:
        return results, _sendable(error), time.perf_counter() - started
    return results, None, time.perf_counter() - started


def _sendable(error: Exception) -> Exception:
    """The error, or what it says where it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # of a user's or a library's own making
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
