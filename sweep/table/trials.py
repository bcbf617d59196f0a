"""Records of the recipe search's trials in the store."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import get_args

from sweep.base.store import Store
from sweep.study import Record, TrialStatus

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
            found[key] = _checked(Record(heldout_top1_epochs=accuracies, **fields))
        except (ValueError, TypeError, KeyError, AttributeError):
            print(f"notice: {store.path(f'{RECORDS}{key}.json')} is damaged; the trial is done again", file=sys.stderr)
    return found


def _checked(record: Record) -> Record:
    """ValueError if a value is of another type than it was written with."""
    if record.status not in get_args(TrialStatus) or not isinstance(record.problem, str | None):
        raise ValueError(record)
    if not all(isinstance(value, int | float) for value in (record.n_heldout, record.seconds)):
        raise ValueError(record)
    return record
