"""Which operators take the time: ``python -m tests.bench.operators probes|embed|statistics``."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import torch
from torch.profiler import profile

from sweep.embed.extract import embed
from sweep.embed.statistics import layer_statistics
from sweep.models.build import build_backbone
from sweep.models.layers import probed_layers
from sweep.probes.fit import fit_probes

from .embed import MEAN, STD
from .shapes import Case, synthetic

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CASE = Case("profile", (256, 256, 512, 512, 1024, 2048), 100, 3_000, 1_000, 2)


def _probes() -> Callable[[], object]:
    data = synthetic(CASE, device=DEVICE)
    return lambda: fit_probes(data, CASE.recipe, seed=0)


def _statistics() -> Callable[[], object]:
    data = synthetic(CASE, device=DEVICE)
    return lambda: layer_statistics(data.train, data.train_labels_N, classes=CASE.classes)


def _embed() -> Callable[[], object]:
    model = build_backbone("resnet34", classes=100, resolution=64).eval().to(DEVICE)
    layers = probed_layers(model, resolution=64)
    images_NHWC = np.zeros((256, 64, 64, 3), dtype=np.uint8)
    return lambda: embed(model, layers, images_NHWC, mean=MEAN, std=STD, device=DEVICE)


PARTS: dict[str, Callable[[], Callable[[], object]]] = {"probes": _probes, "embed": _embed, "statistics": _statistics}


def operators(part: str, *, rows: int = 20) -> str:
    """Table of the operators by the time spent in each itself, after a warm-up run."""
    work = PARTS[part]()
    work()
    with profile() as profiler:
        work()
    return profiler.key_averages().table(sort_by=f"self_{DEVICE.type}_time_total", row_limit=rows)


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in PARTS:
        raise SystemExit(f"usage: python -m tests.bench.operators {'|'.join(PARTS)}")
    print(operators(sys.argv[1]))
