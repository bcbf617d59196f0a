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
from dataclasses import asdict, dataclass, fields
from typing import Any

from sweep.base.store import Store
from sweep.probes import ProbeResult

log = logging.getLogger(__name__)

FITS = "fits/"
_BYTES = frozenset(field.name for field in fields(ProbeResult) if field.type == "bytes")


@dataclass(frozen=True)
class SavedFit:
    """Probes of a curve, and what fitting them took."""

    results: Sequence[ProbeResult]
    seconds: float
    peak_bytes: int


def save_fit(store: Store, curve_key: str, fitted: SavedFit) -> None:
    """Keep fitted probes for the next attempt at a curve."""
    content = json.dumps(
        {"results": [_plain(each) for each in fitted.results]}
        | {"seconds": fitted.seconds, "peak_bytes": fitted.peak_bytes}
    ).encode()
    store.put(FITS + curve_key, hashlib.sha256(content).digest() + content)


def saved_fit(store: Store, curve_key: str) -> SavedFit | None:
    """What was saved; None if nothing was. What is damaged or of another version is removed, which is said."""
    try:
        data = store.get(FITS + curve_key)
    except FileNotFoundError:
        return None
    try:
        digest, content = data[:32], data[32:]
        if hashlib.sha256(content).digest() != digest:
            raise ValueError("its bytes are not those that were written")
        found = json.loads(content)
        return SavedFit([_result(each) for each in found["results"]], found["seconds"], found["peak_bytes"])
    except (ValueError, KeyError, TypeError) as error:
        log.warning("probes of %s that were saved cannot be read (%s): they are fitted again", curve_key, error)
        forget_fit(store, curve_key)
        return None


def forget_fit(store: Store, curve_key: str) -> None:
    """Forget them: the curve is in the table."""
    store.delete(FITS + curve_key)


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
