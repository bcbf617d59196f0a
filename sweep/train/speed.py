"""How fast a network trains here, alone and beside others: the real loop on random images, a few seconds of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sweep import register
from sweep.models import IMAGENET_MEAN, IMAGENET_STD, build_backbone, layers_of, memory_layout
from sweep.study import Backbone
from sweep.train.batches import PlainImages
from sweep.train.beside import at_once
from sweep.train.checkpoint import Checkpoints
from sweep.train.pretrain import Labelled, pretrain

_EPOCHS = 2  # the first warms up: only the last is timed
_DISTINCT = 2  # batches of images; an epoch of more has each several times


@dataclass(frozen=True)
class Drill:
    """Some training of a network without augmentation, whose crops the host's cores make beside.

    Attributes
    ----------
    device : its type; the first of that type.
    images, steps : of a batch, and batches of an epoch.
    of_steps : of a whole run of the sweep's, which decides how a step is taken.
    imports, import_path : modules that register plug-ins, for another process.
    """

    backbone: Backbone
    device: str
    images: int
    steps: int
    of_steps: int
    imports: tuple[str, ...] = ()
    import_path: str | None = None

    def __call__(self, ready: Callable[[], None] = lambda: None) -> float:
        """Seconds of an epoch, after one to warm up; ``ready`` is called between the two."""
        register.load(self.imports, self.import_path)
        backbone, device = self.backbone, torch.device(self.device)
        assert backbone.recipe is not None
        side, classes = backbone.resolution, backbone.head
        model = build_backbone(backbone.architecture, classes=classes, resolution=side, width=backbone.width)
        layers = layers_of(backbone.architecture, resolution=side, width=backbone.width)
        short = {"epochs": _EPOCHS, "warmup_epochs": 0, "batch_size": self.images, "checkpoint_on": "last"}
        train, few = self._images(side, classes)
        marks: list[float] = []

        def told(history: Sequence[Mapping[str, float]], total: int) -> None:
            """An epoch has ended, its loss is on the host."""
            if len(history) < total:
                ready()
            marks.append(time.monotonic())

        pretrain(
            model,
            train,
            heldout=few,
            test=few,
            recipe=backbone.recipe.model_copy(update=short | {"data_parallel": 1}),
            key="speed",
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            device=device,
            checkpoints=Checkpoints(load=lambda: None, save=lambda data: None),
            on_epoch=told,
            layout=memory_layout(layers, device),
            of_steps=self.of_steps,
        )
        return marks[-1] - marks[-2]

    def _images(self, side: int, classes: int) -> tuple[PlainImages, Labelled]:
        """Those of an epoch, and a single one to score."""
        rng, distinct, count = np.random.default_rng(0), _DISTINCT * self.images, self.steps * self.images
        pixels_NHWC = rng.integers(0, 256, (distinct, side, side, 3), dtype=np.uint8)
        at_N = np.arange(count) % distinct
        return PlainImages(pixels_NHWC, at_N % classes, at_N), Labelled(pixels_NHWC[:1], at_N[:1] % classes)


def training_rate(drill: Drill) -> float:
    """Images a second of one process."""
    return drill.images * drill.steps / drill()


def rates_at_once(drill: Drill, numbers: Sequence[int]) -> dict[int, float]:
    """Images a second of so many processes together, until one number more brings nothing or has no room.

    Parameters
    ----------
    numbers : ascending.
    """
    found: dict[int, float] = {}
    for number in numbers:
        try:
            rate = number * drill.images * drill.steps / at_once(drill, number)
        except torch.OutOfMemoryError:
            break
        slower = rate < max(found.values(), default=0.0)
        found[number] = rate
        if slower:
            break
    return found
