"""One calm line of progress: redrawn on a terminal, printed now and then in a log."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TextIO

from sweep.base.streams import draw, printable

_LOG_SECONDS = 30.0


class Line:
    """A progress line on a stream.

    Parameters
    ----------
    stream : default standard error.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._last = time.monotonic() - _LOG_SECONDS / 2  # a log's first line comes after a while
        self._drawn = False

    def show(self, text: str) -> None:
        """Redraw the line; off a terminal print it at most twice a minute."""
        if self._stream.isatty():
            width = shutil.get_terminal_size().columns - 1
            draw(self._stream, "\r\x1b[K" + printable(text)[:width])
            self._drawn = True
        elif time.monotonic() - self._last >= _LOG_SECONDS:
            self._last = time.monotonic()
            self._stream.write(text + "\n")
        self._stream.flush()

    def end(self) -> None:
        """Leave the line and go to the next."""
        if self._drawn:
            draw(self._stream, "\r\x1b[K")
            self._stream.flush()
            self._drawn = False


def duration(seconds: float) -> str:
    """Seconds as people say them: 45 s, 3 min 20 s, 2 h 5 min."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
