"""Checkpoints as bytes, written beside training; and whether they are what was written."""

from __future__ import annotations

import hashlib
import io
import logging
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from sweep.base.errors import StorageError
from sweep.train.checkpoint import Checkpoints

log = logging.getLogger(__name__)

_DIGEST_BYTES = 32  # of SHA-256
BEST, WEIGHTS = "best", "state"  # of a run's state: its best epoch, and the weights of it
KEPT = "kept"  # instead of BEST where its weights stand apart


class Saver:
    """Writes checkpoints in a thread of its own, while training goes on; a ``with`` block, at whose end all is written.

    One is written at a time: a store that is slower than training is waited for, so that memory holds one copy.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self._checkpoints = checkpoints
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._writing: Future[None] | None = None
        self._saved_at = time.monotonic()
        self._best_epoch: int | None = None  # whose weights were written as the best last

    @property
    def is_due(self) -> bool:
        """Whether the last one is so old that another is wanted."""
        return time.monotonic() - self._saved_at >= self._checkpoints.every_seconds

    def save(self, state: Mapping[str, Any]) -> None:
        """Have a state written that nobody changes any more; raises what writing the one before has raised."""
        self._wait()
        self._writing = self._thread.submit(self._write, state)
        self._saved_at = time.monotonic()

    def _write(self, state: Mapping[str, Any]) -> None:
        """A checkpoint that cannot be written costs what a kill would cost, no more."""
        try:
            self._put(state)
        except StorageError as error:
            log.warning("no checkpoint: %s; training goes on without", error)

    def _put(self, state: Mapping[str, Any]) -> None:
        """Best weights first, where they stand apart and changed; then the state that names them."""
        elsewhere, best = self._checkpoints.best, state.get(BEST, {})
        if elsewhere is None or WEIGHTS not in best:
            self._checkpoints.save(sealed(state))
            return
        epoch = best["epoch"]
        if epoch != self._best_epoch:
            elsewhere.save(epoch, sealed({"key": state["key"], "epoch": epoch, WEIGHTS: best[WEIGHTS]}))
            self._best_epoch = epoch
        others = {name: value for name, value in state.items() if name != BEST}
        self._checkpoints.save(sealed(others | {KEPT: {name: each for name, each in best.items() if name != WEIGHTS}}))
        elsewhere.forget_others(epoch)

    def _wait(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def __enter__(self) -> Saver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True)  # none appears after the run has ended, and cleared them
        if error is None:
            self._wait()


def apart(state: Any) -> Any:
    """A state dictionary whose tensors are copies on the CPU, laid out as they were."""
    if isinstance(state, Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {name: apart(value) for name, value in state.items()}
    return [apart(value) for value in state] if isinstance(state, list) else state


class _Sink(io.BytesIO):
    """What is written, behind room for its digest, which is taken on the way."""

    def __init__(self) -> None:
        super().__init__(bytes(_DIGEST_BYTES))
        self.seek(_DIGEST_BYTES)
        self._digest = hashlib.sha256()

    def write(self, data: Any) -> int:
        """Write the next bytes."""
        self._digest.update(data)
        return super().write(data)

    def sealed(self) -> memoryview:
        """Digest and content, not copied."""
        self.seek(0)
        super().write(self._digest.digest())
        return self.getbuffer().toreadonly()


def sealed(state: object) -> memoryview:
    """A state as bytes behind their digest: neither torch nor a file system notices a changed bit in the weights."""
    sink = _Sink()
    torch.save(state, sink)
    return sink.sealed()


def unsealed(data: bytes | memoryview) -> memoryview:
    """The bytes behind a digest, not copied; ValueError if they are not those that were sealed."""
    digest, content = memoryview(data)[:_DIGEST_BYTES], memoryview(data)[_DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != digest:
        raise ValueError("its bytes are not those that were written")
    return content
