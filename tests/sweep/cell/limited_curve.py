"""A curve whose embeddings are larger than what its process may take: run by test_memory_limit.py in a process of its own.

    python -m tests.sweep.cell.limited_curve HOME KIND FRACTION

``KIND``: none, rlimit (``ulimit -d``) or cgroup. The limit is what is there after everything is imported and tried on a
few images, and :data:`ROOM` besides. Prints a digest of all probes.
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
from sweep.cell.cell import embed_curve, probe_curve
from sweep.data import Images
from sweep.models import IMAGENET_MEAN, IMAGENET_STD, build_backbone
from sweep.study import read_config
from sweep.train.weights import Facts, Weights

MIB = 1 << 20
ROOM = 96 * MIB
SIDE, CLASSES, TRAIN, TEST, FEW = 16, 3, 22_000, 1_000, 60
CONFIG = """
name: large
grid: [{architecture: vggm11, id_dataset: fractals, id_classes: 3, resolution: 32, width: 0.25, augmentation: off}]
datasets: {fractals: {classes: 4, train_per_class: 12, test_per_class: 6}}
probe: {solver: ridge, weight_decay: 1}
"""
GROUPS = Path("/sys/fs/cgroup")


def images(n_train: int, n_test: int, file: Path) -> Images:
    """Noise, mapped from a file as decoded images are."""
    rng = np.random.default_rng(0)
    n = n_train + n_test
    labels_N = rng.integers(0, CLASSES, n)
    if not file.exists():
        np.save(file, rng.integers(0, 256, (n, SIDE, SIDE, 3), dtype=np.uint8))
    pixels_NHWC = np.load(file, mmap_mode="r")
    held_N = np.arange(n_train) % 10 == 0
    parts = {"train_NHWC": pixels_NHWC[:n_train], "test_NHWC": pixels_NHWC[n_train:]}
    labels = {"train_labels_N": labels_N[:n_train], "test_labels_N": labels_N[n_train:]}
    about = {"classes": CLASSES, "fingerprint": "noise", "skipped": (), "split_note": "official", "test_names": ()}
    return Images(**parts, **labels, heldout_N=held_N, **about)


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


def limit(kind: str, group: tuple[Path, str] | None) -> None:
    """Take no more than now, and :data:`ROOM`."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    if kind == "rlimit":
        now = 1024 * int(status["VmData"].split()[0])
        resource.setrlimit(resource.RLIMIT_DATA, (now + ROOM, now + ROOM))
    if kind == "cgroup":
        assert group is not None
        folder, name = group
        used = int((folder / ("memory.usage_in_bytes" if "limit" in name else "memory.current")).read_text())
        (folder / name).write_text(str(used + ROOM))
        if (folder / "memory.swap.max").exists():
            (folder / "memory.swap.max").write_text("0")


def main(home: Path, kind: str, fraction: float) -> None:
    """Embed and probe under the limit."""
    group = new_group() if kind == "cgroup" else None
    if group is not None:
        (group[0] / "cgroup.procs").write_text(str(os.getpid()))
        print(group[0], flush=True)
    (home / "c.yaml").write_text(CONFIG + f"cache_dir: {home / 'cache'}\n")
    sweep = driver.prepare(read_config(home / "c.yaml"), str(home / "out"))
    task = replace(driver.task_of(sweep, sweep.cells[0], gpu=False), memory=fraction)  # beyond 1: not looked at
    planned, device = sweep.cells[0].curves[0], torch.device("cpu")
    torch.set_num_threads(1)
    model = build_backbone("vggm11", classes=CLASSES, resolution=32, width=0.25, seed=0)
    weights = Weights(model, Facts(), IMAGENET_MEAN, IMAGENET_STD)
    few = images(FEW, FEW, home / "few.npy")
    probe_curve(task, planned.curve, few, embed_curve(task, planned, weights, few, device), device)
    many = images(TRAIN, TEST, home / "many.npy")
    limit(kind, group)
    free, total = host_memory()
    embedded = embed_curve(task, planned, weights, many, device)
    fitted = probe_curve(task, planned.curve, many, embedded, device)
    size = sum(emb_ND.nbytes for part in (embedded.train, embedded.test) for emb_ND in part)
    digest = hashlib.sha256(repr(fitted.results).encode()).hexdigest()
    print(f"{free} {total} {size} {digest}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
