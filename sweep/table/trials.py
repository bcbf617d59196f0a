"""Records of the recipe search's trials in the store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from sweep.base.store import Store
from sweep.study import Record

RECORDS = "trials/"


def write_record(store: Store, key: str, record: Record) -> None:
    """Publish how a trial ended."""
    store.put(f"{RECORDS}{key}.json", json.dumps(asdict(record)).encode())


def read_records(store: Store, wanted: Sequence[str]) -> dict[str, Record]:
    """Records of the trials that have ended, by key; one that cannot be read counts as not there."""
    there = {name.removeprefix(RECORDS).removesuffix(".json") for name in store.names(RECORDS)}
    found = {}
    for key in wanted:
        if key not in there:
            continue
        try:
            fields = json.loads(store.get(f"{RECORDS}{key}.json"))
            accuracies = tuple(map(float, fields.pop("heldout_top1_epochs")))
            found[key] = Record(heldout_top1_epochs=accuracies, **fields)
        except (ValueError, TypeError, KeyError):
            continue
    return found
