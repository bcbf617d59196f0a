"""Whether a table is what a sweep wrote, and the fragments beside it are those that it was made from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from analysis.tables import storage
from analysis.tables.errors import UserError

FRAGMENTS, EXPORTS = "fragments", "exports"
_READERS = 8  # threads that wait for the store
_AGAIN = "run the sweep again (nothing is computed twice), or give a copy elsewhere"


def refuse_changed(uri: str) -> None:
    """UserError if a sweep's table is not byte for byte what the sweep wrote, or its fragments are no longer those.

    Of a table without a record beside it, of an older version or from elsewhere, nothing is known. Fragments are told
    by size and time of writing, and where these differ (a copy has other times) by their SHA-256; where there is no
    folder of fragments, a table stands for itself.
    """
    name = storage.ending(uri).rpartition("/")[2].removesuffix(".parquet")
    folder = storage.folder(uri)
    record = storage.join(folder, f"{EXPORTS}/{name}.json")
    if not storage.exists(record):
        return
    try:
        saved = json.loads(storage.read(record))
        written, digests, stamps = saved["sha256"], dict(saved.get("digests", {})), dict(saved.get("fragments", {}))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{record} is damaged, so that nothing tells whether {uri} is; {_AGAIN}") from None
    if storage.sha256(uri) != written:
        raise UserError(f"{uri} is not what the sweep wrote: it is damaged, was changed, or is being written; {_AGAIN}")
    if stale := _stale(storage.join(folder, FRAGMENTS), digests, stamps):
        raise UserError(f"{uri} was made from other fragments: {stale}; {_AGAIN}")


def _stale(folder: str, digests: Mapping[str, str], written: Mapping[str, Any]) -> str | None:
    """Which fragment is not the one that a table was made from; None if all are, or there are none."""
    there = storage.stamps(folder) if digests else {}
    if not there:
        return None
    for key in digests:
        if f"{key}.parquet" not in there:
            return f"{key} is gone"
    doubted = [key for key in digests if there[f"{key}.parquet"] != written.get(key)]
    with ThreadPoolExecutor(_READERS) as pool:
        now = pool.map(lambda key: storage.sha256(storage.join(folder, f"{key}.parquet")), doubted)
        changed = [key for key, digest in zip(doubted, now, strict=True) if digest != digests[key]]
    return f"{changed[0]} is another" if changed else None
