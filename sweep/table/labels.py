"""Labels of rows: what a fragment's key does not determine is joined from a plan when the table is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa

from sweep.table.fragments import conform
from sweep.table.plans import PlannedCurve
from sweep.table.schema import FRAGMENT_SCHEMA, LABELS, SCHEMA, is_statistic

_MEASURED = ("id_images", "overparametrization")  # of backbones that are trained here


def joined(fragments: Mapping[str, pa.Table], curves: Sequence[PlannedCurve]) -> pa.Table:
    """Rows of the probe table: those of each curve's fragment, under the curve's labels.

    Parameters
    ----------
    fragments : by key, as they were read; one may serve several curves.
    curves : in the order wanted; those without labels keep what version 0.1.0 wrote into their fragments.

    Returns
    -------
    a table of :data:`sweep.table.SCHEMA`, columns of registered statistics after it.
    """
    schemas = _distinct(fragments.values())
    registered = {field.name: field for schema in schemas for field in schema if is_statistic(field)}
    schema = pa.schema([*SCHEMA, *registered.values()], SCHEMA.metadata)
    if not curves:
        return schema.empty_table()
    own = pa.schema([*FRAGMENT_SCHEMA, *registered.values(), *(SCHEMA.field(name) for name in LABELS)])
    keys = list(dict.fromkeys(curve.key for curve in curves))
    options = "none" if len(schemas) == 1 else "permissive"
    every = pa.concat_tables([fragments[key] for key in keys], promote_options=options)
    measured = conform(every.combine_chunks(), own)  # in one piece: fragments are thousands of small arrays
    lengths = np.array([len(fragments[key]) for key in keys])
    starts = dict(zip(keys, np.cumsum(lengths) - lengths, strict=True))
    rows = [np.arange(len(fragments[curve.key])) + starts[curve.key] for curve in curves]
    curve_of_row = np.repeat(np.arange(len(curves)), [len(part) for part in rows])
    if len(keys) < len(curves):
        measured = measured.take(pa.array(np.concatenate(rows)))
    return _with_labels(measured, curves, curve_of_row, schema)


def _distinct(tables: Iterable[pa.Table]) -> list[pa.Schema]:
    """Schemas of some tables, each once: nearly all fragments have the same."""
    found: list[pa.Schema] = []
    for table in tables:
        schema = table.schema
        if not any(schema.equals(other) for other in found):
            found.append(schema)
    return found


def _with_labels(
    measured: pa.Table, curves: Sequence[PlannedCurve], curve_of_row: np.ndarray, schema: pa.Schema
) -> pa.Table:
    """The columns of the schema: labels of each row's curve, all else as it was measured."""
    import pyarrow.compute as pc  # a tenth of a second, which a rerun that writes no table need not wait for

    take = pa.array(curve_of_row)
    told = pa.array([bool(curve.labels) for curve in curves]).take(take)
    found = {}
    for name in LABELS:
        values = pa.array([curve.labels.get(name) for curve in curves], SCHEMA.field(name).type).take(take)
        found[name] = pc.if_else(told, values, measured[name])
    images = pc.coalesce(found["id_images"], measured["trained_images"])
    found["id_images"] = images
    ratio = pc.divide(found["parameters"].cast(pa.float64()), images.cast(pa.float64()))
    found["overparametrization"] = pc.if_else(told, ratio, measured["overparametrization"])
    return pa.table([found.get(field.name, measured[field.name]) for field in schema], schema=schema)


def relabelled(fragments: Mapping[str, pa.Table], curves: Sequence[PlannedCurve]) -> dict[str, int]:
    """Columns in which labels that version 0.1.0 wrote into fragments differ from the plan's; how many curves of each.

    ``id_images`` and γ of trained backbones are measured, so they are not among them.
    """
    counts: dict[str, int] = {}
    for curve in curves:
        stored = fragments[curve.key]
        there = {*stored.schema.names}.intersection(LABELS) if curve.labels and len(stored) else ()
        for name in (label for label in LABELS if label in there):
            if name in _MEASURED and curve.labels[name] is None:
                continue
            if stored[name][0].as_py() != curve.labels.get(name):
                counts[name] = counts.get(name, 0) + 1
    return counts
