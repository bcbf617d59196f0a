"""The state of a training run under way: where it is kept, and whether it is what was written."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

_CHECKPOINT_SECONDS = 30.0
_DIGEST_BYTES = 32  # of SHA-256


@dataclass(frozen=True)
class Checkpoints:
    """Where a run keeps its state while it is under way: bytes in, bytes out."""

    load: Callable[[], bytes | None]
    save: Callable[[bytes], None]
    every_seconds: float = _CHECKPOINT_SECONDS


def sealed(content: bytes) -> bytes:
    """Bytes behind their digest: neither torch nor a file system notices a changed bit in the weights."""
    return hashlib.sha256(content).digest() + content


def unsealed(data: bytes) -> bytes:
    """The bytes behind a digest; ValueError if they are not those that were sealed."""
    digest, content = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != digest:
        raise ValueError("its bytes are not those that were written")
    return content


def checkpoint_name(weights_key: str) -> str:
    """Where a training run under way keeps its state in the store."""
    return f"checkpoints/{weights_key}.pt"
