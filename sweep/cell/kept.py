"""The weights of chosen probes: fitted again, one layer at a time, by the same seed as the table's numbers.

A curve fits its layers together and keeps no weights, which would fill the memory; what a config or an export asks for
is one layer, or one after the other. On the machine that made the table a probe comes out equal to the bit.

Shapes: N images, D width, C classes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors.torch
import torch

from sweep import table
from sweep.base.errors import UserError
from sweep.base.store import Store
from sweep.cell.probing import probe_data, probe_seed
from sweep.cell.rows import Embedded
from sweep.cell.task import CellTask
from sweep.data import Images
from sweep.probes import LinearProbe, ProbeResult, budget_bytes, fit_probes
from sweep.study import Curve, Planned

_TENSORS = ("mean_D", "scale_D", "weight_DC", "bias_C")


@dataclass(frozen=True)
class KeptProbe:
    """A probe of one layer.

    Attributes
    ----------
    layer : number in the table, 1 is the first.
    half : whether it was fitted on embeddings rounded to float16.
    differing : test images on which it and the table's row disagree: 0 where both were made on one machine.
    """

    layer: int
    linear: LinearProbe
    half: bool
    differing: int


def fitted_again(
    task: CellTask, curve: Curve, images: Images, embedded: Embedded, at: int, device: torch.device
) -> ProbeResult:
    """The chosen probe of a layer, counted from 0, with its weights; by the same seed as the table's numbers."""
    data = probe_data(images, embedded, device, layers=[at], keep_weights=True)
    seed, budget = probe_seed(images, curve), budget_bytes(device, task.memory, tasks=task.sharing(device.type))
    cpus = task.host_threads(device.type)
    results = fit_probes(data, curve.probes, seed=seed, seeds=curve.probe_seeds, budget=budget, cpus=cpus)
    return next(each for each in results if each.chosen)


def refit(
    task: CellTask, planned: Planned, images: Images, embedded: Embedded, row: Mapping[str, Any], device: torch.device
) -> KeptProbe:
    """The probe behind a row of the table.

    Raises
    ------
    UserError
        If the solver is a plug-in's, or the fit has no numbers any more.
    """
    at, curve = row["layer"] - 1, planned.curve
    result = fitted_again(task, curve, images, embedded, at, device)
    if result.problem is not None:
        raise UserError(f"layer {row['layer']} ({row['layer_name']}): {result.problem}")
    if result.linear is None:
        raise UserError(f"solver {curve.probe.solver} is a plug-in's, which gives scores and no weights")
    bits = [np.frombuffer(each, dtype=np.uint8) for each in (row["correct"], result.correct)]
    differing = int(np.unpackbits(bits[0] ^ bits[1]).sum())
    return KeptProbe(row["layer"], result.linear, embedded.train[at].dtype == torch.float16, differing)


def keep_probes(
    task: CellTask, planned: Planned, images: Images, embedded: Embedded, store: Store, device: torch.device
) -> None:
    """Keep the chosen probes of a finished curve, as the task asks; a curve without numbers keeps none."""
    assert task.keep_probes is not None
    rows = table.read_fragments(store, [planned.key]).to_pylist()
    best = table.best_row(rows)
    wanted = (
        [best] if task.keep_probes == "best" and best else [r for r in rows if r["chosen"] and r["problem"] is None]
    )
    probes = [refit(task, planned, images, embedded, row, device) for row in wanted]
    table.write_kept(store, planned.key, task.keep_probes, _serialised(probes))


def kept_probe(store: Store, curve_key: str, layer: int) -> KeptProbe | None:
    """A layer's probe as it was kept; None if it was not. A damaged file is removed, and counts as none."""
    data = table.read_kept(store, curve_key)
    if data is None:
        return None
    try:
        probes = _parsed(data)
    except (ValueError, KeyError, TypeError, safetensors.SafetensorError):
        table.drop_kept(store, curve_key)
        return None
    return next((probe for probe in probes if probe.layer == layer), None)


def _serialised(probes: Sequence[KeptProbe]) -> bytes:
    tensors = {
        f"{probe.layer}.{name}": getattr(probe.linear, name).cpu().contiguous() for probe in probes for name in _TENSORS
    }
    about = {str(probe.layer): {"half": probe.half, "differing": probe.differing} for probe in probes}
    # one entry: safetensors writes several in any order, and equal probes are to be equal files
    return safetensors.torch.save(tensors, {"kept": json.dumps({"probes": about, "sha256": _digest(tensors)})})


def _parsed(data: bytes) -> list[KeptProbe]:
    length = int.from_bytes(data[:8], "little")
    about = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["kept"])
    tensors = safetensors.torch.load(data)
    if _digest(tensors) != about["sha256"]:
        raise ValueError("its bytes are not those that were written")
    return [
        KeptProbe(int(layer), LinearProbe(*(tensors[f"{layer}.{name}"] for name in _TENSORS)), **said)
        for layer, said in about["probes"].items()
    ]


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(name.encode() + tensors[name].numpy().tobytes())
    return total.hexdigest()
