"""Whose an error is: the curve's own, which another attempt would meet again, or that of where it was computed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

import torch

from sweep.base.errors import DeviceError, UserError
from sweep.cell.task import CellTask
from sweep.train import TrainingDivergedError

# An explicit list of what stays: mistakes of the user, of code and of data, which the same inputs make again
_STAYS = (
    *(UserError, TrainingDivergedError),
    *(ValueError, TypeError, LookupError, AttributeError, NameError, ArithmeticError, AssertionError),
    *(ImportError, SyntaxError, NotImplementedError, RecursionError),
)
_ROOM = (MemoryError, torch.OutOfMemoryError)
_NO_ROOM = ("DefaultCPUAllocator", "Cannot allocate memory")  # torch says so in a plain RuntimeError
_DEVICE: tuple[type[Exception], ...] = (getattr(torch, "AcceleratorError", DeviceError), DeviceError)  # since torch 2.8
_OF_DRIVERS = (
    *("CUDA error", "CUDA driver", "cuDNN error", "CUDNN_STATUS", "CUBLAS_STATUS", "CUSOLVER_STATUS", "CUFFT_"),
    *("CUSPARSE_STATUS", "cusolver error", "NVML", "HIP error", "hipErr", "MIOPEN", "No CUDA GPUs are available"),
    *("Found no NVIDIA driver", "NVIDIA driver on your system", "driver shutting down"),
)


class Fate(Enum):
    """What becomes of an error: ``STAYS`` is the curve's own and not tried again; ``OPEN`` is not known, so the next
    run tries; after ``CROWDED``, too little memory beside others, and ``DEVICE`` the cell is tried again elsewhere;
    ``STORAGE`` is anything that reads or writes.
    """

    STAYS = "stays"
    OPEN = "open"
    CROWDED = "crowded"
    DEVICE = "device"
    STORAGE = "storage"

    @property
    def is_recorded(self) -> bool:
        """Whether the curve gets a record here and the others of its cell go on; else the error leaves the worker."""
        return self in (Fate.STAYS, Fate.OPEN)


def fate(error: Exception, task: CellTask) -> Fate:
    """What becomes of an error that a cell has met."""
    if isinstance(error, OSError):
        return Fate.STORAGE
    if isinstance(error, _ROOM) or any(word in str(error) for word in _NO_ROOM):
        alone = isinstance(error, torch.OutOfMemoryError) and task.share >= 1
        return Fate.STAYS if alone else Fate.CROWDED
    cause = error.__cause__ if isinstance(error, UserError) else None  # a plug-in's, told in words
    if isinstance(error, _DEVICE) or (isinstance(cause, RuntimeError) and fate(cause, task) is Fate.DEVICE):
        return Fate.DEVICE
    if isinstance(error, _STAYS):
        return Fate.STAYS
    if isinstance(error, RuntimeError):  # torch's word for a wrong shape, and for much that a driver says
        broken = any(word in str(error) for word in _OF_DRIVERS) or (task.gpu and not _answers())
        return Fate.DEVICE if broken else Fate.STAYS
    return Fate.OPEN


def _answers() -> bool:
    """Whether the GPU still computes."""
    try:
        return int(torch.ones(8, device="cuda").sum()) == 8
    except (RuntimeError, AssertionError):
        return False


def leaving(error: Exception, task: CellTask) -> Exception:
    """The error as it leaves a worker: one of a device says so, in a type that every process knows."""
    if fate(error, task) is not Fate.DEVICE or isinstance(error, DeviceError):
        return error
    first = (str(error).strip() or "no words").splitlines()[0]
    return DeviceError(f"{type(error).__name__}: {first}")


@contextmanager
def device_errors(task: CellTask) -> Iterator[None]:
    """Make an error of the device in this block a :class:`~sweep.base.errors.DeviceError`."""
    try:
        yield
    except Exception as error:
        told = leaving(error, task)
        if told is error:
            raise
        raise told from error
