"""What a figure must be read against: the machine, what it can do at best, and clocks for time and memory."""

from __future__ import annotations

import gc
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import psutil
import torch

from sweep.base.measure import device_name
from sweep.base.provenance import git_commit

T = TypeVar("T")
_SAMPLE_SECONDS = 0.01
_LONG_SECONDS = 10.0  # a run this long is not repeated: its noise is small beside it
_BUSY = 0.1  # share of the processor that others may use before figures are called provisional
ROOT = Path(__file__).resolve().parents[2]


def describe(device: torch.device) -> dict[str, Any]:
    """The machine, its libraries and the date."""
    memory = psutil.virtual_memory().total
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
    return {
        "device": device_name(device),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(memory / 2**30, 1),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": datetime.now(UTC).date().isoformat(),
        "commit": git_commit(),
    }


@contextmanager
def threads(number: int) -> Iterator[None]:
    """So many threads for torch inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass
class Neighbours:
    """Share of the processor's time that other processes took during a block, and whether that is too much."""

    share: float = 0.0

    @property
    def provisional(self) -> bool:
        return self.share > _BUSY


@contextmanager
def neighbours() -> Iterator[Neighbours]:
    """Watch how much of the machine others use: figures from a shared machine say so themselves."""
    found = Neighbours()
    busy, own, started = _busy_seconds(), _own_seconds(), time.perf_counter()
    yield found
    others = _busy_seconds() - busy - (_own_seconds() - own)
    found.share = max(others, 0.0) / ((time.perf_counter() - started) * (os.cpu_count() or 1))


def _busy_seconds() -> float:
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0)


def _own_seconds() -> float:
    """Processor time of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def synchronize(device: torch.device) -> None:
    """Wait for what was started; nothing to wait for on CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(run: Callable[[], T], *, device: torch.device, repeats: int = 2) -> tuple[float, T]:
    """Shortest wall time of some runs, s, and what the last returned; a long run is done once."""
    best = float("inf")
    for _ in range(repeats):
        synchronize(device)
        started = time.perf_counter()
        value = run()
        synchronize(device)
        best = min(best, time.perf_counter() - started)
        if best > _LONG_SECONDS:
            break
    return best, value


def together(runs: dict[str, Callable[[], object]], *, repeats: int) -> dict[str, float]:
    """Shortest time of each, in turns, so that a slow minute of the machine meets all of them."""
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(repeats):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            best[name] = min(best[name], time.perf_counter() - started)
    return best


def race(one: Callable[[], object], other: Callable[[], object], *, turns: int) -> tuple[float, float, float]:
    """Median seconds of each, and the median ratio one ÷ other over turns, in which one meets what the other meets."""
    pairs = []
    for _ in range(turns):
        seconds = together({"one": one, "other": other}, repeats=1)
        pairs.append((seconds["one"], seconds["other"]))
    ones, others = zip(*pairs, strict=True)
    return median(ones), median(others), median(first / second for first, second in pairs)


def matmul_peak(device: torch.device, *, size: int = 2048, dtype: torch.dtype = torch.float32) -> float:
    """Floating-point operations per second of a large square matmul, the best of five."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    torch.mm(a, b)
    seconds, _ = timed(lambda: torch.mm(a, b), device=device, repeats=5)
    return 2 * size**3 / seconds


def copy_bandwidth(device: torch.device, *, size: int = 1 << 28) -> float:
    """Bytes per second, read and written, of a copy larger than the caches."""
    source = torch.zeros(size // 4, device=device)
    target = torch.zeros_like(source)
    seconds, _ = timed(lambda: target.copy_(source), device=device, repeats=5)
    return 2 * size / seconds


@dataclass
class Peak:
    """Memory at its peak inside the block, over what was held when it began, bytes."""

    extra_bytes: int = 0


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Peak]:
    """On CPU the resident set is sampled every 10 ms; on a GPU torch counts.

    Rubbish of earlier work is collected first: freed inside the block, it would hide what is held there.
    """
    gc.collect()
    peak = Peak()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield peak
        peak.extra_bytes = torch.cuda.max_memory_allocated(device) - before
        return
    process, done = psutil.Process(), threading.Event()
    before = process.memory_info().rss

    def watch() -> None:
        while not done.wait(_SAMPLE_SECONDS):
            peak.extra_bytes = max(peak.extra_bytes, process.memory_info().rss - before)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()
        peak.extra_bytes = max(peak.extra_bytes, process.memory_info().rss - before)
