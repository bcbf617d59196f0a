"""In how many bits a stage computes, matmuls and convolutions alike, and whether in the same order every time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sweep.base.errors import UserError

_HALF = ("bfloat16", "float16")
_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"  # read when cuBLAS starts


@contextmanager
def float32_bits(device: torch.device, precision: str) -> Iterator[None]:
    """Give what is computed in float32 in the block, backward passes too, all its bits, or those of ``tf32``.

    Raises
    ------
    UserError
        If ``tf32`` is asked of a CPU.
    """
    if precision == "tf32" and device.type != "cuda":
        raise UserError("precision: tf32 is an arithmetic of NVIDIA GPUs, and this is a CPU: float32 or bfloat16")
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


@contextmanager
def arithmetic(device: torch.device, precision: str) -> Iterator[None]:
    """Compute the forward passes of the block in a precision.

    Parameters
    ----------
    precision : ``float32``, all bits of it on a GPU too; ``tf32``, ten bits of the mantissa in matmuls and in
        convolutions of a GPU; ``bfloat16`` and ``float16``, where torch's autocast deems it safe, float32 elsewhere.
    """
    half = precision in _HALF
    mixed = torch.autocast(device.type, getattr(torch, precision if half else "bfloat16"), enabled=half)
    with float32_bits(device, precision), mixed:
        yield


@contextmanager
def reproducible(wanted: bool) -> Iterator[None]:
    """Compute the block by algorithms that give the same bits every time; an operator without one raises."""
    if not wanted:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark, os.environ.get(_WORKSPACE)
    os.environ.setdefault(_WORKSPACE, ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]
        if before[2] is None:
            del os.environ[_WORKSPACE]
