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

        self._order = _Order()
        self._loader: DataLoader[Tensor] | None = None

    def epoch(self, batches: Sequence[np.ndarray], *, seed: int) -> Iterator[Tensor]:
        """uint8 (B, R, R, 3) images of each batch, each image's randomness from the seed and its position."""
        # torch's loader draws a number for itself when an epoch begins; persistent processes would draw only once, and
        # the noise of drop path, which comes after it, would depend on how many there are
        torch.empty((), dtype=torch.int64).random_()
        self._order.batches, self._order.seed = [self.positions_N[indices_B] for indices_B in batches], seed
        for images_BCHW in self._workers():
            yield images_BCHW.permute(0, 2, 3, 1)

    def _workers(self) -> DataLoader[Tensor]:
        """The loader of all epochs: its processes start once, and are handed seeds and positions."""
        if self._loader is None:
            self._loader = DataLoader(
                _Augmented(self.images, self.transform),
                batch_sampler=self._order,
                num_workers=self.workers,
                persistent_workers=self.workers > 0,
                pin_memory=torch.cuda.is_available(),
                generator=torch.Generator(),
            )
        return self._loader


class _Order:
    """The batches of the epoch that comes next, as a loader asks for them."""

    def __init__(self) -> None:
        self.batches: list[np.ndarray] = []
        self.seed = 0

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return ([(self.seed, position) for position in positions_B.tolist()] for positions_B in self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class _Augmented(Dataset[Tensor]):
    """Images by the seed of an epoch and their position; torch's generator is set per image, and put back."""

    def __init__(self, images: TrainImages, transform: Callable[[Tensor], Tensor]) -> None:
        self.images, self.transform = images, transform

    def __getitems__(self, items: list[tuple[int, int]]) -> list[Tensor]:
        """A batch at a time, which is how torch's loader asks where it can."""
        before = torch.get_rng_state()
        try:
            return [self._augmented(seed, position) for seed, position in items]
        finally:
            torch.set_rng_state(before)

    def _augmented(self, seed: int, position: int) -> Tensor:
        torch.default_generator.manual_seed(derive_seed(seed, position))
        return self.transform(self.images[position])
