"""What a sweep would do, from the config alone: counts, cost, what is done, what the grid confounds."""

from __future__ import annotations

from collections.abc import Mapping

from sweep.config import Config
from sweep.study.confounding import correlation_lines
from sweep.study.costs import Cost, cost, course_trainings, layer_widths
from sweep.study.costs_said import bytes_said, hours_said, memory_lines
from sweep.study.grid import Curve, Grid
from sweep.study.grid_said import left_out_lines, seen_lines, trained_on_all_lines, weights_lines
from sweep.study.probes_said import probes_said, readings_lines
from sweep.study.resolve import counted, said_of_sizes


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
    lines += [f"probes: {probes_said(grid.curves)}", *readings_lines(config, grid), *memory_lines(config, grid.curves)]
    if grid.merged:
        lines.append(f"notice: {grid.merged} backbones stand in more than one block; each is run once")
    lines += [*counted(config), *(f"notice: {said}" for said in said_of_sizes(config))]
    lines += [
        *_along_lines(grid),
        *_course_lines(config, grid),
        *trained_on_all_lines(grid),
        _done_line(done, why_unknown),
    ]
    lines += [*weights_lines(grid), *seen_lines(grid), *left_out_lines(grid)]
    lines += ["", *correlation_lines(config, grid)]
    return "\n".join(lines)


def _row(name: str, part: Cost) -> str:
    return (
        f"{name}{part.backbones:>10,}{part.curves:>8,}{part.probes:>8,}{part.images:>12,}"
        f"{part.flops:>10.1e}{bytes_said(part.storage):>10}{bytes_said(part.scratch):>10}"
    )


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


def _done_line(done: Mapping[Curve, bool] | None, why_unknown: str | None) -> str:
    if done is None:
        return f"already done: not known ({why_unknown})"
    finished = sum(done.values())
    return f"already done: {finished:,} curves; to do: {len(done) - finished:,}"
