"""Standard streams that may be closed, full, of few characters, or read by a terminal: no traceback is about them.

What cannot be written is lost, and the exit code stays that of the work; only a reader of standard output that has had
enough ends the program, as it does for any other.
"""

from __future__ import annotations

import io
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
        """Write text as it can be shown."""
        self.draw(printable(text))
        return len(text)

    def draw(self, text: str) -> None:
        """Write text with the control characters that are ours."""
        try:
            self._stream.write(text)
        except OSError as error:
            self._lost(error)

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


def draw(stream: TextIO, text: str) -> None:
    """Write text with control characters that are ours to a stream."""
    stream.draw(text) if isinstance(stream, Steady) else stream.write(text)


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


@contextmanager
def deferred() -> Iterator[None]:
    """Let SIGINT and SIGTERM wait for the end of a block: the import of C code may swallow what is raised in it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if came:
            signal.raise_signal(came[0])


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """SIGTERM before there is a loop that looks for it: as Ctrl-C, and only once."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt("SIGTERM")
