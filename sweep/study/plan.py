"""What a sweep would do, from the config alone: counts, cost, what is done, what the grid confounds."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import StatisticsError, correlation
from typing import Any

from sweep.config import CONVERGED, DEFAULT_ROLES, DERIVED, EPOCH, GRID_VARIABLES, RECIPE_KEYS, Config, Role
from sweep.data import training_side
from sweep.models import facts
from sweep.study.columns import derived, variables
from sweep.study.costs_said import hours_said, memory_said
from sweep.study.grid import Backbone, Cell, Curve, Grid, Sizes, selected
from sweep.study.probes_said import probes_said
from sweep.study.resolve import counted, said_of_sizes, sizes

CONFOUNDED = 0.8  # |ρ| above which two variables can hardly be told apart
WORTH_SAYING = 0.3
_OF_WEIGHTS = ("objective", "weights_augmentation")  # what differs between downloaded weights besides their network
_SUGGESTED, _NOT_FREE = 3, {"pretraining", "id_dataset"}  # cells to add that are named; what no cell can set apart
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
            storage += 4 * kept * derived(backbone, None)["parameters"]
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


def varied_roles(config: Config, grid: Grid) -> dict[str, Role]:
    """Grid variables with more than one value, and the role of each; ``epoch`` where training is probed along.

    A recipe key that only rules set is part of how an architecture is trained, not a treatment: a nuisance.
    """
    rows = [variables(backbone) for cell in grid.cells for backbone in cell.backbones]
    by_rule = {key for key in RECIPE_KEYS if all(getattr(block, key) is None for block in config.grid)}
    defaults = dict(DEFAULT_ROLES) | dict.fromkeys(by_rule, "nuisance")
    varied = [name for name in GRID_VARIABLES if len({row[name] for row in rows}) > 1]
    varied += [EPOCH] * any(curve.backbone.epoch is not None for curve in grid.curves)
    return {name: config.roles.get(name, defaults.get(name, "treatment")) for name in varied}


def design(config: Config, grid: Grid) -> list[dict[str, Any]]:
    """One row per backbone: grid variables and the derived ones."""
    return [
        variables(backbone) | derived(backbone, id_images(config, backbone))
        for cell in grid.cells
        for backbone in cell.backbones
    ]


def correlations(config: Config, grid: Grid) -> list[tuple[str, str, float]]:
    """|ρ| of each pair of varied treatments (derived variables included) over backbones, the largest first.

    Numbers count by the rank of their value; a categorical variable by that of its levels which correlates most.
    Missing values make a level of their own.
    """
    rows = design(config, grid)
    roles = varied_roles(config, grid)
    of_weights = _OF_WEIGHTS if any(cell.backbone.weights is not None for cell in grid.cells) else ()
    names = [name for name in (*roles, *DERIVED, *of_weights) if roles.get(name, "treatment") == "treatment"]
    coded = {name: _codes([row[name] for row in rows]) for name in names}
    pairs = []
    for one, other in combinations(names, 2):
        values = [abs(_correlation(a, b)) for a in coded[one] for b in coded[other]]
        if values:
            pairs.append((one, other, max(values)))
    return sorted(pairs, key=lambda pair: (-pair[2], pair[:2]))


def _codes(values: Sequence[Any]) -> list[list[float]]:
    levels = sorted({v for v in values if v is not None}, key=lambda v: (isinstance(v, str), v))
    if len(set(values)) < 2:
        return []
    if None in values or any(isinstance(v, str) for v in levels):
        return [[float(v == level) for v in values] for level in (*levels, None) if level in values]
    rank = {level: float(i) for i, level in enumerate(levels)}
    return [[rank[v] for v in values]]


def _correlation(a: Sequence[float], b: Sequence[float]) -> float:
    try:
        return correlation(a, b)
    except StatisticsError:
        return 0.0


def render_plan(
    config: Config, grid: Grid, *, done: Mapping[Curve, bool] | None, why_unknown: str | None, out: str
) -> str:
    """The plan as text.

    Parameters
    ----------
    done : which curves the store already has; None if that cannot be known.
    why_unknown : why not.
    """
    lines = [f"Plan of {config.name} → {out}", ""]
    names = [block.block or f"block {number}" for number, block in enumerate(config.grid)]
    wide = max(12, *(len(name) + 1 for name in names))
    head = f"{'backbones':>10}{'curves':>8}{'probes':>8}{'images':>12}{'FLOPs':>10}{'storage':>10}{'scratch':>10}"
    lines.append(" " * wide + head)
    for name in dict.fromkeys(names):  # blocks of one name are one row
        own = {number for number, other in enumerate(names) if other == name}
        cells = [cell for cell in grid.cells if own & set(cell.blocks)]
        lines.append(_row(name.ljust(wide), cost(config, cells)))
    total = cost(config, grid.cells)
    lines += [_row("total".ljust(wide), total), ""]
    lines += [f"{total.backbones} backbones, {total.curves:,} curves, {total.probes:,} probes", hours_said(total.flops)]
    lines.append(f"probes: {probes_said(grid.curves)}")
    sized = ((curve, layer_widths(curve.backbone), curve_sizes(config, curve)) for curve in grid.curves)
    lines.append(memory_said(sized, share=config.resources.memory))
    if grid.merged:
        lines.append(f"notice: {grid.merged} backbones stand in more than one block; each is run once")
    lines += [*counted(config), *(f"notice: {said}" for said in said_of_sizes(config))]
    lines += [*_along_lines(grid), *_trained_on_all_lines(grid), _done_line(done, why_unknown)]
    lines += [*_weights_lines(grid), *_seen_lines(grid), *_left_out_lines(grid)]
    lines += ["", *_correlation_lines(config, grid)]
    return "\n".join(lines)


def _row(name: str, part: Cost) -> str:
    return (
        f"{name}{part.backbones:>10,}{part.curves:>8,}{part.probes:>8,}{part.images:>12,}"
        f"{part.flops:>10.1e}{_bytes(part.storage):>10}{_bytes(part.scratch):>10}"
    )


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _along_lines(grid: Grid) -> list[str]:
    """What ``probe.at_epochs`` adds; it is part of the totals."""
    curves = [curve for curve in grid.curves if curve.backbone.epoch is not None]
    if not curves:
        return []
    stages = {curve.backbone for curve in curves}
    runs = {stage.after(None) for stage in stages}
    probes = sum(len(layer_widths(curve.backbone)) * curve.probes_per_layer for curve in curves)
    return [
        f"of these along ID training (probe.at_epochs): {len(stages):,} epochs of {len(runs):,} backbones, "
        f"{len(curves):,} curves, {probes:,} probes"
    ]


def _trained_on_all_lines(grid: Grid) -> list[str]:
    """Where ID training takes every image, what is held out for the ID curve's probes is none that was not seen."""
    on_all = sum(cell.backbone.recipe is not None and cell.backbone.recipe.train_on == "all" for cell in grid.cells)
    if not on_all:
        return []
    said = (
        f"{on_all} backbones are trained on all ID images: on the ID dataset the held-out part, which chooses epoch, "
        "penalty and peak layer of their probes, was seen in training (recipe.train_on: fit keeps it apart)"
    )
    return textwrap.wrap(f"notice: {said}", width=118)


def _weights_lines(grid: Grid) -> list[str]:
    """Aliases that were resolved are not repeated here: a tag says them. What is not known of weights is said."""
    unknown = {
        f"{cell.backbone.pretraining} of {cell.backbone.architecture}": None
        for cell in grid.cells
        if cell.backbone.weights is not None and cell.backbone.weights.images is None
    }
    if not unknown:
        return []
    said = f"how many images these weights were trained on is not known: {', '.join(unknown)}; γ and id_images are null"
    return textwrap.wrap(f"notice: {said} (weights: {{NAME: {{trained_on: …}}}} says it)", width=118)


def _seen_lines(grid: Grid) -> list[str]:
    """What weights expect of pixels, how they are shown images, and who says so; a line for each kind."""
    kinds: dict[str, list[str]] = {}
    for backbone in (cell.backbone for cell in grid.cells if cell.backbone.weights is not None):
        assert backbone.weights is not None
        both = (backbone.weights.mean, backbone.weights.std)
        mean, std = (", ".join(f"{value:.4g}" for value in each) for each in both)
        said = f"mean [{mean}], std [{std}] ({backbone.weights.pixels_from})"
        kinds.setdefault(f"{said}; {backbone.evaluation_view} view: {backbone.view}", []).append(
            f"{backbone.pretraining} of {backbone.architecture}"
        )
    return [f"pixels of {', '.join(dict.fromkeys(names))}: {said}" for said, names in kinds.items()]


def _left_out_lines(grid: Grid) -> list[str]:
    """ID curves that weights would have, were their ID dataset here."""
    without: dict[str, int] = {}
    for cell in grid.cells:
        if not any(curve.is_id for curve in cell.curves):
            without[cell.backbone.id_dataset] = without.get(cell.backbone.id_dataset, 0) + 1
    return [
        f"notice: no ID curve of {backbones} backbones with weights: the config has no dataset {name} (under datasets: "
        f"{name}: {{path: …}} it would be probed too); without it correlation and alignment with the ID curve are null"
        for name, backbones in without.items()
    ]


def _done_line(done: Mapping[Curve, bool] | None, why_unknown: str | None) -> str:
    if done is None:
        return f"already done: not known ({why_unknown})"
    finished = sum(done.values())
    return f"already done: {finished:,} curves; to do: {len(done) - finished:,}"


def _correlation_lines(config: Config, grid: Grid) -> list[str]:
    roles = varied_roles(config, grid)
    lines = ["varied: " + (", ".join(f"{name} ({role})" for name, role in roles.items()) or "nothing")]
    pairs = correlations(config, grid)
    confounded = [pair for pair in pairs if pair[2] > CONFOUNDED]
    if confounded:
        lines += ["warning: this grid confounds these pairs; the effects of a pair cannot be told apart (|ρ|):"]
        lines += [*_listing(confounded), *_separating(grid, confounded)]
    related = [pair for pair in pairs if WORTH_SAYING < pair[2] <= CONFOUNDED]
    return lines + (["correlated (|ρ|):", *_listing(related)] if related else [])


def _separating(grid: Grid, confounded: Sequence[tuple[str, str, float]]) -> list[str]:
    """Cells to add for pairs of grid variables: combinations of their levels that no backbone has, the fewest first.

    What follows from an architecture or from weights cannot be set apart by a cell, and is not spoken of.
    """
    rows = [variables(cell.backbone) for cell in grid.cells]
    lines = []
    for one, other, _ in confounded:
        if {one, other} & _NOT_FREE or not {one, other} <= {*GRID_VARIABLES}:
            continue
        levels = [list(dict.fromkeys(row[name] for row in rows)) for name in (one, other)]
        there = {(row[one], row[other]) for row in rows}
        absent = [(a, b) for a in levels[0] for b in levels[1] if (a, b) not in there and None not in (a, b)]
        if absent:
            few = ", ".join(f"{one} {a} with {other} {b}" for a, b in absent[:_SUGGESTED])
            more = ", …" * (len(absent) > _SUGGESTED)
            lines += textwrap.wrap(f"to tell {one} from {other}, add: {few}{more}", width=118, initial_indent="  ")
    return lines


def _listing(pairs: Sequence[tuple[str, str, float]]) -> list[str]:
    text = ", ".join(f"{one} ~ {other} {rho:.2f}".replace(" ", "\0") for one, other, rho in pairs)
    indent = "  "
    wrapped = textwrap.wrap(text, width=118, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
    return [line.replace("\0", " ") for line in wrapped]  # a pair is never broken over two lines
