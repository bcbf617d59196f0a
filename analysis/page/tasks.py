"""Several tasks as rows for the report and the browsing page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.estimates.continual import Tasks
from analysis.estimates.estimate import Estimate
from analysis.findings.phrases import DASH, minus


def of(tasks: Tasks | None) -> dict[str, Any] | None:
    """Every number, for programs and the browsing page; None where there are no courses."""
    if tasks is None:
        return None
    return {
        "table": _table(tasks),
        "rows": [
            {
                "configuration": row.configuration,
                "split_by": row.split_by,
                "split_layer": row.split,
                "combination": row.combination,
                "task": row.task,
                **_estimate("accuracy", row.accuracy),
                **_estimate("change", row.change),
                "p_holm": row.change.p_adjusted,
                "seeds": row.accuracy.n_units,
            }
            for row in tasks.rows
        ],
        "memory": [
            {
                "configuration": each.configuration,
                "tasks": each.tasks,
                "depth": each.depth,
                **_estimate("forgetting", each.forgetting),
                **_estimate("features", each.features),
                **_estimate("transfer", each.transfer),
                "seeds": each.forgetting.n_units,
            }
            for each in tasks.memory
        ],
        "matrix": tasks.matrix.to_dict("records"),
        "layers": tasks.layers.astype(object).where(tasks.layers.notna(), None).to_dict("records"),
    }


def _table(tasks: Tasks) -> list[dict[str, Any]]:
    """A row per combination: on the first task, and on a later one where it was measured there; whole networks first.

    E1+T1 is measured on every later task; it has a row for each, and its first task stands in the first of them.
    """
    found: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in tasks.rows:
        key = (row.configuration, row.split_by, row.split, row.combination)
        about = dict(zip(("configuration", "split_by", "split_layer", "combination"), key, strict=True))
        measured = {"task": row.task, **_estimate("accuracy", row.accuracy), **_estimate("change", row.change)}
        measured |= {"p_holm": row.change.p_adjusted, "seeds": row.accuracy.n_units}
        place, own = "first" if row.task == 1 else "later", found.setdefault(key, [])
        if not own or own[-1][place] is not None:
            own.append({**about, "first": None, "later": None})
        own[-1][place] = measured
    return [each for own in found.values() for each in own]


def _estimate(name: str, own: Estimate) -> dict[str, float | None]:
    return {name: own.value, f"{name}_low": own.low, f"{name}_high": own.high}


def number(row: Mapping[str, Any], name: str, *, sign: bool = False) -> str:
    """A percentage or points with its interval."""
    value, low, high = (row[key] for key in (name, f"{name}_low", f"{name}_high"))
    if value is None:
        return DASH
    form = "+.1f" if sign else ".1f"
    said = format(value, form)
    span = "" if low is None else f" [{low:.1f}, {high:.1f}]"
    return minus(said + span)
