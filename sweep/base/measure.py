"""What a stage cost: seconds, and the peak memory of the device or of the process."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from sweep.base.processor import processor


@dataclass
class Measured:
    """Filled in when the measured block ends.

    Attributes
    ----------
    seconds : wall time.
    peak_bytes : on a GPU the most memory torch held during the block; on CPU the process's resident peak so far.
    """

    seconds: float = 0.0
    peak_bytes: int = 0


@contextmanager
def measured(device: torch.device) -> Iterator[Measured]:
    """Measure the block of a ``with`` statement."""
    cost, started = Measured(), time.monotonic()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        yield cost
    finally:
        cost.seconds = time.monotonic() - started
        if device.type == "cuda":
            cost.peak_bytes = torch.cuda.max_memory_allocated(device)
        else:
            unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes there, KiB elsewhere
            cost.peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def device_name(device: torch.device) -> str:
    """The processor's name, as its vendor prints it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return processor()
