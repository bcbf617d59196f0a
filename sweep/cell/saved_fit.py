"""Fitted probes of a curve whose statistics failed: saved in the store, for the next attempt at the curve.

Rows are published whole, with what the embeddings look like. A plug-in's statistic that raises would otherwise take the
fit with it, which costs many times as much.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from sweep.base.errors import StorageError
from sweep.base.store import Store
from sweep.probes import ProbeResult
from sweep.table import FITS

log = logging.getLogger(__name__)

_BYTES = frozenset(field.name for field in fields(ProbeResult) if field.type == "bytes")


@dataclass(frozen=True)
class SavedFit:
    """Probes of a curve, what fitting them took, and on which device."""

    results: Sequence[ProbeResult]
    seconds: float
    peak_bytes: int
    device: str


def save_fit(store: Store, key: str, fitted: SavedFit) -> None:
    """Keep fitted probes for the next attempt at a curve; where the store cannot, they are fitted again then."""
    said = asdict(replace(fitted, results=())) | {"results": [_plain(each) for each in fitted.results]}
    content = json.dumps(said).encode()
    try:
        store.put(FITS + key, hashlib.sha256(content).digest() + content)
    except StorageError as error:  # what comes after it is the error that counts
        log.warning("fitted probes could not be saved: %s", error)


def saved_fit(store: Store, key: str, device: str) -> SavedFit | None:
    """What was saved, if such a device fitted it; None if nothing was.

    What is damaged or of another version is removed, which is said.
    """
    try:
        data = store.get(FITS + key)
    except FileNotFoundError:
        return None
    try:
        digest, content = data[:32], data[32:]
        if hashlib.sha256(content).digest() != digest:
            raise ValueError("its bytes are not those that were written")
        found = json.loads(content)
        fitted = SavedFit(**found | {"results": [_result(each) for each in found["results"]]})
    except (ValueError, KeyError, TypeError) as error:
        log.warning("saved probes %s cannot be read (%s): they are fitted again", key, error)
        forget_fit(store, key)
        return None
    return fitted if fitted.device == device else None


def forget_fit(store: Store, key: str) -> None:
    """Remove saved probes: they are in the table."""
    store.delete(FITS + key)


def _plain(result: ProbeResult) -> dict[str, Any]:
    assert result.linear is None  # weights are not kept by this way
    return {
        name: base64.b64encode(value).decode() if name in _BYTES else value for name, value in asdict(result).items()
    }


def _result(said: dict[str, Any]) -> ProbeResult:
    for name, value in said.items():
        if name in _BYTES:
            said[name] = base64.b64decode(value)
        elif isinstance(value, list):
            said[name] = tuple(value)
    return ProbeResult(**said)
