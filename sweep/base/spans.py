"""Where the time of a process goes: stages as nested spans, noted only while somebody records them.

Where nobody does, a span costs a comparison. Imports nothing heavy: loading torch is a stage itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")
Save = Callable[[Sequence[dict[str, Any]]], None]
_SAVE_SECONDS = 10.0  # a process that is killed loses no more of its spans


@dataclass
class Span:
    """A stage from its start to its end, or so far.

    Attributes
    ----------
    start : seconds since 1970, so that machines can be compared.
    depth : how many spans it stands in.
    inside : seconds of the spans within it.
    shares : seconds of what happened in it too often to be spans of their own, by stage.
    """

    stage: str
    about: str
    start: float
    depth: int
    seconds: float = 0.0
    inside: float = 0.0
    shares: dict[str, float] = field(default_factory=dict)


class _Recorder:
    """The spans of one thread: those that ended, and those it is in."""

    def __init__(self, save: Save) -> None:
        self._save, self._ended, self._saved_at = save, list[Span](), time.monotonic()
        self._clock = time.time() - time.monotonic()  # once: a clock that is set meanwhile would move spans apart
        self.thread, self.open = threading.get_ident(), list[tuple[Span, float]]()

    def begin(self, stage: str, about: str) -> None:
        """Enter a span."""
        since = time.monotonic()
        self.open.append((Span(stage, about, self._clock + since, len(self.open)), since))

    def end(self) -> None:
        """Leave the span that was entered last."""
        span, since = self.open.pop()
        span.seconds = time.monotonic() - since
        if self.open:
            self.open[-1][0].inside += span.seconds
        self._ended.append(span)
        if not self.open:
            self._save_all()
        self.save_if_due()

    def save_if_due(self) -> None:
        """Save what there is, if that was last done long ago."""
        if self.open and time.monotonic() - self._saved_at >= _SAVE_SECONDS:
            self._save_all()

    def _save_all(self) -> None:
        self._save([asdict(each) for each in (*self._ended, *self._so_far())])
        self._saved_at = time.monotonic()

    def _so_far(self) -> Iterator[Span]:
        """The spans it is in, as if they ended now."""
        now, within = time.monotonic(), 0.0
        for span, since in reversed(self.open):
            so_far = Span(**asdict(span))
            so_far.seconds, so_far.inside = now - since, span.inside + within
            within = so_far.seconds
            yield so_far


_recorder: _Recorder | None = None


def _recording() -> _Recorder | None:
    """Who records this thread."""
    return _recorder if _recorder and _recorder.thread == threading.get_ident() else None


@contextmanager
def recorded(stage: str, save: Save | None, about: str = "") -> Iterator[None]:
    """Record the block of a ``with`` statement, itself a span, and those in it.

    Parameters
    ----------
    save : gets all spans so far, as dictionaries: at the end, and now and then before. None: nothing is recorded.
    """
    global _recorder
    if save is None:
        yield
        return
    before, _recorder = _recorder, _Recorder(save)
    try:
        with span(stage, about):
            yield
    finally:
        _recorder = before


@contextmanager
def span(stage: str, about: str = "") -> Iterator[None]:
    """Note the block of a ``with`` statement, if this thread is recorded."""
    recorder = _recording()
    if recorder is None:
        yield
        return
    recorder.begin(stage, about)
    try:
        yield
    finally:
        recorder.end()


def waited(items: Iterable[T], stage: str) -> Iterator[T]:
    """The items; the time that each takes to come is a share of the span around, under this name."""
    iterator = iter(items)
    while True:
        started = time.monotonic()
        try:
            item = next(iterator)
        except StopIteration:
            return
        recorder = _recording()
        if recorder and recorder.open:
            shares = recorder.open[-1][0].shares
            shares[stage] = shares.get(stage, 0.0) + time.monotonic() - started
            recorder.save_if_due()
        yield item


def still_there() -> None:
    """To be called now and then in a long span that no others are in, so that a kill does not take it."""
    recorder = _recording()
    if recorder:
        recorder.save_if_due()
