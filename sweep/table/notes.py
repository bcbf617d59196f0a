"""Notes that a worker leaves in the store about what it is doing, for whoever watches.

They are small JSON files under ``running/``; nothing depends on them.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import time
from types import TracebackType
from typing import Any

from sweep.base.errors import StorageError
from sweep.base.store import Store

RUNNING = "running/"
_SECONDS_BETWEEN = 3.0
_FIELDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("key", "backbone", "stage", "host"), str),
    **dict.fromkeys(("done", "total"), int),
    "time": (int, float),
}
STALE_SECONDS = 120.0  # a note this old belongs to a worker that is gone, or whose clock is wrong


class Progress:
    """A note per backbone under way; removed when the ``with`` block ends.

    Parameters
    ----------
    store : where the sweep writes.
    key : names the note.
    label : what people call the backbone.
    """

    def __init__(self, store: Store, key: str, label: str) -> None:
        self._store, self._key, self._label = store, key, label
        self._name = f"{RUNNING}{key}.json"
        self._last = float("-inf")

    def __enter__(self) -> Progress:
        return self

    def say(self, stage: str, done: int, total: int, *, detail: str = "") -> None:
        """Note how far a stage is; at most one write every few seconds."""
        if time.monotonic() - self._last < _SECONDS_BETWEEN:
            return
        self._last = time.monotonic()
        note = {
            "key": self._key,
            "backbone": self._label,
            "stage": stage,
            "done": done,
            "total": total,
            "detail": detail,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "time": time.time(),
        }
        with contextlib.suppress(StorageError):  # what depends on the store will say so
            self._store.put(self._name, json.dumps(note).encode())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(StorageError):
            self._store.delete(self._name)


def fresh_notes(store: Store) -> tuple[list[dict[str, Any]], list[str]]:
    """Notes of workers that are alive, as far as clocks tell; and in words which files are no notes, and left out."""
    notes, odd = [], []
    for name in (name for name in store.names(RUNNING) if name.endswith(".json")):
        with contextlib.suppress(FileNotFoundError):  # its worker is done
            note = _parsed(store.get(name))
            if note is None:
                odd.append(f"{store.path(name)} is no note of a worker that can be read; it is left out")
            elif time.time() - note["time"] < STALE_SECONDS:
                notes.append(note)
    return notes, odd


def problem_of_note(data: bytes) -> str | None:
    """Why these bytes are no note of a worker; None if they are."""
    return None if _parsed(data) else "it does not say who works at what"


def _parsed(data: bytes) -> dict[str, Any] | None:
    try:
        note = json.loads(data)
        whole = isinstance(note, dict) and all(isinstance(note.get(key), kind) for key, kind in _FIELDS.items())
        return note if whole and math.isfinite(note["time"]) else None
    except (ValueError, OverflowError, RecursionError):
        return None
