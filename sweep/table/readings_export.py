"""``readings.parquet``: what was measured beside the probes, as one long table, beside ``probes.parquet``.

It is written like that: of one plan ``readings.parquet``; where several plans share a store each has
``readings-NAME.parquet`` too, and ``readings.parquet`` holds the rows of all. Where no plan asks for any there is none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from itertools import islice

import pyarrow as pa

from sweep.base.store import Store
from sweep.table.export import EXPORTS, is_current, together, written
from sweep.table.plans import PLANS, Plan, PlannedCurve, readable_plans
from sweep.table.readings import TABLE_SCHEMA, measured_keys, read_reading, under_labels

READINGS_TABLE = "readings.parquet"
_CURVES = 64  # of a part in memory


def export_readings(store: Store, plan: Plan) -> str | None:
    """Write the readings of a plan's finished curves, and of the other plans of the store.

    Returns
    -------
    path of the plan's own file, for people; None if it asks for no readings.
    """
    there = readable_plans(store)[0] if store.names(PLANS) else []
    others = [other for other in there if other.name != plan.name]
    asking = sorted((each for each in (plan, *others) if _asked(each)), key=lambda each: each.name)
    keys = measured_keys(store) if asking else frozenset()
    for each in asking if others else ():
        _export(store, each, f"readings-{each.name}.parquet", keys)
    if asking:
        _export(store, asking[0] if len(asking) == 1 else together(asking), READINGS_TABLE, keys)
    if not _asked(plan):
        return None
    return store.path(f"readings-{plan.name}.parquet" if others else READINGS_TABLE)


def _asked(plan: Plan) -> bool:
    return any(curve.readings for curve in plan.curves)


def _export(store: Store, plan: Plan, name: str, there: frozenset[str]) -> None:
    asked = [(curve, key) for curve in plan.curves for key in curve.readings]
    found = [(curve, key) for curve, key in asked if key in there]
    about = json.dumps({"name": plan.name, "asked": len(asked), "missing": len(asked) - len(found)})
    rows = json.dumps([[curve.key, curve.labels, key] for curve, key in found], sort_keys=True)
    made_from = {"about": about, "fragments": {"readings": hashlib.sha256(rows.encode()).hexdigest()}}
    record = f"{EXPORTS}{name.removesuffix('.parquet')}.json"
    if is_current(store, name, record, made_from):
        return
    schema = TABLE_SCHEMA.with_metadata({"tunnel_sweep": about})
    with written(_parts(store, found), schema) as (data, digest):
        store.put(name, data)
        store.put(record, json.dumps(made_from | {"sha256": digest}).encode())


def _parts(store: Store, found: Sequence[tuple[PlannedCurve, str]]) -> Iterator[pa.Table]:
    """The table, a part of the curves at a time."""
    waiting = iter(found)
    while part := list(islice(waiting, _CURVES)):
        tables = {key: read_reading(store, key) for key in dict.fromkeys(key for _, key in part)}
        yield under_labels((curve.key, curve.labels, tables[key]) for curve, key in part)
