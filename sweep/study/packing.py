"""How many backbones share a GPU: so many as a card has room for, and as make a sweep's trainings end soonest.

A small network leaves most of a card idle; several processes on it fill that, and one's embedding runs beside another's
probes. What they do together is measured, see :mod:`sweep.cell.calibration`; here is the rule.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Protocol

from sweep.config import Config
from sweep.study.grid import Backbone
from sweep.study.rates import Rates, network

NUMBERS = (1, 2, 4)  # of backbones at a time that are measured
_WORTH = 1.05  # of the fewest seconds that fewer at a time may take: they need less memory
_PROCESS = 1e9  # bytes of the card that each process takes for CUDA itself


class HasBackbone(Protocol):
    """A cell, planned or not."""

    @property
    def backbone(self) -> Backbone:
        """What is trained."""


def together(config: Config, cells: Iterable[HasBackbone], rates: Rates | None) -> int | None:
    """How many backbones of these cells best share the card that was measured; None where that is not known.

    One where several processes train a backbone together: each of them has a card.
    """
    backbones = [cell.backbone for cell in cells]
    trained = [backbone for backbone in backbones if backbone.recipe is not None]
    if rates is None or not all(rates.know(backbone, ()) for backbone in trained):
        return None
    if any(backbone.processes > 1 for backbone in trained):
        return 1
    seconds: dict[str, float] = defaultdict(float)
    for backbone in trained:
        seconds[network(backbone)] += rates.training_seconds(config, backbone)
    known = {name: of for name, of in rates.packing.items() if name in seconds}
    measured = {name: {int(number): rate for number, rate in of.items()} for name, of in known.items()}
    if not measured or not seconds.keys() <= rates.memory.keys():
        return None
    largest = max(rates.memory[name] for name in seconds)
    return ends_soonest(seconds, measured, fitting(rates.card, largest, config.resources.memory))


def fitting(card: float, largest: float, share: float) -> int:
    """How many processes that train the largest network a card has room for, at least 1.

    Parameters
    ----------
    card, largest : bytes of the card, and of the largest network's training.
    share : of the card that may be taken.
    """
    return max(1, int(share * card / (largest + _PROCESS)))


def ends_soonest(seconds: Mapping[str, float], rates: Mapping[str, Mapping[int, float]], most: int) -> int:
    """The number at a time with which trainings end soonest, or a smaller one that takes hardly longer.

    Parameters
    ----------
    seconds : of each network's trainings, one after the other.
    rates : images a second of so many trainings of a network at once; for 1 and more, as far as measured.
    most : at a time.
    """
    numbers = [n for n in NUMBERS if n <= most and all(n in of for of in rates.values())]
    taken = {n: sum(seconds[name] * of[1] / of[n] for name, of in rates.items()) for n in numbers}
    return next(n for n in numbers if taken[n] <= _WORTH * min(taken.values()))


def said(config: Config, cells: Iterable[HasBackbone], rates: Rates) -> str:
    """What a calibration says of sharing a GPU."""
    number = together(config, cells, rates)
    if number is None:
        why = "there is none here" if rates.kind != "cuda" else "nothing is trained, or one has no room"
        return f"several backbones at a time on one GPU: not measured, {why}"
    found = "; ".join(
        f"{name}: " + ", ".join(f"{n} at a time {float(rate):,.0f}" for n, rate in of.items())
        for name, of in rates.packing.items()
    )
    return f"resources.gpus: {1 / number:g}, which `gpus: auto` stands for from now on (images/s: {found})"
