"""What passes between driver and workers: values, keys and URIs, never tensors. Imports nothing heavy."""

from __future__ import annotations

import socket
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sweep import table
from sweep.base.spans import recorded
from sweep.base.store import Store
from sweep.data import DatasetOptions, Decoding, Library, Shelf
from sweep.study import Planned, PlannedCell, Settings

_TRACEBACK_LINES = 30


@dataclass(frozen=True)
class CellTask:
    """Everything a worker needs to run one backbone.

    Attributes
    ----------
    cell : with the curves that are missing, and all keys.
    settings : what every curve of the sweep is measured with.
    datasets : options of every dataset of the sweep, by name.
    cache_dir : node-local directory of decoded images (and of kept embeddings).
    cpus : processes that decode images, and beside a GPU threads that fit small probes.
    cache_bytes : of decoded images that the cache may hold.
    share_decoded : whether decoded images pass through the store to other nodes.
    share : of a GPU that the task has; below 1, others use it too.
    tasks : how many of a sweep run on a node at once, and share its memory.
    memory : share of the device's free memory that probes in flight may take.
    deterministic : compute the same bits every time, where torch can.
    keep_probes : "best", "all" or None, see :mod:`sweep.cell.kept`.
    train_only : bring the backbone's weights into the store and leave its curves to other tasks.
    imports, import_path : modules that register plug-ins, and a directory where they may be.
    provenance : columns that every row carries (git commit, library versions).
    profile : name of the profile that the run is to have, see :mod:`sweep.table.timeline`.
    """

    cell: PlannedCell
    settings: Settings
    datasets: Mapping[str, DatasetOptions]
    store_uri: str
    cache_dir: str
    cpus: int = 1
    cache_bytes: int | None = None
    share_decoded: bool = False
    threads: int = 1
    loader_workers: int = 0
    gpu: bool = False
    share: float = 1.0
    tasks: int = 1
    memory: float = 0.7
    deterministic: bool = False
    keep_embeddings: bool = False
    keep_probes: str | None = None
    train_only: bool = False
    provenance: Mapping[str, str] = field(default_factory=dict)
    imports: tuple[str, ...] = ()
    import_path: str | None = None
    profile: str | None = None

    def sharing(self, kind: str) -> int:
        """How many tasks share the memory of a device of that kind."""
        return max(1, round(1 / self.share)) if kind == "cuda" else self.tasks

    def host_threads(self, kind: str) -> int | None:
        """Threads for probes that a device of that kind leaves to the CPU; None: those that torch has anyway."""
        return self.cpus if kind == "cuda" else None


def library_of(task: CellTask) -> Library:
    """The images of a task's datasets."""
    how = Decoding(task.cpus, task.cache_bytes, Shelf(Store(task.store_uri)) if task.share_decoded else None)
    return Library(task.datasets, task.cache_dir, task.settings.split_seed, task.settings.holdout, how)


@contextmanager
def profiled(task: CellTask, about: str | None = None) -> Iterator[None]:
    """Record where the time of a task goes, if its run is to have a profile; opened before torch is loaded."""
    save = table.saver(Store(task.store_uri), task.profile) if task.profile else None
    with recorded("rest of the task", save, about or task.cell.backbone.label):
        yield


@dataclass(frozen=True)
class CellResult:
    """Keys of the curves that were written, and of those that failed; ``node``: where, if the driver noted it."""

    done: tuple[str, ...]
    failed: tuple[str, ...]
    node: str | None = None


def failure_record(
    planned: Planned, stage: str, error: BaseException, seconds: float, *, transient: bool = False
) -> dict[str, Any]:
    """A failed attempt at a curve as a row of the failure table; ``transient``: another attempt may succeed."""
    about = (planned.key, planned.curve.backbone.label, planned.curve.dataset)
    return failure_of(*about, stage, error, seconds, transient=transient)


def failure_of(
    key: str, backbone: str, dataset: str, stage: str, error: BaseException, seconds: float, *, transient: bool
) -> dict[str, Any]:
    """A failed attempt at whatever has this key in the store, as a row of the failure table."""
    lines = "".join(traceback.format_exception(error)).splitlines()
    return {
        "curve_key": key,
        "backbone": backbone,
        "dataset": dataset,
        "stage": stage,
        "exception": type(error).__name__,
        "message": str(error),
        "transient": transient,
        "traceback": "\n".join(lines[-_TRACEBACK_LINES:]),
        "seconds": seconds,
        "host": socket.gethostname(),
        "failed_at": datetime.now(UTC),
    }
