"""What a grid costs: operations, bytes, images, from the config alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sweep.config import CONVERGED, EVERY, Config
from sweep.data import training_side
from sweep.models import facts
from sweep.study.columns import derived
from sweep.study.grid import Backbone, Cell, Curve, Sizes, selected
from sweep.study.resolve import sizes
from sweep.study.tasks import Course

_EMBEDDED_BYTES = 2  # of a number of an embedding, float16
_ROW_BYTES = 700  # of a probe in a fragment, without the bits of its test images
_LBFGS_PASSES = 25  # over the images until it has converged; typical
_FOLD_PASSES = 5  # for each fold of a cross-fit; typical
_CONVERGED_PASSES = 40  # for all penalties, mean of both fits; typical


@dataclass(frozen=True)
class Cost:
    """Size of a part of a sweep.

    Attributes
    ----------
    images : distinct images to decode (per dataset, split, selection and resolution).
    flops : floating-point operations of training, extraction and probes, estimated.
    storage : bytes of weights and fragments that stay, estimated.
    scratch : bytes of decoded images in the node-local cache.
    """

    backbones: int
    curves: int
    probes: int
    images: int
    flops: float
    storage: float
    scratch: float


@dataclass(frozen=True)
class CurveCost:
    """Layers and arithmetic of one curve."""

    probes: int
    flops: float
    storage: float


def layer_widths(backbone: Backbone) -> tuple[int, ...]:
    """Embedding widths of a backbone's probed layers; what a config says of them is asked of the real network."""
    known = facts.layers(
        backbone.architecture,
        width=backbone.width,
        resolution=backbone.resolution,
        layers=backbone.layers_pattern,
        pooling=backbone.pooling,
        norm=backbone.norm,
    )
    return tuple(layer.width for layer in known)


def curve_sizes(config: Config, curve: Curve) -> Sizes:
    """Classes, training and test images of a curve."""
    if curve.shifted is None:
        return selected(curve.backbone, curve.dataset, sizes(config, curve.dataset))
    own = selected(curve.backbone, curve.backbone.id_dataset, sizes(config, curve.backbone.id_dataset))
    if curve.shifted.corruption is not None:
        return own
    there = sizes(config, curve.dataset)  # all of its images are tested on
    return own._replace(test=there.train + there.test)


def curve_cost(config: Config, curve: Curve) -> CurveCost:
    """Cost of extraction and probes of one curve."""
    backbone, (classes, train, test) = curve.backbone, curve_sizes(config, curve)
    widths = layer_widths(backbone)
    forward = facts.forward_flops(backbone.architecture, resolution=backbone.resolution, width=backbone.width)
    probes = len(widths) * curve.probes_per_layer
    flops = forward * (train + test) + curve.probes_per_layer * probe_flops(curve, widths, Sizes(classes, train, test))
    bits = test + (train if curve.probe.folds > 1 else 0) + config.holdout * train
    return CurveCost(probes, flops, probes * (_ROW_BYTES + bits / 8))


def probe_flops(curve: Curve, widths: Sequence[int], sizes: Sizes) -> float:
    """Of both fits of one probe on every layer: forward and weight gradient, and the scores."""
    classes, train, test = sizes
    passes = {"adamw": curve.probe.most_epochs, "lbfgs": _LBFGS_PASSES, CONVERGED: _CONVERGED_PASSES}.get(
        curve.probe.solver, 1
    )
    passes += _FOLD_PASSES * curve.probe.folds if curve.probe.folds > 1 else 0
    per_pass = sum(widths) * classes * (2 * 4 * train + 2 * (train + test))
    covariances = sum(width**2 for width in widths) * 4.0 * train if curve.probe.solver in ("lbfgs", "ridge") else 0.0
    return passes * per_pass + covariances / curve.probes_per_layer


def embedded_bytes(widths: Sequence[int], sizes: Sizes) -> int:
    """Of all layers' embeddings of a curve, training and test images."""
    return _EMBEDDED_BYTES * sum(widths) * (sizes.train + sizes.test)


def training_flops(config: Config, backbone: Backbone) -> float:
    """Of ID training, forward and backward; 0 for downloaded weights."""
    if backbone.recipe is None:
        return 0.0
    forward = facts.forward_flops(backbone.architecture, resolution=backbone.resolution, width=backbone.width)
    return 3 * forward * (id_images(config, backbone) or 0) * backbone.recipe.epochs


def id_images(config: Config, backbone: Backbone) -> int | None:
    """Images a backbone was or will be trained on; None for weights of which nobody knows."""
    if backbone.weights is not None:
        return backbone.weights.images
    train = curve_sizes(config, Curve(backbone, backbone.id_dataset, ())).train
    held = backbone.recipe is not None and backbone.recipe.train_on == "fit"
    return round(train * (1 - config.holdout)) if held else train


def cell_flops(config: Config, cell: Cell) -> float:
    """Estimated work of a cell; the driver starts the longest first."""
    return training_flops(config, cell.backbone) + sum(curve_cost(config, c).flops for c in cell.curves)


def course_trainings(config: Config, backbone: Backbone, course: Course) -> list[Backbone]:
    """What a course trains after its first task: each further task, and each fine-tuning on the first."""
    later = course.tasks[1:]
    learned = [
        replace(backbone, id_dataset=task.dataset, id_classes=task.classes or sizes(config, task.dataset).classes)
        for task in later
    ]
    if course.tuning is None:
        return learned
    splits = sum(word != EVERY for word in course.splits)
    return learned + [replace(backbone, recipe=course.tuning)] * (2 * splits * len(later))


def cost(config: Config, cells: Iterable[Cell]) -> Cost:
    """Add up cells."""
    cells = list(cells)
    decoded: dict[tuple[Any, ...], tuple[int, float]] = {}
    flops = storage = 0.0
    probes = curves = 0
    for cell in cells:
        backbone = cell.backbone
        flops += training_flops(config, backbone)
        if backbone.recipe is not None:
            kept = len({curve.backbone.epoch for curve in cell.curves} | {None})
            kept += sum(len(course_trainings(config, backbone, course)) for course in cell.courses)
            storage += 4 * kept * derived(backbone, None)["parameters"]
        for trained in (each for course in cell.courses for each in course_trainings(config, backbone, course)):
            flops += training_flops(config, trained)
        for curve in cell.curves:
            part = curve_cost(config, curve)
            curves, probes = curves + 1, probes + part.probes
            flops, storage = flops + part.flops, storage + part.storage
        decoded.update(_decoded(config, cell))
    return Cost(
        len(cells),
        curves,
        probes,
        sum(images for images, _ in decoded.values()),
        flops,
        storage,
        sum(size for _, size in decoded.values()),
    )


def _decoded(config: Config, cell: Cell) -> dict[tuple[Any, ...], tuple[int, float]]:
    """Selections of images that a cell decodes: how many, and their bytes in the cache."""
    backbone = cell.backbone
    found: dict[tuple[Any, ...], tuple[int, float]] = {}
    chosen = (backbone.id_classes, backbone.images_per_class)
    for curve in cell.curves:
        _, train, test = curve_sizes(config, curve)
        key = (curve.dataset, backbone.resolution, chosen if curve.is_id else ())
        found[key] = (train + test, 3.0 * (train + test) * backbone.resolution**2)
    if backbone.augmentation not in (None, "off"):
        images, side = curve_sizes(config, cell.curves[0]).train, training_side(backbone.resolution)
        found["training", backbone.id_dataset, backbone.resolution, *chosen] = (images, 3.0 * images * side**2)
    return found
