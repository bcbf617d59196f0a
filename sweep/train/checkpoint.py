"""The state of a training run under way: where it is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

_CHECKPOINT_SECONDS = 30.0


@dataclass(frozen=True)
class Checkpoints:
    """Where a run keeps its state while it is under way: bytes in, bytes out."""

    load: Callable[[], bytes | None]
    save: Callable[[memoryview], None]
    every_seconds: float = _CHECKPOINT_SECONDS


def checkpoint_name(weights_key: str) -> str:
    """Where a training run under way keeps its state in the store."""
    return f"checkpoints/{weights_key}.pt"
