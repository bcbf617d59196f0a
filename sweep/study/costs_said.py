"""What a study takes, in words: hours of a card, bytes on disk, memory of a host."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from sweep.base.memory import host_memory
from sweep.config import Config
from sweep.study.costs import curve_sizes, embedded_bytes, layer_widths
from sweep.study.grid import Curve

# operations a second of an H100 or H200, see tests/bench/RESULTS.md: of extraction in float32 and of training in
# bfloat16, at 224 px
_RATES = (2.5e13, 1.2e14)
_NAMED = 3  # curves that are named


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
    allowed = int(config.resources.memory * host_memory()[1])
    if large := sum(size > allowed for size in found.values()):
        said = (
            f"embeddings of {large} curves are more than a task may hold in memory here ({bytes_said(allowed)}, "
            "resources.memory of this machine's): they are mapped from files in cache_dir, which needs as much room "
            f"there and takes longer: {'; '.join(named[: min(large, _NAMED)])}{'; …' * (large > _NAMED)}"
        )
        lines += textwrap.wrap(f"notice: {said}", width=118)
    return lines
