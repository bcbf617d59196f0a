"""Mixup and cutmix: a training batch mixed with itself, in pixels and in what it is told apart by.

Zhang et al. 2018 (arXiv 1710.09412), Yun et al. 2019 (arXiv 1905.04899): the share λ is drawn from Beta(α, α) once a
batch; of both policies each batch takes one, by default at even odds. Mixed are standardised pixels.
Legend: B images, C = 3 channels, H and W pixels, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sweep.base.seeds import derive_seed
from sweep.config import Recipe
from sweep.models import resident

_EVEN = Recipe().mixup_share  # odds of keys that are older than the choice, which draws as it did for them


@dataclass(frozen=True)
class Mixed:
    """How one batch is mixed: with itself in another order.

    Attributes
    ----------
    order_B : the partner of each image.
    share : λ, of an image itself.
    box : top, bottom, left, right of what comes from the partner, px; None: all pixels are averaged.
    """

    order_B: Tensor
    share: float
    box: tuple[int, int, int, int] | None = None

    def images(self, images_BCHW: Tensor) -> Tensor:
        """The batch as the network sees it."""
        if self.box is None:
            return images_BCHW.lerp(images_BCHW[self.order_B], 1 - self.share)
        top, bottom, left, right = self.box
        mixed_BCHW = images_BCHW.clone(memory_format=torch.preserve_format)
        mixed_BCHW[..., top:bottom, left:right] = images_BCHW[self.order_B, :, top:bottom, left:right]
        return mixed_BCHW

    def loss(self, logits_BK: Tensor, target_B: Tensor, *, smoothing: float) -> Tensor:
        """Cross-entropy with both targets, by their shares."""
        own, partner = (
            F.cross_entropy(logits_BK, target, label_smoothing=smoothing)
            for target in (target_B, target_B[self.order_B])
        )
        return self.share * own + (1 - self.share) * partner


def mixed(
    recipe: Recipe, images: int, side: int, *, key: str, epoch: int, batch: int, device: torch.device
) -> Mixed | None:
    """How a batch of so many images is mixed by a recipe; None: not at all. Random by key, epoch and batch alone."""
    kinds = [kind for kind in ("mixup", "cutmix") if getattr(recipe, kind) > 0]
    if not kinds:
        return None
    rng = np.random.default_rng(derive_seed(key, "mix", epoch, batch))
    if len(kinds) > 1 and recipe.mixup_share != _EVEN:
        kind = kinds[int(rng.random() >= recipe.mixup_share)]
    else:
        kind = kinds[int(rng.integers(len(kinds)))]
    alpha = getattr(recipe, kind)
    share, order_B = float(rng.beta(alpha, alpha)), resident(rng.permutation(images), device)
    if kind == "mixup":
        return Mixed(order_B, share)
    length = round(side * np.sqrt(1 - share))
    top, left = (int(centre) - length // 2 for centre in rng.integers(0, side, 2))
    box = tuple(int(np.clip(at, 0, side)) for at in (top, top + length, left, left + length))
    return Mixed(order_B, 1 - (box[1] - box[0]) * (box[3] - box[2]) / side**2, (box[0], box[1], box[2], box[3]))
