"""Named augmentation policies: what a training image goes through before a backbone sees it.

Legend: C = 3 channels, H, W pixels of the cached image, R resolution.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torchvision.transforms import v2

from sweep import register

Transform = Callable[[Tensor], Tensor]  # uint8 (C, H, W) → uint8 (C, R, R)


@dataclass(frozen=True)
class Augmentation:
    """One policy.

    Attributes
    ----------
    source
        The image cache it is cut from: ``"evaluation"`` (square, R × R) or ``"training"`` (larger, aspect kept).
    build
        Resolution → transform. Its randomness comes from torch's default CPU generator only, so that the
        caller decides it by seeding.
    """

    source: Literal["evaluation", "training"]
    build: Callable[[int], Transform]


def policy(name: str) -> Augmentation:
    """The policy of this name, ours or a plug-in's."""
    if plugin := register.find_plugin("augmentation", name):
        return Augmentation(plugin.facts["source"], plugin.make)
    return register.find_ours("augmentation", name)


def _off(resolution: int) -> Transform:
    """The evaluation image as it is: resize and centre crop. [H24] A.3."""

    def unchanged(image_CHW: Tensor) -> Tensor:
        return image_CHW

    return unchanged


def _crop_and_flip(resolution: int) -> list[torch.nn.Module]:
    # Scale and ratio are torchvision's defaults (0.08 to 1, 3/4 to 4/3), which timm shares.
    crop = v2.RandomResizedCrop(resolution, interpolation=v2.InterpolationMode.BICUBIC, antialias=True)
    return [crop, v2.RandomHorizontalFlip()]


def _on(resolution: int) -> Transform:
    """Random resized crop and horizontal flip. [H24] A.3."""
    return v2.Compose(_crop_and_flip(resolution))


def _strong(resolution: int) -> Transform:
    """``on``, then RandAugment with torchvision's defaults (2 operations, magnitude 9 of 31; Cubuk et al. 2020)."""
    return v2.Compose([*_crop_and_flip(resolution), v2.RandAugment()])


OFF = Augmentation("evaluation", _off)
ON = Augmentation("training", _on)
STRONG = Augmentation("training", _strong)
