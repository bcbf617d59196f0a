"""Decoding, training and extraction of more and more images, scheduling of more and more backbones: seconds and memory.

Images come from files that no size of a cache hides: JPEG in folders, maps of sparse files. Memory is what processes
hold for themselves (anonymous); pages of maps are the system's to take back.
"""

from __future__ import annotations

import gc
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import torch

from sweep import driver, table
from sweep.config import Recipe
from sweep.config.schema import Resources
from sweep.driver.cluster import connect
from sweep.driver.tasks import run_cells
from sweep.embed.extract import embed
from sweep.models import build_backbone, memory_layout, probed_layers
from sweep.study.check import read_config
from sweep.train.batches import PlainImages
from sweep.train.checkpoint import Checkpoints
from sweep.train.pretrain import Labelled, pretrain

from . import decode, machine, storage
from .photos import jpeg, photograph

IMAGES, BACKBONES = (1_000, 10_000, 100_000), (10, 100, 1_000)
QUICK_IMAGES, QUICK_BACKBONES = (50, 100, 200), (2, 4, 8)
CPU = torch.device("cpu")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SIDE, _CLASSES, _WIDTH = 32, 10, 1 / 16
_SMALL = (64, 64)  # pixels of a decoded file: 100,000 in minutes
_SAMPLE_SECONDS = 0.05
Cost = tuple[float, int]  # seconds, and bytes at the peak beyond those before
Series = tuple[str, Sequence[int], Sequence[Cost]]


def run(*, quick: bool, images: Sequence[int] | None = None, backbones: Sequence[int] | None = None) -> list[Series]:
    """Measure all stages, each at every size."""
    images = images or (QUICK_IMAGES if quick else IMAGES)
    backbones = backbones or (QUICK_BACKBONES if quick else BACKBONES)
    stages: dict[str, tuple[Sequence[int], Callable[[Path, int], Cost]]] = {
        "decoding: images": (images, _decode),
        "training: images": (images, _train),
        "extraction: images": (images, _embed),
    }
    found: list[Series] = []
    for name, (sizes, stage) in stages.items():
        with tempfile.TemporaryDirectory(prefix="bench-growth-") as directory:
            stage(Path(directory) / "warm", min(sizes) // 2)  # threads, allocators, imports
            found.append((name, sizes, [stage(Path(directory) / str(size), size) for size in sizes]))
    with connect(Resources(gpus=0, max_in_flight=4)) as resources:
        costs = [_schedule(resources, size) for size in (min(backbones), *backbones)]
    return [*found, ("scheduling: backbones", backbones, costs[1:])]


@contextmanager
def anonymous_peak() -> Iterator[machine.Peak]:
    """Memory that this process and its children hold for themselves, at its peak beyond what they held before.

    Rubbish of earlier work is collected first: freed inside the block, it would hide as much of what is held there.
    """
    gc.collect()
    peak, done, process = machine.Peak(), threading.Event(), psutil.Process()
    before = _anonymous(process)

    def watch() -> None:
        while not done.wait(_SAMPLE_SECONDS):
            peak.extra_bytes = max(peak.extra_bytes, _beyond(before, _anonymous(process)))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()
        peak.extra_bytes = max(peak.extra_bytes, _beyond(before, _anonymous(process)))


def _beyond(before: Mapping[int, int], now: Mapping[int, int]) -> int:
    """Bytes that processes have come to hold; what one held that has ended meanwhile is no other's gain."""
    return sum(max(held - before.get(process, 0), 0) for process, held in now.items())


def _anonymous(process: psutil.Process) -> dict[int, int]:
    """Bytes by number of the process."""
    held: dict[int, int] = {}
    for each in (process, *process.children()):
        try:
            status = Path(f"/proc/{each.pid}/status").read_text()
        except OSError:  # it has ended
            continue
        lines = [line for line in status.splitlines() if line.startswith("RssAnon")]
        held[each.pid] = sum(1024 * int(line.split()[1]) for line in lines)
    return held


def _cost(work: Callable[[], object]) -> Cost:
    with anonymous_peak() as memory:
        seconds, _ = machine.timed(work, device=CPU, repeats=1)
    return seconds, memory.extra_bytes


def _decode(home: Path, images: int) -> Cost:
    """A folder that is opened before: its listing is not what is measured."""
    home.mkdir()
    dataset = decode.folder(home, [jpeg(photograph(seed, _SMALL)) for seed in range(48)], images)
    return _cost(lambda: decode.decoded(dataset, _SIDE, 2, home / "cache"))


def _mapped(home: Path, images: int) -> np.ndarray:
    """Images, all black, in a sparse file that takes no room."""
    home.mkdir()
    return np.memmap(home / "pixels", dtype=np.uint8, mode="w+", shape=(images, _SIDE, _SIDE, 3))


def _train(home: Path, images: int) -> Cost:
    pixels_NHWC, labels_N = _mapped(home, images), np.arange(images) % _CLASSES
    model = build_backbone("vggm11", classes=_CLASSES, resolution=_SIDE, width=_WIDTH)
    layout = memory_layout(probed_layers(model, resolution=_SIDE), CPU)
    nothing = Labelled(np.empty((0, _SIDE, _SIDE, 3), np.uint8), np.empty(0, np.int64))
    return _cost(
        lambda: pretrain(
            model,
            PlainImages(pixels_NHWC, labels_N, np.arange(images)),
            heldout=nothing,
            test=nothing,
            recipe=Recipe(epochs=1, warmup_epochs=0, batch_size=128, checkpoint_on="last"),
            key="bench",
            mean=MEAN,
            std=STD,
            device=CPU,
            checkpoints=Checkpoints(load=lambda: None, save=lambda _state: None),
            layout=layout,
        )
    )


def _embed(home: Path, images: int) -> Cost:
    """Embeddings in files, as those of a curve that the host's memory is not to hold."""
    pixels_NHWC = _mapped(home, images)
    model = build_backbone("vggm11", classes=_CLASSES, resolution=_SIDE, width=_WIDTH).eval()
    layers = probed_layers(model, resolution=_SIDE)
    return _cost(lambda: embed(model, layers, pixels_NHWC, mean=MEAN, std=STD, device=CPU, spill=home / "spill"))


def _schedule(resources: Resources, backbones: int) -> Cost:
    """A sweep of which everything is there: keys, listing, and a task for each backbone that finds nothing to do."""
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        file = storage.write(home, storage.FINISHED, classes="10", seeds=list(range(backbones)))
        config = read_config(file)
        before = driver.prepare(config, str(home / "out"))
        for key, planned in before.curves.items():
            table.write_fragment(before.store, key, storage.rows(key, planned.curve))

        def schedule() -> None:
            sweep = driver.prepare(config, str(home / "out"))
            cells = driver.missing_cells(sweep, frozenset())
            tasks = {cell.run: driver.task_of(sweep, cell, gpu=False) for cell in cells}
            run_cells(
                cells,
                resources,
                task_of=lambda cell, _train_only: tasks[cell.run],
                lost=storage._fail,
                show=storage._nothing,
            )

        return _cost(schedule)
