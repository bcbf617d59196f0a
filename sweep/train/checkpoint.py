"""The state of a training run under way: where it is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sweep.base.store import Store

_CHECKPOINT_SECONDS = 30.0
_BEST = "checkpoints/best/"


@dataclass(frozen=True)
class BestWeights:
    """Where the best weights so far stand beside a run's state, by the epoch they are of: they change less often.

    ``forget_others`` removes those of all epochs but one.
    """

    load: Callable[[int], bytes | None]
    save: Callable[[int, memoryview], None]
    forget_others: Callable[[int], None]


@dataclass(frozen=True)
class Checkpoints:
    """Where a run keeps its state while it is under way: bytes in, bytes out.

    ``best``: where the best weights stand apart; None: they are part of the state.
    """

    load: Callable[[], bytes | None]
    save: Callable[[memoryview], None]
    every_seconds: float = _CHECKPOINT_SECONDS
    best: BestWeights | None = None


def checkpoint_name(weights_key: str) -> str:
    """Where a training run under way keeps its state in the store."""
    return f"checkpoints/{weights_key}.pt"


def best_name(weights_key: str, epoch: int) -> str:
    """Where the best weights of a training run under way stand in the store."""
    return f"{_BEST}{weights_key}-{epoch}.pt"


def forget_best(store: Store, weights_key: str, *, but: str = "") -> None:
    """Remove the best weights of a run under way, of all epochs but one."""
    for name in store.names(_BEST):
        if name.startswith(f"{_BEST}{weights_key}-") and name != but:
            store.delete(name)


def clear_checkpoint(store: Store, weights_key: str) -> None:
    """Remove what a training run keeps while under way; what else stands in its place is none of ours."""
    name = checkpoint_name(weights_key)
    if store.exists(name):
        store.delete(name)
    forget_best(store, weights_key)
