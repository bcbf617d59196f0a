"""How time and memory grow when one size at a time is doubled: a log-log table."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from sweep.embed.statistics import layer_statistics
from sweep.probes.data import ProbeData
from sweep.probes.fit import fit_probes

from . import growth_stages, machine
from .report import table
from .shapes import Case, chosen_layers, synthetic

CPU = torch.device("cpu")
SEED = 3
LINEAR = 1.1  # exponents above this are explained
WHY = {
    "probes: width": "AdamW reads and writes D × C weights and two moments every step; once they leave the last-level "
    "cache a step waits for memory.",
    "probes: classes": "as for width: the optimizer's state leaves the cache.",
    "probes: layers": "more layers in flight share the caches.",
    "probes: images": "once the embeddings leave the last-level cache, every batch comes from memory.",
    "statistics: width": "the covariance takes N × D² operations and its eigenvalues D³; neither can be linear in D.",
}


@dataclass(frozen=True)
class Base:
    """Sizes at factor 1, and by how much each is multiplied."""

    case: Case
    factors: tuple[int, ...]
    in_flight: int  # layers of the table of probes in flight, fitted in groups of 1, 2, 4, …


STUDY = Base(Case("growth", (256,) * 4, 50, 4_000, 1_000, 5), (1, 2, 4, 8), 16)
QUICK = Base(Case("growth", (64,) * 2, 10, 500, 200, 2), (1, 2, 4), 4)
Measured = dict[str, Any]


def run(
    *, quick: bool, base: Base | None = None, stages: Sequence[growth_stages.Series] | None = None
) -> dict[str, Any]:
    """Measure all sweeps.

    Parameters
    ----------
    stages : measured already, in place of :func:`tests.bench.growth_stages.run`.

    Returns
    -------
    series : one mapping per size: ``name``, and lists of ``values``, ``seconds``, ``bytes`` (peak beyond what was
        there before) and ``exponents`` of time between neighbours; ``exponent`` from the first to the last.
    """
    base = base or (QUICK if quick else STUDY)
    case = base.case
    fit_probes(synthetic(case, device=CPU), case.recipe, seed=SEED)  # threads and allocator
    sweeps: dict[str, Callable[[int], Case]] = {
        "images": lambda f: replace(case, n=case.n * f),
        "width": lambda f: replace(case, widths=tuple(width * f for width in case.widths)),
        "classes": lambda f: replace(case, classes=case.classes * f),
        "layers": lambda f: replace(case, widths=case.widths * f),
    }
    sizes: dict[str, Callable[[Case], int]] = {
        "images": lambda c: c.n,
        "width": lambda c: c.widths[0],
        "classes": lambda c: c.classes,
        "layers": lambda c: len(c.widths),
    }
    series = []
    for name, scaled in sweeps.items():
        cases = [scaled(factor) for factor in base.factors]
        series.append(_series(f"probes: {name}", [sizes[name](c) for c in cases], [_fit(c) for c in cases]))
        if name in ("images", "width", "layers"):
            series.append(
                _series(f"statistics: {name}", [sizes[name](c) for c in cases], [_describe(c) for c in cases])
            )
    stages = growth_stages.run(quick=quick) if stages is None else stages
    return {"series": [*series, _in_flight(base), *(_series(*each) for each in stages)]}


def _fit(case: Case) -> tuple[float, int]:
    data = synthetic(case, device=CPU)
    return _cost(lambda: fit_probes(data, case.recipe, seed=SEED))


def _describe(case: Case) -> tuple[float, int]:
    data = synthetic(case, device=CPU)
    return _cost(lambda: layer_statistics(data.train, data.train_labels_N, classes=case.classes))


def _cost(work: Callable[[], object]) -> tuple[float, int]:
    with machine.peak_memory(CPU) as memory:
        seconds, _ = machine.timed(work, device=CPU, repeats=3)
    return seconds, memory.extra_bytes


def _in_flight(base: Base) -> Measured:
    """The same layers in groups of 1, 2, 4, …: the work is constant, so time would be flat without batching."""
    case = replace(base.case, widths=base.case.widths[:1] * base.in_flight)
    data = synthetic(case, device=CPU)
    groups = [2**power for power in range(base.in_flight.bit_length()) if 2**power <= base.in_flight]
    costs = [_cost(partial(_grouped, data, case, size)) for size in groups]
    return _series(f"probes: in flight, of {base.in_flight}", groups, costs)


def _grouped(data: ProbeData, case: Case, size: int) -> None:
    for start in range(0, len(case.widths), size):
        fit_probes(chosen_layers(data, range(start, start + size)), case.recipe, seed=SEED)


def _series(name: str, values: Sequence[int], costs: Sequence[tuple[float, int]]) -> Measured:
    seconds = [cost for cost, _ in costs]
    pairs = zip(zip(values, seconds, strict=True), zip(values[1:], seconds[1:], strict=True), strict=False)
    return {
        "name": name,
        "values": list(values),
        "seconds": seconds,
        "bytes": [size for _, size in costs],
        "exponents": [_exponent(*low, *high) for low, high in pairs],
        "exponent": _exponent(values[0], seconds[0], values[-1], seconds[-1]),
    }


def _exponent(value: float, seconds: float, larger: float, longer: float) -> float:
    return math.log(longer / seconds) / math.log(larger / value)


def markdown(result: dict[str, Any]) -> str:
    """One row per size and value, with the exponent since the row above."""
    rows = []
    for series in result["series"]:
        for place, value in enumerate(series["values"]):
            rows.append(
                [
                    series["name"] if place == 0 else "",
                    f"{value:,}",
                    f"{math.log2(value):.1f}",
                    f"{series['seconds'][place]:.3f}",
                    f"{math.log2(series['seconds'][place]):.1f}",
                    f"{series['exponents'][place - 1]:.2f}" if place else "",
                    f"{series['bytes'][place] / 2**20:.0f}",
                ]
            )
    steep = [series for series in result["series"] if series["exponent"] > LINEAR]
    why = [
        f"- {series['name']} grows with exponent {series['exponent']:.2f}: {WHY.get(series['name'], 'not explained.')}"
        for series in steep
    ]
    return "\n".join(
        [
            "One size at a time is multiplied, the others stay. The exponent is the slope of the log-log line since "
            "the row above: 1 is linear, 0 is free. Memory is the peak beyond the embeddings; of decoding (2 "
            "processes), training, extraction and scheduling what the processes hold for themselves beyond what they "
            "held before.",
            "",
            table(["what", "size", "log₂", "s", "log₂ s", "exponent", "MiB"], rows),
            "",
            *(why or ["Nothing grows worse than linearly."]),
        ]
    )
