"""One plug-in of each kind: a model, a dataset, an augmentation, a representation statistic, a probe.

``plugin.yaml`` beside this file names the module under ``imports``; README.md explains it line by line.

Shapes: N images, M images to score, D embedding width, C classes, H and W pixels, R resolution.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from sweep.plugins import (
    DatasetOptions,
    Probe,
    Samples,
    register_augmentation,
    register_dataset,
    register_model,
    register_probe,
    register_statistic,
)


class TinyMLP(nn.Module):
    """Dense layers on raw pixels, as the smallest networks of the tunnel effect's first study."""

    def __init__(self, pixels: int, width: int, depth: int, classes: int) -> None:
        super().__init__()
        sizes = [3 * pixels, *[width] * depth]
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.head = nn.Linear(width, classes)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Logits (N, C)."""
        x_ND = images_NCHW.flatten(1)
        for layer in self.hidden:
            x_ND = torch.relu(layer(x_ND))
        return self.head(x_ND)


@register_model("tiny_mlp", family="MLP", min_resolution=8, scalable=True, layers=r"hidden\.\d+")
def tiny_mlp(*, classes: int, resolution: int, width: float) -> nn.Module:
    """Four hidden layers of 64 × ``width`` units, each of them probed."""
    return TinyMLP(resolution**2, round(64 * width), depth=4, classes=classes)


@register_dataset("rings", classes=4, train=240, test=80, title="concentric rings, told apart by their spacing")
def rings(part: str, options: DatasetOptions) -> Samples:
    """Rings around a point near the middle, in a random colour; each class has its own spacing."""
    assert options.classes is not None
    per_class = options.train_per_class if part == "train" else options.test_per_class
    size = options.size or 32
    labels = [label for label in range(options.classes) for _ in range(per_class or 0)]

    def read(index: int) -> np.ndarray:
        random = np.random.default_rng([options.seed, part == "test", index])
        centre_2, tint_3 = random.uniform(0.4, 0.6, 2), random.uniform(100, 255, 3)
        y_HW, x_HW = np.mgrid[:size, :size] / size
        radius_HW = np.hypot(x_HW - centre_2[0], y_HW - centre_2[1])
        wave_HW1 = (0.5 + 0.5 * np.cos(2 * np.pi * (1 + labels[index]) * radius_HW))[..., None]
        return (wave_HW1 * tint_3).astype(np.uint8)

    return Samples(labels, read)


@register_augmentation("flip_and_jitter", source="evaluation")
def flip_and_jitter(resolution: int) -> Callable[[Tensor], Tensor]:
    """Mirror the image in half of the cases, and change its brightness and contrast."""
    del resolution  # the evaluation image has it already
    return v2.Compose([v2.RandomHorizontalFlip(), v2.ColorJitter(brightness=0.4, contrast=0.4)])


@register_statistic("participation_ratio")
def participation_ratio(emb_ND: Tensor, labels_N: Tensor, *, classes: int) -> float | None:
    """Number of directions that carry the variance: (Σλ)² / Σλ² of the covariance's eigenvalues, in [1, D]."""
    del labels_N, classes
    centred_ND = emb_ND.double() - emb_ND.double().mean(0)
    variances = torch.linalg.svdvals(centred_ND).square()
    total = variances.sum()
    return float(total**2 / variances.square().sum()) if total > 0 else None


@register_probe("nearest_mean")
def nearest_mean(
    train: Sequence[Tensor], labels_N: Tensor, *, classes: int, recipe: Probe, seed: int
) -> list[Callable[[Tensor], Tensor]]:
    """The class whose mean embedding is nearest; the score is minus the squared distance per dimension."""
    del recipe, seed  # nothing to set, nothing random

    def fitted(emb_ND: Tensor) -> Callable[[Tensor], Tensor]:
        means_CD = torch.stack([emb_ND[labels_N == label].mean(0) for label in range(classes)])
        return lambda emb_MD: -torch.cdist(emb_MD, means_CD).square() / emb_ND.shape[1]

    return [fitted(emb_ND) for emb_ND in train]
