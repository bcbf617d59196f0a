"""Plans of a sweep: what it asks for, and the labels of its rows.

Fragments know their key and what was measured; which backbone and dataset that is, a plan says. One fragment may serve
several curves. Plans of version 0.1.0 have no labels: their fragments carry their own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from analysis.tables.errors import UserError

_VERSION = 2
_NO_LABELS = ("curve_key", "words")  # columns of a row


@dataclass(frozen=True)
class Plan:
    """What one config asks for.

    Attributes
    ----------
    curves : one row per curve in plan order: ``curve_key``, ``backbone`` (in words), ``dataset``, then its labels.
    roles : role of each variable that varies.
    adjust : variable → confounders that the report holds equal for it.
    labels : columns of ``curves`` that are columns of the probe table; none in plans of version 0.1.0.
    """

    name: str
    curves: pd.DataFrame
    roles: Mapping[str, str]
    labels: tuple[str, ...]
    adjust: Mapping[str, Sequence[str]] = field(default_factory=dict)


_AGAIN = "a run of its config writes it again, --verify sets it aside"


def parse(name: str, place: str, data: bytes) -> Plan:
    """A plan as it stands in a store; UserError if it is no plan that this program knows."""
    try:
        saved = _json(data)
        _refuse_changed(saved)
        rows = _labelled(saved) if saved.get("version") == _VERSION else _in_words(saved)
        adjust = {str(name): [str(other) for other in others] for name, others in saved.get("adjust", {}).items()}
        roles = {str(variable): str(role) for variable, role in saved.get("roles", {}).items()}
    except KeyError as error:
        raise UserError(f"{place}: not a plan that can be read (it has no {error.args[0]}); {_AGAIN}") from None
    except (TypeError, AttributeError, IndexError):
        raise UserError(f"{place}: not a plan that can be read (it has other parts); {_AGAIN}") from None
    except ValueError as error:
        raise UserError(f"{place}: not a plan that can be read ({error}); {_AGAIN}") from None
    labels = tuple(dict.fromkeys(["dataset", *(each for row in rows for each in row if each not in _NO_LABELS)]))
    frame = pd.DataFrame(rows, columns=["curve_key", "words", *labels]).rename(columns={"words": "backbone"})
    return Plan(name, frame, roles, labels if "version" in saved else (), adjust)


def _json(data: bytes) -> dict[str, Any]:
    try:
        saved = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON, or not all of it") from None
    if not isinstance(saved, dict):
        raise TypeError(saved)
    return saved


def _refuse_changed(saved: Mapping[str, Any]) -> None:
    """ValueError if a plan is not what was written; older ones have no digest."""
    rest = {name: value for name, value in saved.items() if name != "sha256"}
    if "sha256" in saved and hashlib.sha256(json.dumps(rest).encode()).hexdigest() != saved["sha256"]:
        raise ValueError("its bytes are not those that were written")


def _labelled(saved: Mapping[str, Any]) -> list[dict[str, Any]]:
    backbones = [(str(words), dict(labels)) for words, _run, labels in saved["backbones"]]
    rows = []
    for key, number, dataset, is_id in saved["curves"]:
        words, labels = backbones[number]
        if not isinstance(dataset, str):
            raise ValueError(f"a curve of {words} on {dataset!r}")
        rows.append({"curve_key": str(key), "words": words, **labels, "dataset": dataset, "is_id": is_id})
    return rows


def _in_words(saved: Mapping[str, Any]) -> list[dict[str, Any]]:
    if "version" in saved:
        raise ValueError(f"version {saved['version']}, this program knows {_VERSION}")
    return [
        {"curve_key": key, "words": str(words), "dataset": str(dataset)}
        for key, (words, dataset, *_) in saved["curves"].items()
    ]


def joined(measured: pa.Table, plan: Plan) -> pa.Table:
    """Rows of fragments under a plan's labels, in plan order; what the plan does not ask for is left out.

    ``id_images`` of backbones that the sweep trained is measured (``trained_images``), and γ follows from it.
    """
    found = measured.to_pandas()
    own = [column for column in found if column not in plan.labels and column != "backbone"]
    asked = plan.curves.drop(columns="backbone").assign(_order=np.arange(len(plan.curves)))
    rows = asked.merge(found[own].assign(_row=np.arange(len(found))), on="curve_key", how="inner")
    rows = rows.sort_values(["_order", "_row"], kind="stable").drop(columns=["_order", "_row"])
    if "trained_images" in rows and "id_images" in rows:
        rows["id_images"] = rows["id_images"].astype(float).fillna(rows["trained_images"])
        rows["overparametrization"] = rows["parameters"].astype(float) / rows["id_images"]
    return pa.Table.from_pandas(rows, preserve_index=False)
