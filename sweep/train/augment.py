"""Named augmentation policies: what a training image goes through before a backbone sees it.

Legend: C = 3 channels, H, W pixels of the cached image, R resolution.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from sweep import register
from sweep.study import Backbone

if TYPE_CHECKING:  # decoding asks here which images it is to decode, and waits for no torch
    from torch import Tensor

Transform: TypeAlias = "Callable[[Tensor], Tensor]"  # uint8 (C, H, W) → uint8 (C, R, R)


@dataclass(frozen=True)
class Augmentation:
    """One policy.

    Attributes
    ----------
    source
        The image cache it is cut from: ``"evaluation"`` (square, R × R) or ``"training"`` (larger, aspect kept).
    operations
        Of ours that cut crops: whether RandAugment follows; see :class:`sweep.train.batches.CroppedImages`.
    build
        Of a plug-in: resolution → transform of one image. Its randomness comes from torch's default CPU generator
        only, so that the caller decides it by seeding.
    """

    source: Literal["evaluation", "training"]
    operations: bool = False
    build: Callable[[int], Transform] | None = None


def policy(name: str) -> Augmentation:
    """The policy of this name, ours or a plug-in's."""
    if plugin := register.find_plugin("augmentation", name):
        return Augmentation(plugin.facts["source"], build=plugin.make)
    found: Augmentation = register.find_ours("augmentation", name)
    return found


def cuts_crops(backbone: Backbone) -> bool:
    """Whether it is trained on crops of larger images than those it is evaluated on."""
    return policy(str(backbone.augmentation)).source == "training"


# The evaluation image as it is: resize and centre crop. [H24] A.3.
OFF = Augmentation("evaluation")
# Random resized crop and horizontal flip. [H24] A.3.
ON = Augmentation("training")
# ``ON``, then RandAugment with torchvision's defaults (2 operations, magnitude 9 of 31; Cubuk et al. 2020).
STRONG = Augmentation("training", operations=True)
