"""Which probe of which table is meant: the config, the curve, the layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sweep import driver, table
from sweep.base.errors import UserError
from sweep.base.store import Store
from sweep.cell import CellTask
from sweep.config import Config, closest
from sweep.data import cache_dir
from sweep.study import Planned, read_config

CONFIG_FILE = "best_layer.yaml"  # what best_layer leaves beside its table


@dataclass(frozen=True)
class Found:
    """A row of the table, and what is needed to make its probe.

    Attributes
    ----------
    row : of the table, without labels.
    name : of the model, as it was asked for.
    """

    row: Mapping[str, Any]
    planned: Planned
    task: CellTask
    config: Config
    store: Store
    device: torch.device
    name: str


def find(results: str, model: str, *, layer: str | None, config: Path | None, dataset: str | None) -> Found:
    """The probe of a model's best layer, or of the layer of that name or number.

    Raises
    ------
    UserError
        If there is none, or several answer to the description.
    """
    store = Store(results)
    settings = read_config(config or _left_config(store, results), need_data=True)
    sweep = driver.prepare(settings, results)
    done = table.listing(store).done
    planned = _one(sweep, model, dataset, done)
    rows = table.read_fragments(store, [planned.key]).to_pylist()
    gpu = torch.cuda.is_available()
    cell = next(cell for cell in sweep.cells if planned in cell.curves)
    task = driver.task_of(sweep, cell, gpu)
    return Found(_row(rows, layer), planned, task, settings, store, torch.device("cuda" if gpu else "cpu"), model)


def _left_config(store: Store, results: str) -> Path:
    """A copy of the config that a question left in its results."""
    try:
        data = store.get(CONFIG_FILE)
    except FileNotFoundError:
        raise UserError(
            f"--results {results}: no {CONFIG_FILE} is there; give --config, the file that the sweep was run with"
        ) from None
    place = cache_dir(None) / "answers" / f"export-{CONFIG_FILE}"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
    return place


def _one(sweep: driver.Sweep, model: str, dataset: str | None, done: frozenset[str]) -> Planned:
    """The finished curve of a model on a dataset."""
    curves = [planned for planned in sweep.planned if planned.key in done]
    named = [p for p in curves if model in (p.curve.backbone.architecture, _name(p), p.curve.backbone.label)]
    if not named:
        there = dict.fromkeys(map(_name, curves))
        near = ", ".join(list(dict.fromkeys((*closest(model, there), *there)))[:8]) or "none"
        raise UserError(f"--model {model}: no finished curve of it is in {sweep.store.uri}; there are: {near}")
    named = [p for p in named if p.curve.shifted is None]  # those are probes of the ID dataset
    others = [p for p in named if not p.curve.is_id] or named
    found = [p for p in named if p.curve.dataset == dataset] if dataset else others
    if not found:
        there = dict.fromkeys(p.curve.dataset for p in named)
        raise UserError(f"--dataset {dataset}: {model} has no finished curve on it; it has {', '.join(there)}")
    if len({p.curve.dataset for p in found}) > 1:
        raise UserError(
            f"--dataset: which? {model} has curves on {', '.join(dict.fromkeys(p.curve.dataset for p in found))}"
        )
    if len({p.key for p in found}) > 1:
        labels = "; ".join(dict.fromkeys(p.curve.backbone.label for p in found))
        raise UserError(f"--model {model}: {len(found)} backbones are called so; take a whole label: {labels}")
    return found[0]


def _name(planned: Planned) -> str:
    backbone = planned.curve.backbone
    return f"{backbone.architecture}.{backbone.pretraining}"


def _row(rows: list[dict[str, Any]], layer: str | None) -> Mapping[str, Any]:
    best = table.best_row(rows)
    if best is None:
        raise UserError(f"no layer of this curve has numbers: {rows[0]['problem']}")
    if layer is None:
        return best
    for row in rows:
        if row["chosen"] and layer in (str(row["layer"]), row["layer_name"]):
            if row["problem"] is not None:
                raise UserError(f"--layer {layer}: {row['problem']}")
            return row
    names = [row["layer_name"] for row in rows if row["chosen"]]
    raise UserError(
        f"--layer {layer}: no such layer; 1 to {len(names)}, or a name: {', '.join(closest(layer, names)[:5])}"
    )
