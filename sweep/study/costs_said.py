"""What a study takes, in words: hours of a card, bytes on disk, memory of a host."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from pathlib import Path

from sweep.base.memory import host_memory
from sweep.config import AUTO, Config, Resources
from sweep.study.costs import curve_sizes, embedded_bytes, layer_widths
from sweep.study.grid import Curve

# operations a second of an H100 or H200, see tests/bench/RESULTS.md: of extraction in float32 and of training in
# bfloat16, at 224 px
_RATES = (2.5e13, 1.2e14)
_NAMED = 3  # curves that are named
_GPUS = Path("/proc/driver/nvidia/gpus")


def _hours(hours: float) -> str:
    return f"{hours:.2g}" if hours < 99.5 else f"{hours:,.0f}"


def hours_said(flops: float) -> str:
    """How long so many operations take on a card whose rates were measured, in words."""
    least, most = (flops / rate / 3600 for rate in reversed(_RATES))
    return (
        f"computing: {_hours(least)} to {_hours(most)} hours on one H100 or H200 (rates of tests/bench/RESULTS.md); "
        "reading and decoding images not counted"
    )


def bytes_said(size: float) -> str:
    """Bytes with a unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _tasks_here(resources: Resources) -> int:
    """How many tasks a run would have beside each other on this machine, by its GPUs or else its cores."""
    gpus = len(list(_GPUS.iterdir())) if _GPUS.is_dir() else 0
    share = float(gpus > 0) if resources.gpus == AUTO else float(resources.gpus)
    cores = (os.cpu_count() or 1) // (1 if resources.cpus == AUTO else int(resources.cpus))
    places = int(gpus // share) if share else cores
    return max(1, places if resources.max_in_flight == AUTO else min(places, int(resources.max_in_flight)))


def memory_lines(config: Config, curves: Sequence[Curve]) -> list[str]:
    """The largest embeddings of a curve, and the curves whose embeddings a task of this machine may not hold."""
    found = {
        f"{curve.backbone.label} on {curve.dataset}": embedded_bytes(
            layer_widths(curve.backbone), curve_sizes(config, curve)
        )
        for curve in curves
    }
    most = sorted(found, key=lambda name: -found[name])
    named = [f"{name} ({bytes_said(found[name])})" for name in most]
    lines = [f"embeddings of a curve: at most {named[0]}"]
    tasks = _tasks_here(config.resources)
    allowed = int(config.resources.memory * host_memory()[1] / tasks)
    if large := sum(size > allowed for size in found.values()):
        shared = f", shared by {tasks} tasks" if tasks > 1 else ""
        said = (
            f"embeddings of {large} curves are more than a task may hold in memory here ({bytes_said(allowed)}, "
            f"resources.memory of this machine's{shared}): they are mapped from files in cache_dir, which needs as "
            f"much room there and takes longer: {'; '.join(named[: min(large, _NAMED)])}{'; …' * (large > _NAMED)}"
        )
        lines += textwrap.wrap(f"notice: {said}", width=118)
    return lines
