"""Work of the paper's study, by curve and by block of ``configs/paper.yaml``, and GPU-hours at measured rates."""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sweep.config import Config
from sweep.config.recipe import Probe
from sweep.models import facts
from sweep.study import costs
from sweep.study.check import read_config
from sweep.study.grid import Backbone, Cell, Curve, Sizes, expand
from sweep.study.resolve import sizes

from . import machine
from .report import table
from .shapes import Case

PAPER = machine.ROOT / "configs" / "paper.yaml"
AUTHORS_HOURS = 1_161.0  # on four RTX A5000, [H24] App. A.4: all training and probing of the study
KINDS = ("CNN up to 64 px", "CNN above", "ViT")  # of networks: each goes at a rate of its own
STAGES = ("training", "extraction", "probes")
_STATE_BYTES = 32  # of a weight in one step: read weight, gradient and both moments, write them again, float32


@dataclass(frozen=True)
class Work:
    """What fitting one curve's probes cannot do without.

    Attributes
    ----------
    flops : of matmuls, both fits and scores.
    bytes : moved to and from device memory: optimizer state once a step, embeddings twice a step and once a score.
    steps : optimizer steps, both fits, whatever the number of layers.
    """

    flops: float
    bytes: float
    steps: float

    def times(self, other: Work) -> dict[str, float]:
        """How often the other's work is in this one, by what may decide the time."""
        return {
            "arithmetic": self.flops / other.flops,
            "memory traffic": self.bytes / other.bytes,
            "steps": self.steps / other.steps,
        }


def work(widths: tuple[int, ...], *, classes: int, n: int, n_held: int, n_test: int, case: Case) -> Work:
    """Work of one curve with the epochs and batch size of ``case``."""
    trained, total = 2 * n - n_held, sum(widths)
    steps = case.epochs * (math.ceil(n / case.batch_size) + math.ceil((n - n_held) / case.batch_size))
    scored = case.epochs * (n_held + n_test) + n
    flops = total * classes * (4.0 * case.epochs * trained + 2.0 * scored)
    moved = total * (steps * classes * _STATE_BYTES + 2.0 * (2 * case.epochs * trained + scored))
    return Work(flops, moved, steps)


@dataclass(frozen=True)
class StudyCurve:
    """Sizes and probe recipe of one curve of the paper."""

    widths: tuple[int, ...]
    sizes: Sizes
    held: int
    recipe: Probe

    def work(self, case: Case) -> Work:
        """Of its probes; ``case`` names nothing but what it is given."""
        classes, n, n_test = self.sizes
        own = replace(case, epochs=self.recipe.most_epochs, batch_size=self.recipe.batch_size)
        return work(self.widths, classes=classes, n=n, n_held=self.held, n_test=n_test, case=own)


@functools.cache
def _paper() -> tuple[Config, tuple[Cell, ...]]:
    config = read_config(PAPER)
    return config, tuple(expand(config, lambda name: sizes(config, name)).cells)


def _of(config: Config, curve: Curve) -> StudyCurve:
    counts = costs.curve_sizes(config, curve)
    return StudyCurve(costs.layer_widths(curve.backbone), counts, round(config.holdout * counts.train), curve.probe)


@functools.cache
def study() -> tuple[StudyCurve, ...]:
    """Curves of the backbones that the paper trained from scratch."""
    config, cells = _paper()
    return tuple(_of(config, curve) for cell in cells if cell.backbone.recipe is not None for curve in cell.curves)


def kind(backbone: Backbone) -> str:
    """Which of KINDS a network is of."""
    if facts.architecture(backbone.architecture).family == "ViT":
        return KINDS[2]
    return KINDS[0] if backbone.resolution <= 64 else KINDS[1]


@dataclass(frozen=True)
class Rates:
    """What one device was measured to do.

    Attributes
    ----------
    training, extraction : operations a second, by kind of network.
    probes : work and seconds of one curve's.
    """

    training: Mapping[str, float]
    extraction: Mapping[str, float]
    probes: tuple[Work, float]


def hours_by_block(rates: Rates, case: Case) -> dict[str, dict[str, float]]:
    """GPU-hours of every block by stage: arithmetic over what the device did, one backbone at a time.

    Probes of a curve take as long as the slowest of arithmetic, traffic and steps lets them.
    """
    config, cells = _paper()
    found: dict[str, dict[str, float]] = defaultdict(lambda: dict.fromkeys(STAGES, 0.0))
    measured, seconds = rates.probes
    for cell in cells:
        backbone = cell.backbone
        block = found[config.grid[cell.blocks[0]].block or f"block {cell.blocks[0]}"]
        if backbone.recipe is not None:
            block["training"] += costs.training_flops(config, backbone) / rates.training[kind(backbone)] / 3600
        forward = facts.forward_flops(backbone.architecture, resolution=backbone.resolution, width=backbone.width)
        for curve in cell.curves:
            counts = costs.curve_sizes(config, curve)
            block["extraction"] += forward * (counts.train + counts.test) / rates.extraction[kind(backbone)] / 3600
            block["probes"] += max(_of(config, curve).work(case).times(measured).values()) * seconds / 3600
    return {name: dict(stages) for name, stages in found.items()}


def markdown(hours: Mapping[str, Mapping[str, float]]) -> Sequence[str]:
    """A row for each block, and the authors'."""
    rows = [[name, *(f"{by[stage]:.1f}" for stage in STAGES), f"{sum(by.values()):.1f}"] for name, by in hours.items()]
    sums = [sum(by[stage] for by in hours.values()) for stage in STAGES]
    whole = sum(sums)
    return [
        "GPU-hours of every block of `configs/paper.yaml` at these rates (training with `on`, one backbone at a time; "
        f"{KINDS[0]}, {KINDS[1]} and {KINDS[2]} by the case of their kind; decoding takes no GPU): {whole:.0f}; the "
        f"authors report {AUTHORS_HOURS:,.0f} hours on four RTX A5000 for everything, {AUTHORS_HOURS / whole:.0f} "
        "times as many.",
        table(["block", *STAGES, "all"], [*rows, ["all", *(f"{value:.1f}" for value in sums), f"{whole:.1f}"]]),
    ]
