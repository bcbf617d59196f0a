"""How fast a network trains here: the real loop on random images, a few seconds of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from sweep.models import IMAGENET_MEAN, IMAGENET_STD, build_backbone, layers_of, memory_layout
from sweep.study import Backbone
from sweep.train.batches import PlainImages
from sweep.train.checkpoint import Checkpoints
from sweep.train.pretrain import Labelled, pretrain

_EPOCHS = 2  # the first warms up: only the last is timed


def training_rate(backbone: Backbone, device: torch.device, *, images: int) -> float:
    """Images a second of ID training without augmentation, whose crops the host's cores make beside.

    Parameters
    ----------
    images : of a batch; two batches are timed.
    """
    assert backbone.recipe is not None
    side, classes = backbone.resolution, backbone.head
    rng = np.random.default_rng(0)
    pixels_NHWC = rng.integers(0, 256, (2 * images, side, side, 3), dtype=np.uint8)
    labels_N = np.arange(2 * images) % classes
    model = build_backbone(backbone.architecture, classes=classes, resolution=side, width=backbone.width)
    layers = layers_of(backbone.architecture, resolution=side, width=backbone.width)
    short = {"epochs": _EPOCHS, "warmup_epochs": 0, "batch_size": images, "checkpoint_on": "last", "data_parallel": 1}
    recipe = backbone.recipe.model_copy(update=short)
    ends: list[float] = []

    def told(history: Sequence[Mapping[str, float]], total: int) -> None:
        """An epoch has ended, its loss is on the host."""
        ends.append(time.monotonic())

    few = Labelled(pixels_NHWC[:1], labels_N[:1])
    pretrain(
        model,
        PlainImages(pixels_NHWC, labels_N, np.arange(2 * images)),
        heldout=few,
        test=few,
        recipe=recipe,
        key="speed",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        device=device,
        checkpoints=Checkpoints(load=lambda: None, save=lambda data: None),
        on_epoch=told,
        layout=memory_layout(layers, device),
    )
    return 2 * images / (ends[-1] - ends[-2])
