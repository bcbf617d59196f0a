"""What a config asks for beside probes, measured of one curve and published, each by itself."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from sweep import table
from sweep.base.errors import UserError
from sweep.base.spans import span
from sweep.base.store import Store
from sweep.cell.bench import Bench, Reference, Row
from sweep.cell.instruments import INSTRUMENTS
from sweep.embed import weight_distances
from sweep.models import ProbedLayer
from sweep.study import Planned

OF_WEIGHTS = "weight_distance"  # the one instrument that needs no images
OF_ID = "ood_detection"  # and the one that needs those of the ID dataset
log = logging.getLogger(__name__)


def lacking(store: Store, planned: Planned) -> dict[str, str]:
    """Instruments that a curve is to have and has not, with the keys of what they measure."""
    return {name: key for name, key in planned.readings if not table.is_measured(store, key)}


def measure_weights(
    store: Store, planned: Planned, model: nn.Module, initial: Callable[[], nn.Module], layers: list[ProbedLayer]
) -> None:
    """Publish how far the weights of each layer have moved, if that is asked for and not there.

    Parameters
    ----------
    initial : gives the same network before its first step.
    """
    key = lacking(store, planned).get(OF_WEIGHTS)
    if key is None:
        return
    with span(f"measuring {OF_WEIGHTS}", planned.curve.backbone.label):
        found = weight_distances(model, initial(), layers)
        rows = [
            {"reading": name, "layer": at + 1, "layer_name": layer.label, "value": moved and getattr(moved, of)}
            for at, (layer, moved) in enumerate(zip(layers, found, strict=True))
            for name, of in ((OF_WEIGHTS, "relative"), ("weight_change", "change"))
        ]
        table.write_reading(store, key, OF_WEIGHTS, rows)


def measure(bench: Bench, reference: Callable[[], Reference]) -> None:
    """Publish what is asked for of an embedded curve whose probes are in the table, and not there.

    An instrument that fails does not keep the others from measuring; the first error is raised when they have.

    Parameters
    ----------
    reference : gives the backbone's ID images; asked only if they are needed.
    """
    first: Exception | None = None
    for name, key in lacking(bench.store, bench.planned).items():
        try:
            with span(f"measuring {name}", bench.planned.curve.dataset):
                own = replace(bench, reference=reference().on(bench.device)) if name == OF_ID else bench
                table.write_reading(bench.store, key, name, _rows(name, own))
        except (
            UserError,
            ValueError,
            torch.linalg.LinAlgError,
        ) as error:  # not of storage or device
            first = first or error
    if first is not None:
        raise first


def _rows(name: str, bench: Bench) -> list[Row]:
    """What an instrument measures; on the CPU where it does not fit the device."""
    try:
        return list(INSTRUMENTS[name](bench))
    except torch.OutOfMemoryError:
        if bench.device.type == "cpu":
            raise
    # here the exception, and with it what filled the memory, is gone
    log.warning("%s of %s does not fit the device: on the CPU", name, bench.planned.curve.backbone.label)
    cpu = torch.device("cpu")
    elsewhere = bench.reference.on(cpu) if bench.reference is not None else None
    return list(INSTRUMENTS[name](replace(bench, device=cpu, reference=elsewhere)))
