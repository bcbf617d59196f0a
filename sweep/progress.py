"""Notes that a worker leaves in the store about what it is doing, for whoever watches.

They are small JSON files under ``running/``; nothing depends on them.
"""

from __future__ import annotations

import json
import os
import socket
import time
from types import TracebackType
from typing import Any

from sweep.store import Store

RUNNING = "running/"
_SECONDS_BETWEEN = 3.0


class Progress:
    """A note per backbone under way; removed when the ``with`` block ends.

    Parameters
    ----------
    store : where the sweep writes.
    key : names the note.
    label : what people call the backbone.
    """

    def __init__(self, store: Store, key: str, label: str) -> None:
        self._store, self._name, self._label = store, f"{RUNNING}{key}.json", label
        self._last = float("-inf")

    def __enter__(self) -> Progress:
        return self

    def say(self, stage: str, done: int, total: int, *, detail: str = "") -> None:
        """Note how far a stage is; at most one write every few seconds."""
        if time.monotonic() - self._last < _SECONDS_BETWEEN:
            return
        self._last = time.monotonic()
        note = {
            "backbone": self._label,
            "stage": stage,
            "done": done,
            "total": total,
            "detail": detail,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "time": time.time(),
        }
        self._store.put(self._name, json.dumps(note).encode())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._store.delete(self._name)


def read_notes(store: Store) -> list[dict[str, Any]]:
    """What is under way according to the workers' notes; a note that vanishes meanwhile is left out."""
    notes = []
    for name in store.names(RUNNING):
        try:
            notes.append(json.loads(store.get(name)))
        except FileNotFoundError:
            continue
    return notes
