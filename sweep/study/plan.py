"""What a sweep would do, from the config alone: counts, cost, what is done, what the grid confounds."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from sweep.base.memory import host_memory
from sweep.config import Config
from sweep.study.confounding import correlation_lines
from sweep.study.costs import Cost, cost, curve_sizes, layer_widths
from sweep.study.grid import Curve, Grid
from sweep.study.grid_said import left_out_lines, seen_lines, trained_on_all_lines, weights_lines
from sweep.study.probes_said import probes_said
from sweep.study.resolve import counted, said_of_sizes

# operations a second of an H100: what training at 32 px and extraction at 224 px reach, see tests/bench/RESULTS.md
_H100 = (2.5e13, 5e13)
_EMBEDDED_BYTES = 2  # of a number of an embedding, float16
_NAMED = 3  # curves that are named


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
    lines += [*_along_lines(grid), *trained_on_all_lines(grid), *_large_lines(config, grid)]
    lines.append(_done_line(done, why_unknown))
    lines += [*weights_lines(grid), *seen_lines(grid), *left_out_lines(grid)]
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


def _large_lines(config: Config, grid: Grid) -> list[str]:
    """Curves whose embeddings are more than a task of this machine may hold in memory."""
    allowed = int(config.resources.memory * host_memory()[1])
    found: dict[str, float] = {}
    for curve in grid.curves:
        _, train, test = curve_sizes(config, curve)
        size = _EMBEDDED_BYTES * sum(layer_widths(curve.backbone)) * (train + test)
        if size > allowed:
            found[f"{curve.backbone.label} on {curve.dataset} ({_bytes(size)})"] = size
    if not found:
        return []
    most = sorted(found, key=lambda name: -found[name])
    said = (
        f"embeddings of {len(found)} curves are more than a task may hold in memory here ({_bytes(allowed)}, "
        "resources.memory of this machine's): they are mapped from files in cache_dir, which needs as much room there "
        f"and takes longer: {'; '.join(most[:_NAMED])}{'; …' * (len(most) > _NAMED)}"
    )
    return textwrap.wrap(f"notice: {said}", width=118)


def _done_line(done: Mapping[Curve, bool] | None, why_unknown: str | None) -> str:
    if done is None:
        return f"already done: not known ({why_unknown})"
    finished = sum(done.values())
    return f"already done: {finished:,} curves; to do: {len(done) - finished:,}"
