"""A curve whose embeddings are larger than what its process may take, for test_memory_limit.py.

    python -m tests.sweep.cell.limited_curve HOME

It is computed without a limit, then under one: of the process (``ulimit -d``), and of a control group where one can be
made. The limit is what is there after the first, and :data:`ROOM` besides. Prints what is free then, the bytes of the
embeddings, digests of all probes of both, and what becomes of a curve that does not look at the limit.
"""

import hashlib
import os
import resource
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from sweep import driver
from sweep.base.memory import host_memory
from sweep.cell.cell import embed_curve
from sweep.cell.probing import probe_curve
from sweep.data import Images
from sweep.models import IMAGENET_MEAN, IMAGENET_STD, build_backbone
from sweep.study import read_config
from sweep.train.weights import Facts, Weights

MIB = 1 << 20
ROOM = 60 * MIB
SIDE, WIDTH, CLASSES, TRAIN, TEST = 32, 0.125, 3, 14_000, 500
CONFIG = """
name: large
grid: [{architecture: vggm11, id_dataset: fractals, id_classes: 3, resolution: 32, width: 0.125, augmentation: off}]
datasets: {fractals: {classes: 4, train_per_class: 12, test_per_class: 6}}
probe: {solver: ridge, weight_decay: 1}
"""
GROUPS = Path("/sys/fs/cgroup")


def images(file: Path) -> Images:
    """Noise, mapped from a file as decoded images are."""
    rng = np.random.default_rng(0)
    labels_N = rng.integers(0, CLASSES, TRAIN + TEST)
    np.save(file, rng.integers(0, 256, (len(labels_N), SIDE, SIDE, 3), dtype=np.uint8))
    pixels_NHWC = np.load(file, mmap_mode="r")
    parts = {"train_NHWC": pixels_NHWC[:TRAIN], "test_NHWC": pixels_NHWC[TRAIN:]}
    labels = {"train_labels_N": labels_N[:TRAIN], "test_labels_N": labels_N[TRAIN:]}
    about = {"classes": CLASSES, "fingerprint": "noise", "skipped": (), "split_note": "official", "test_names": ()}
    return Images(**parts, **labels, heldout_N=np.arange(TRAIN) % 10 == 0, **about)


def new_group() -> tuple[Path, str] | None:
    """A memory group of our own and the name of its limit, in either version; None where none can be made."""
    for root, name in ((GROUPS / "memory", "memory.limit_in_bytes"), (GROUPS, "memory.max")):
        group = root / f"tunnel-sweep-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        if (group / name).exists():
            return group, name
        group.rmdir()
    return None


def limit(group: tuple[Path, str] | None) -> None:
    """Take no more than now, and :data:`ROOM`."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    now = 1024 * int(status["VmData"].split()[0])
    resource.setrlimit(resource.RLIMIT_DATA, (now + ROOM, now + ROOM))
    if group is not None:
        folder, name = group
        used = int((folder / ("memory.usage_in_bytes" if "limit" in name else "memory.current")).read_text())
        (folder / name).write_text(str(used + ROOM))
        if (folder / "memory.swap.max").exists():
            (folder / "memory.swap.max").write_text("0")


def main(home: Path) -> None:
    """Embed and probe without and with the limit."""
    group = new_group()
    if group is not None:
        (group[0] / "cgroup.procs").write_text(str(os.getpid()))
    print(group and group[0])
    (home / "c.yaml").write_text(CONFIG + f"cache_dir: {home / 'cache'}\n")
    sweep = driver.prepare(read_config(home / "c.yaml"), str(home / "out"))
    task, planned = driver.task_of(sweep, sweep.cells[0], gpu=False), sweep.cells[0].curves[0]
    torch.set_num_threads(1)
    model = build_backbone("vggm11", classes=CLASSES, resolution=SIDE, width=WIDTH, seed=0)
    weights, noise = Weights(model, Facts(), IMAGENET_MEAN, IMAGENET_STD), images(home / "noise.npy")

    def curve(fraction: float) -> tuple[int, str]:
        """Bytes of the embeddings and a digest of the probes, with so much of the memory for them."""
        own = replace(task, memory=fraction)
        embedded = embed_curve(own, planned, weights, noise, torch.device("cpu"))
        fitted = probe_curve(own, planned.curve, noise, embedded, torch.device("cpu"))
        size = sum(emb_ND.nbytes for part in (embedded.train, embedded.test) for emb_ND in part)
        return size, hashlib.sha256(repr(fitted.results).encode()).hexdigest()

    size, whole = curve(0.6)
    limit(group)
    free, _ = host_memory()
    _, limited = curve(0.6)
    try:
        curve(1e4)
        blind = "nothing"
    except (MemoryError, RuntimeError) as error:
        blind = str(error)
    print(free, size, whole, limited)
    print(blind)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
