"""The progress line of a run, drawn from what the store holds."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

from sweep import table
from sweep.base.errors import StorageError
from sweep.base.line import Line, duration
from sweep.base.store import Store
from sweep.table import fresh_notes

_REMOTE_SECONDS = 15.0  # between two looks into an object store: a listing of it takes time and money


class Meter:
    """Curves and probes done, probes per second, time left, what is under way.

    Parameters
    ----------
    name : of the sweep.
    store : looked at, never written.
    work : for the key of each curve to do, its estimated work and its number of probes.
    """

    def __init__(self, name: str, store: Store, work: Mapping[str, tuple[float, int]]) -> None:
        self._name, self._store, self._work, self._line = name, store, work, Line()
        self._started = time.monotonic()
        self._looked = float("-inf")

    def announce(self, backbones: int, there: int, courses: int = 0) -> None:
        """Say what there is to do."""
        more = f" and {courses} series of tasks" if courses else ""
        print(
            f"{self._name}: {len(self._work)} curves of {backbones} backbones{more} to do, {there} already there",
            file=sys.stderr,
        )

    def show(self, *, waiting_for: str = "") -> None:
        """Draw the line anew; while the store cannot be read, the old one stands.

        Parameters
        ----------
        waiting_for : what keeps tasks from starting, if something does.
        """
        now = time.monotonic()
        if not self._store.is_local and now - self._looked < _REMOTE_SECONDS:
            return
        self._looked = now
        try:
            self._line.show(self._text(now - self._started, waiting_for))
        except StorageError:
            return

    def _text(self, elapsed: float, waiting_for: str) -> str:
        done = table.listing(self._store).done & self._work.keys()
        share = sum(self._work[key][0] for key in done) / (sum(work for work, _ in self._work.values()) or 1)
        probes = sum(self._work[key][1] for key in done)
        left = f"{duration(elapsed * (1 - share) / share)} left" if share else "estimating the time left"
        parts = [f"{len(done)}/{len(self._work)} curves", f"{probes / elapsed:.1f} probes/s", left]
        notes, _ = fresh_notes(self._store)
        if notes:
            note = max(notes, key=lambda n: n["time"])
            detail = f" ({note['detail']})" if note["stage"] == "decoding" and note.get("detail") else ""
            parts.append(f"{note['stage']} {note['backbone']} {note['done']}/{note['total']}{detail}")
        elif waiting_for:
            parts.append(f"waiting for {waiting_for}")
        return f"{self._name}  " + " · ".join(parts)

    def end(self) -> None:
        """Leave the line."""
        self._line.end()
