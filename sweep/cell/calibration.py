"""Hours of a sweep on this machine, from a few seconds of each of its networks: the real loops on random images."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from sweep.base.measure import device_name
from sweep.cell.cell import layers_of_backbone
from sweep.config import Config, ExtractionPrecision
from sweep.embed import embed, layer_statistics
from sweep.models import IMAGENET_MEAN, IMAGENET_STD, build_backbone, facts
from sweep.probes import ProbeData, budget_bytes, fit_probes
from sweep.study import Backbone, Curve, Grid, Rates, costs, layer_widths, packing, rates
from sweep.train import Drill, rates_at_once, training_rate

_SECONDS = {"cpu": 1.0, "cuda": 1.0}  # of computing that a measurement aims at
_GUESS = {"cpu": 2e10, "cuda": 2e13}  # operations a second, to choose how many images that are
_LEAST, _MOST = 8, 4096  # images
# images and classes of the smallest fit; a GPU leaves what is smaller to the CPU, see sweep.probes.converged
_FEW = {"cpu": (200, 10), "cuda": (2_000, 50)}
_MEMORY = 0.5  # share that it may take
_SIDE, _TIMES = 1024, 8  # of the matrix products that stand for fitting probes
_PACKED, _PACKED_SECONDS = 3, 2.0  # networks that are trained beside others, and how long each


@dataclass(frozen=True)
class Hours:
    """What a sweep takes on one of these devices, in hours; decoding images is not in it."""

    device: str
    training: float
    extraction: float
    probes: float

    def __str__(self) -> str:
        total = self.training + self.extraction + self.probes
        return (
            f"calibrated on one {self.device}: {total:.2g} hours (ID training {self.training:.2g}, extraction "
            f"{self.extraction:.2g}, probes {self.probes:.2g}); augmenting, reading and decoding images not counted"
        )


def calibrate(config: Config, grid: Grid, device: torch.device) -> Rates:
    """Time each network of a grid once; on a GPU, those that train longest also several at a time."""
    training: dict[str, float] = {}
    memory: dict[str, float] = {}
    drills: dict[str, Drill] = {}
    extraction: dict[str, float] = {}
    least: dict[str, float] = {}
    for cell in grid.cells:
        backbone = cell.backbone
        if backbone.recipe is not None and (name := rates.network(backbone)) not in training:
            drills[name] = _drill(config, backbone, device)
            training[name], memory[name] = _trained(drills[name], backbone.recipe.batch_size)
        for curve in cell.curves:
            probed, fitted = rates.probed(curve.backbone), rates.fitted(curve)
            if probed not in extraction:
                extraction[probed] = extraction_rate(curve.backbone, device, config.extraction_precision)
            if fitted not in least:
                least[fitted] = _least_fit(curve, layer_widths(curve.backbone), device)
    about = device_name(device), device.type
    found = Rates(*about, training, extraction, least, _product_rate(device))
    if device.type != "cuda":
        return found
    together = packed(config, grid, found, drills)
    return replace(found, packing=together, memory=memory, card=torch.cuda.mem_get_info(device)[1])


def _drill(config: Config, backbone: Backbone, device: torch.device) -> Drill:
    """About a second of a network's training."""
    recipe, most = backbone.recipe, _images(backbone, device, passes=3)
    assert recipe is not None
    images = min(recipe.batch_size, most)
    of_steps = recipe.epochs * math.ceil((costs.id_images(config, backbone) or 1) / recipe.batch_size)
    about = config.imports, config.import_path
    return Drill(backbone, device.type, images, max(2, most // images), max(1, of_steps), *about)


def _trained(drill: Drill, batch: int) -> tuple[float, float]:
    """Images a second, and the bytes of a GPU that a batch of so many images takes; 0 on a CPU."""
    on_gpu = drill.device == "cuda"
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    rate = training_rate(drill)
    return rate, torch.cuda.max_memory_reserved() * batch / drill.images if on_gpu else 0.0


def packed(config: Config, grid: Grid, alone: Rates, drills: Mapping[str, Drill]) -> dict[str, dict[str, float]]:
    """Images a second of several trainings at a time, of the networks that a grid trains longest.

    Parameters
    ----------
    alone : the rates of one at a time.
    drills : by network.
    """
    seconds: dict[str, float] = dict.fromkeys(drills, 0.0)
    for cell in grid.cells:
        if cell.backbone.recipe is not None:
            seconds[rates.network(cell.backbone)] += alone.training_seconds(config, cell.backbone)
    if alone.kind == "cuda":
        torch.cuda.empty_cache()  # the others need it
    found: dict[str, dict[str, float]] = {}
    for name in sorted(seconds, key=lambda name: -seconds[name])[:_PACKED]:
        steps = max(2, int(_PACKED_SECONDS * alone.training[name] / drills[name].images))
        together = rates_at_once(replace(drills[name], steps=steps), packing.NUMBERS)
        if together:  # else not even one has room beside what else is on the card
            found[name] = {str(number): rate for number, rate in together.items()}
    return found


def hours(config: Config, grid: Grid, measured: Rates) -> Hours:
    """What a grid asks for at these rates."""
    curves = grid.curves
    return Hours(
        measured.device,
        training=sum(measured.training_seconds(config, cell.backbone) for cell in grid.cells) / 3600,
        extraction=sum(measured.extraction_seconds(config, curve) for curve in curves) / 3600,
        probes=sum(measured.probe_seconds(config, curve) for curve in curves) / 3600,
    )


def _images(backbone: Backbone, device: torch.device, *, passes: int) -> int:
    """So many images that so many forward passes over them take about a second."""
    forward = facts.forward_flops(backbone.architecture, resolution=backbone.resolution, width=backbone.width)
    return int(np.clip(_SECONDS[device.type] * _GUESS[device.type] / (passes * forward), _LEAST, _MOST))


def extraction_rate(backbone: Backbone, device: torch.device, precision: ExtractionPrecision) -> float:
    """Images a second of embedding every layer."""
    model = build_backbone(
        backbone.architecture, classes=backbone.head, resolution=backbone.resolution, width=backbone.width
    )
    layers, side = layers_of_backbone(backbone), backbone.resolution
    images = _images(backbone, device, passes=1)
    pixels_NHWC = np.random.default_rng(0).integers(0, 256, (images, side, side, 3), dtype=np.uint8)
    model.eval().to(device)

    def once() -> float:
        """Seconds of a pass over the images."""
        started = time.monotonic()
        embed(model, layers, pixels_NHWC, mean=IMAGENET_MEAN, std=IMAGENET_STD, device=device, precision=precision)
        return time.monotonic() - started

    once()
    return images / once()


def _least_fit(curve: Curve, widths: Sequence[int], device: torch.device) -> float:
    """Seconds that fitting and describing a curve takes however few its images: of a few random ones."""
    few, classes = _FEW[device.type]
    labels_N = torch.arange(few, device=device) % classes
    draw = torch.Generator().manual_seed(0)
    part = [torch.randn(few, width, generator=draw).half() for width in widths]
    folds = curve.probe.folds
    data = ProbeData(
        train=part,
        train_labels_N=labels_N,
        heldout_N=torch.arange(few, device=device) % 10 == 0,
        test=part,
        test_labels_N=labels_N,
        classes=classes,
        layer_names=[str(number) for number in range(len(widths))],
        folds_N=None if folds == 1 else torch.arange(few, device=device) // classes % folds,
    )
    started = time.monotonic()
    cpus = os.cpu_count() if device.type == "cuda" else None
    budget = budget_bytes(device, _MEMORY)
    fit_probes(data, curve.probes, seed=0, seeds=curve.probe_seeds, budget=budget, cpus=cpus)
    layer_statistics(part, labels_N, classes=classes, threshold=1e-3)
    return time.monotonic() - started


def _product_rate(device: torch.device) -> float:
    """Operations a second of products of matrices, which fitting probes mostly is."""
    matrix = torch.randn(_SIDE, _SIDE, device=device)

    def products(times: Iterable[int]) -> float:
        """Seconds until the last is there."""
        started = time.monotonic()
        for _ in times:
            result = matrix @ matrix
        float(result[0, 0])
        return time.monotonic() - started

    products(range(2))
    return 2 * _SIDE**3 * _TIMES / products(range(_TIMES))
