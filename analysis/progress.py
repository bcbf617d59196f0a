"""What a long run is at, on stderr: a line per stage once the run is no longer short, and refits as they are done."""

from __future__ import annotations

import sys
import time

SHORT = 4.0  # s; a run that is over by then says nothing


class Progress:
    """Lines for people; the default of a call from Python is :class:`Silent`."""

    def __init__(self) -> None:
        self._terminal, self._started = sys.stderr.isatty(), time.monotonic()
        self._last = self._stage_started = self._started

    def stage(self, words: str) -> None:
        """A new stage begins."""
        self._stage_started = time.monotonic()
        if self._stage_started - self._started > SHORT:
            print(words, file=sys.stderr, flush=True)

    def refits(self, done: int, total: int) -> None:
        """One line on a terminal, redrawn twice a second; a line every 20 s elsewhere."""
        now = time.monotonic()
        if done < total and now - self._last < (0.5 if self._terminal else 20):
            return
        self._last = now
        end = "\r" if self._terminal and done < total else "\n"
        if self._terminal or done < total:
            left = f", {(now - self._stage_started) * (total - done) / done:.0f} s left" if done < total else " "
            print(f"resampling: {done} of {total} refits{left:<10}", end=end, file=sys.stderr, flush=True)


class Silent(Progress):
    """Says nothing."""

    def stage(self, words: str) -> None:
        """Nothing."""

    def refits(self, done: int, total: int) -> None:
        """Nothing."""
