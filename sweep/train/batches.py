"""Training batches from the decode-once image caches, plain or augmented.

Shapes: N images, B batch, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sweep.base.seeds import derive_seed
from sweep.data import TrainImages


class PlainImages:
    """Evaluation images as they are: resize and centre crop, the paper's "augmentation off".

    Parameters
    ----------
    images_NHWC : uint8, may be memory-mapped.
    labels_N : class ids of the chosen images.
    positions_N : which of ``images_NHWC`` they are.
    """

    def __init__(self, images_NHWC: np.ndarray, labels_N: np.ndarray, positions_N: np.ndarray) -> None:
        self.images_NHWC, self.labels_N, self.positions_N = images_NHWC, labels_N, positions_N

    def epoch(self, batches: Sequence[np.ndarray], *, seed: int) -> Iterator[Tensor]:
        """uint8 (B, H, W, 3) images of each batch; nothing is random here."""
        del seed
        for indices_B in batches:
            yield torch.from_numpy(self.images_NHWC[self.positions_N[indices_B]])


class AugmentedImages:
    """Images cut anew in every epoch by an augmentation policy.

    Parameters
    ----------
    images : ragged training images.
    labels_N, positions_N : as for :class:`PlainImages`.
    transform : uint8 (3, h, w) to uint8 (3, R, R); randomness from torch's default CPU generator only.
    workers : processes that augment ahead; the images do not depend on their number.
    """

    def __init__(
        self,
        images: TrainImages,
        labels_N: np.ndarray,
        positions_N: np.ndarray,
        *,
        transform: Callable[[Tensor], Tensor],
        workers: int = 0,
    ) -> None:
        self.images, self.labels_N, self.positions_N = images, labels_N, positions_N
        self.transform, self.workers = transform, workers

    def epoch(self, batches: Sequence[np.ndarray], *, seed: int) -> Iterator[Tensor]:
        """uint8 (B, R, R, 3) images of each batch, each image's randomness from the seed and its position."""
        one_epoch = _Epoch(self.images, self.positions_N, self.transform, seed)
        loader = DataLoader(
            one_epoch,
            batch_sampler=[indices_B.tolist() for indices_B in batches],
            num_workers=self.workers,
            pin_memory=torch.cuda.is_available(),
        )
        for images_BCHW in loader:
            yield images_BCHW.permute(0, 2, 3, 1)


class _Epoch(Dataset[Tensor]):
    """The images of one epoch; torch's generator is set per image, and put back."""

    def __init__(
        self, images: TrainImages, positions_N: np.ndarray, transform: Callable[[Tensor], Tensor], seed: int
    ) -> None:
        self.images, self.positions_N, self.transform, self.seed = images, positions_N, transform, seed

    def __getitems__(self, indices: list[int]) -> list[Tensor]:
        """A batch at a time, which is how torch's loader asks where it can."""
        before = torch.get_rng_state()
        try:
            return [self._augmented(int(self.positions_N[index])) for index in indices]
        finally:
            torch.set_rng_state(before)

    def _augmented(self, position: int) -> Tensor:
        torch.default_generator.manual_seed(derive_seed(self.seed, position))
        return self.transform(self.images[position])
