"""Standard streams that may be closed, full, of few characters, or read by a terminal: no traceback is about them.

As ``sweep.base.streams``, of which this half imports nothing. Results go to standard output; progress, warnings and
mistakes to standard error.

What cannot be written is lost, and the exit code stays that of the work; only a reader of standard output that has had
enough ends the program, as it does for any other.
"""

from __future__ import annotations

import io
import os
import re
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn, TextIO

INTERRUPTED, ENOUGH = 130, 141  # exit codes
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")  # all but tabs and the ends of lines


def printable(text: str) -> str:
    """Text whose control characters, such as a terminal's escapes in a config, are shown and not obeyed."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


class Steady(io.TextIOBase):
    """A standard stream in place of the one that Python made.

    Parameters
    ----------
    stream : that one.
    breaks : whether a reader that has gone is an error for the caller.
    """

    def __init__(self, stream: TextIO, *, breaks: bool) -> None:
        self._stream, self._breaks = stream, breaks

    def write(self, text: str) -> int:
        """Write text as it can be shown; a line may be drawn anew."""
        try:
            self._stream.write(printable(text))
        except OSError as error:
            self._lost(error)
        return len(text)

    def flush(self) -> None:
        """Hand on what was written."""
        try:
            self._stream.flush()
        except OSError as error:
            self._lost(error)

    def _lost(self, error: OSError) -> None:
        if self._breaks and isinstance(error, BrokenPipeError):
            raise error
        os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())  # Python flushes once more when it ends

    def isatty(self) -> bool:
        """Whether a terminal shows it."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Number of the file that it writes to."""
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """How characters become bytes."""
        return self._stream.encoding


def steady() -> None:
    """Prepare the process of a command, before anything is opened or written: streams, and SIGTERM as an interruption.

    Ends it where the working directory is gone: every relative path of the call would mean something else.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(INTERRUPTED))  # while modules are imported: nothing has begun
    while (place := os.open(os.devnull, os.O_RDWR)) < 3:
        os.set_inheritable(place, True)  # a file that took the place of a closed stream would get what is printed
    os.close(place)
    for name, breaks in (("stdout", True), ("stderr", False)):
        stream = getattr(sys, name) or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (for the whole process)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        setattr(sys, name, Steady(stream, breaks=breaks))
    try:
        os.getcwd()
    except FileNotFoundError:
        print("the working directory has been deleted: cd to one that is there, and run again", file=sys.stderr)
        sys.exit(2)


def run(main: Callable[[], int]) -> NoReturn:
    """Call a command and end with its exit code, or with 130 where a signal comes before anyone else looks for it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _interrupt)
    code: str | int | None
    try:
        try:
            code = main()
        except KeyboardInterrupt:
            print("interrupted; what is finished is kept", file=sys.stderr)
            code = INTERRUPTED
        except SystemExit as end:  # argparse
            code = end.code
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads has had enough: --plan | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more when it ends
        code = ENOUGH
    sys.exit(code)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """SIGTERM before there is a loop that looks for it: as Ctrl-C, and only once."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt("SIGTERM")
