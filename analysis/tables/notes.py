"""What a sweep's workers say they are doing, as small JSON files under ``running/`` of its store."""

from __future__ import annotations

import json
import time
from typing import Any

from analysis.tables import storage
from analysis.tables.errors import UserError

RUNNING = "running"
STALE_SECONDS = 120.0  # a note this old belongs to a worker that is gone
_FIELDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("backbone", "stage", "host"), str),
    **dict.fromkeys(("done", "total"), int),
    "time": (int, float),
}


def fresh(root: str) -> dict[str, str]:
    """By backbone, in the plan's words, how far its worker is; a note that is damaged or went away is left out."""
    found = {}
    for name in storage.names(storage.join(root, RUNNING)):
        note = _note(storage.join(root, f"{RUNNING}/{name}"))
        if note and time.time() - note["time"] < STALE_SECONDS:
            found[note["backbone"]] = f"{note['stage']}, {note['done']} of {note['total']}, on {note['host']}"
    return found


def _note(uri: str) -> dict[str, Any] | None:
    try:
        note = json.loads(storage.read(uri))
    except (UserError, ValueError):
        return None
    whole = isinstance(note, dict) and all(isinstance(note.get(key), kind) for key, kind in _FIELDS.items())
    return note if whole else None
