"""How many epochs probes are trained for: all as many, or each until its held-out loss no longer falls.

Shapes: R recipes, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sweep.config import AUTO, PATIENCE, Probe


class Lengths:
    """Of the probes of some layers. The selection fit finds them, where they are open; the full fit takes them over.

    Attributes
    ----------
    most : epochs after which every probe ends.
    auto : whether a probe ends before, when its held-out loss has not been lower for ``PATIENCE`` epochs.
    ends_RL : epochs of each; 0 where that is open.
    """

    def __init__(self, recipes: Sequence[Probe], layers: int) -> None:
        self.most, self.auto, self.layers = recipes[0].most_epochs, recipes[0].epochs == AUTO, layers
        shape = (len(recipes), layers)
        self.ends_RL = np.full(shape, 0 if self.auto else self.most)
        self._lowest_RL, self._since_RL = np.full(shape, np.inf), np.zeros(shape, int)

    def tell(self, epoch: int, losses: Sequence[Tensor]) -> None:
        """Held-out losses after an epoch, (L,) of each recipe; one that is not a number is no lower."""
        loss_RL = torch.stack(list(losses)).cpu().numpy()
        lower_RL = loss_RL < self._lowest_RL
        self._lowest_RL = np.where(lower_RL, loss_RL, self._lowest_RL)
        self._since_RL = np.where(lower_RL, 0, self._since_RL + 1)
        over_RL = (self._since_RL >= PATIENCE) | (epoch == self.most)
        self.ends_RL[(self.ends_RL == 0) & over_RL] = epoch

    def ending(self, epoch: int) -> list[tuple[int, int]]:
        """Recipe and layer of the probes that end with an epoch."""
        return [(int(recipe), int(layer)) for recipe, layer in np.argwhere(self.ends_RL == epoch)]

    def going(self, epoch: int) -> list[int]:
        """Layers of which a probe goes on after an epoch."""
        return np.flatnonzero(((self.ends_RL == 0) | (self.ends_RL > epoch)).any(0)).tolist()
