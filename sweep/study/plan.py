"""What a sweep would do, from the config alone: counts, cost, what is done, what the grid confounds."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from sweep.config import Config
from sweep.study.confounding import correlation_lines
from sweep.study.costs import Cost, cost, course_trainings, layer_widths
from sweep.study.grid import Curve, Grid
from sweep.study.probes_said import probes_said
from sweep.study.resolve import counted, said_of_sizes

# operations a second of an H100: what training at 32 px and extraction at 224 px reach, see tests/bench/RESULTS.md
_H100 = (2.5e13, 5e13)


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
    lines.append(f"{total.backbones} backbones, {total.curves:,} curves, {total.probes:,} probes")
    lines.append(hours_said(total.flops))
    lines.append(f"probes: {probes_said(curve for cell in grid.cells for curve in cell.curves)}")
    if grid.merged:
        lines.append(f"notice: {grid.merged} backbones stand in more than one block; each is run once")
    lines += [*counted(config), *(f"notice: {said}" for said in said_of_sizes(config))]
    lines += [*_along_lines(grid), *_course_lines(config, grid), *_trained_on_all_lines(grid)]
    lines.append(_done_line(done, why_unknown))
    lines += [*_weights_lines(grid), *_seen_lines(grid), *_left_out_lines(grid)]
    lines += ["", *correlation_lines(config, grid)]
    return "\n".join(lines)


def hours_said(flops: float) -> str:
    """How long so many operations take on a card whose rates were measured, in words."""
    least, most = (flops / rate / 3600 for rate in reversed(_H100))
    return (
        f"computing: {least:.2g} to {most:.2g} hours on one H100 (rates of tests/bench/RESULTS.md); reading and "
        "decoding images not counted"
    )


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


def _course_lines(config: Config, grid: Grid) -> list[str]:
    """What series of tasks and interventions add; it is part of the totals."""
    courses = [(cell.backbone, course) for cell in grid.cells for course in cell.courses]
    trained = sum(len(course_trainings(config, *each)) for each in courses)
    said = f"series of tasks: {len(courses):,}, with {trained:,} trainings after the first tasks (continual.parquet)"
    changed = {curve.backbone for curve in grid.curves if curve.backbone.intervention is not None}
    other = f"of these with other layers (intervene): {len(changed):,} backbones"
    return [said] * bool(courses) + [other] * bool(changed)


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
