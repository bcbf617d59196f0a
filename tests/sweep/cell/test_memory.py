"""A curve larger than the host's share of memory: what it holds for itself stays far below its embeddings."""

import re
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sweep.config import Probe
from sweep.embed import embed, layer_statistics
from sweep.models.layers import ProbedLayer
from sweep.models.layout import Layout
from sweep.probes import ProbeData, fit_probes
from sweep.study.check import read_config
from sweep.study.costs import curve_sizes, embedded_bytes, layer_widths
from sweep.study.costs_said import memory_lines
from sweep.study.grid import Sizes, expand
from sweep.study.resolve import sizes

IMAGES, CHANNELS, LAYERS, CLASSES = 12_000, 128, 16, 2
ROOT = Path(__file__).resolve().parents[3]


def anonymous():
    """Bytes that this process holds for itself; pages of files are the system's to take back."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return 1024 * int(line.split()[1])


def held(work):
    """What work returns, and the most that it held meanwhile."""
    before, most, done = anonymous(), 0, threading.Event()

    def watch():
        nonlocal most
        while not done.wait(0.005):
            most = max(most, anonymous() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        return work(), most
    finally:
        done.set()
        watcher.join()


@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted as Linux does")
def test_embeddings_in_files_take_no_memory_from_extraction_to_statistics(tmp_path):
    draw = torch.manual_seed(0)
    model = nn.Sequential(*(nn.Conv2d(CHANNELS if number else 3, CHANNELS, 1) for number in range(LAYERS))).eval()
    for convolution in model:  # or deep layers would shrink to their biases
        nn.init.orthogonal_(convolution.weight)
        nn.init.zeros_(convolution.bias)
    layers = [ProbedLayer(str(at), Layout("BCHW", CHANNELS), "2x2", 4 * CHANNELS, 2) for at in range(LAYERS)]
    images_NHWC = np.random.default_rng(0).integers(0, 256, (IMAGES, 2, 2, 3), dtype=np.uint8)
    labels_N = torch.randint(0, CLASSES, (IMAGES,), generator=draw)
    everything = embedded_bytes([layer.width for layer in layers], Sizes(CLASSES, IMAGES, 0))

    def embedded(spill, n=IMAGES):
        seen = {"mean": [0.5] * 3, "std": [0.2] * 3, "device": labels_N.device}
        return embed(model, layers, images_NHWC[:n], **seen, spill=spill)

    def curve(spill, n=IMAGES):
        emb = embedded(spill, n)
        few = [emb_ND[:100] for emb_ND in emb]
        names = [layer.name for layer in layers]
        data = ProbeData(emb, labels_N[:n], torch.arange(n) % 10 == 0, few, labels_N[:100], CLASSES, names)
        results = fit_probes(data, Probe(solver="adamw", epochs=1, batch_size=512), seed=0)
        described = layer_statistics(emb[:2], labels_N[:n], classes=CLASSES)
        return results, described, {emb_ND.dtype for emb_ND in emb}

    curve(tmp_path / "spill", 600)  # threads and allocators
    (results, described, dtypes), most = held(lambda: curve(tmp_path / "spill"))
    _, control = held(lambda: embedded(None))
    assert dtypes == {torch.float16}
    assert [result.problem for result in results] == [None] * LAYERS
    assert len(described) == 2
    assert everything == 196_608_000
    assert control > 0.7 * everything  # less what the allocator had kept
    assert most < everything / 2


def test_the_plan_says_the_largest_curve():
    config = read_config(ROOT / "configs" / "paper.yaml", need_data=False)
    grid = expand(config, lambda name: sizes(config, name))
    curves = [c for c in grid.curves if (c.backbone.architecture, c.backbone.resolution) == ("resnet34", 224)]
    widths = layer_widths(curves[0].backbone)
    assert max(embedded_bytes(widths, curve_sizes(config, c)) for c in curves) == 2 * sum(widths) * 131_689
    said = memory_lines(config, curves)[0]
    assert re.fullmatch(
        r"embeddings of a curve: at most resnet34 imagenet100\S* 224px .* on imagenet100 \(8 GB\)", said
    )
