"""Training batches from the decode-once image caches, plain or augmented, on the device that trains.

Shapes: N images, B batch, H and W pixels, R resolution.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sweep.base.seeds import derive_seed
from sweep.data import TrainImages
from sweep.models import Feeder, read_ahead, resident, taken
from sweep.train.crops import CROP_DRAWS, Windows, cut, packed, random_crops, windows
from sweep.train.draws import draws
from sweep.train.operations import OPERATION_DRAWS, operate
from sweep.train.resample import Resampler, longest_window

_SHARE = 1 / 3  # of a GPU's free memory, or a task's part of all of it, that images may take; the network needs more
_COPIED = 2**26  # bytes at a time
_TOGETHER = 2**21  # pixels that a GPU makes at a time: of small batches, several, as launching takes longer than making
_TOGETHER_ON_HOST = 2**19  # on a CPU, whose caches they are to stay in


class PlainImages:
    """Evaluation images as they are: resize and centre crop, the paper's "augmentation off".

    Parameters
    ----------
    images_NHWC : uint8, may be memory-mapped.
    labels_N : class ids of the chosen images.
    positions_N : which of ``images_NHWC`` they are.
    sharing : how many tasks share a GPU's memory.
    """

    def __init__(
        self, images_NHWC: np.ndarray, labels_N: np.ndarray, positions_N: np.ndarray, *, sharing: int = 1
    ) -> None:
        self.images_NHWC, self.labels_N, self.positions_N = images_NHWC, labels_N, positions_N
        self._there = _Resident(images_NHWC.reshape(-1), sharing)

    def epoch(self, batches: Sequence[np.ndarray], *, seed: int, feeder: Feeder) -> Iterator[Tensor]:
        """uint8 (B, H, W, 3) images of each batch on the feeder's device; nothing is random here."""
        del seed
        positions = [self.positions_N[indices_B] for indices_B in batches]
        flat = self._there.on(feeder.device)
        if flat is None:
            pinned = feeder.device.type == "cuda"
            yield from feeder.on_device(taken(self.images_NHWC, part_B, pinned=pinned) for part_B in positions)
            return
        images_NHWC = flat.view(self.images_NHWC.shape)
        for positions_B in resident(np.concatenate(positions), feeder.device).split(list(map(len, positions))):
            yield images_NHWC[positions_B]


class CroppedImages:
    """Random crops of our own policies, cut anew in every epoch, a batch at a time.

    An image's randomness is a function of the epoch's seed and its position. Pixels depend neither on the batch nor on
    the device: a GPU holds the images where a third of its free memory suffices, else it is sent the windows.

    Parameters
    ----------
    images : ragged training images.
    labels_N, positions_N, sharing : as for :class:`PlainImages`.
    side : R, px.
    operations : whether RandAugment follows.
    ahead : whether, without a GPU, a thread cuts the next batches while this one is used.
    """

    def __init__(
        self,
        images: TrainImages,
        labels_N: np.ndarray,
        positions_N: np.ndarray,
        *,
        side: int,
        operations: bool = False,
        ahead: bool = False,
        sharing: int = 1,
    ) -> None:
        self.images, self.labels_N, self.positions_N = images, labels_N, positions_N
        self.side, self.operations, self.ahead = side, operations, ahead
        self._flat, self._there = _shared(images.flat), _Resident(images.flat, sharing)
        self._resampler: Resampler | None = None

    def epoch(self, batches: Sequence[np.ndarray], *, seed: int, feeder: Feeder) -> Iterator[Tensor]:
        """uint8 (B, R, R, 3) images of each batch on the feeder's device."""
        on_host = feeder.device.type == "cpu"
        groups = grouped(batches, max((_TOGETHER_ON_HOST if on_host else _TOGETHER) // self.side**2, 1))
        drawn = (self._drawn(self.positions_N[np.concatenate(group)], seed) for group in groups)
        if on_host:
            made = read_ahead(self._on_host(drawn), lambda images: images) if self.ahead else self._on_host(drawn)
        elif (flat := self._there.on(feeder.device)) is not None:
            made = self.on_device(((flat, at, uniform_BD) for at, uniform_BD in drawn), feeder.device)
        else:
            made = self.streamed(drawn, feeder)
        for images, group in zip(made, groups, strict=True):
            yield from images.split([len(indices_B) for indices_B in group])

    def on_device(
        self, batches: Iterator[tuple[Tensor, Windows, np.ndarray]], device: torch.device
    ) -> Iterator[Tensor]:
        """Images of windows in tensors that are on the device."""
        if self._resampler is None:
            self._resampler = Resampler(longest_window(self.images.sizes_N2), self.side, device)
        for flat, at, uniform_BD in batches:
            yield self._operated(self._resampler.cut(flat, at), uniform_BD)

    def streamed(self, drawn: Iterator[tuple[Windows, np.ndarray]], feeder: Feeder) -> Iterator[Tensor]:
        """Images whose windows alone are brought to the device."""
        packs = deque[tuple[Windows, np.ndarray]]()

        def sent() -> Iterator[Tensor]:
            """The pixels of each batch; where they lie is told to whoever gets them."""
            for at, uniform_BD in drawn:
                pixels, told = packed(self.images.flat, at)
                packs.append((told, uniform_BD))
                yield pixels

        arrived = ((pixels, *packs.popleft()) for pixels in feeder.on_device(sent()))
        yield from self.on_device(arrived, feeder.device)

    def _drawn(self, positions_B: np.ndarray, seed: int) -> tuple[Windows, np.ndarray]:
        """Windows of a batch, and all its random numbers."""
        uniform_BD = draws(seed, positions_B, CROP_DRAWS + OPERATION_DRAWS)
        sizes_B2 = self.images.sizes_N2[positions_B]
        crops = random_crops(sizes_B2, uniform_BD[:, :CROP_DRAWS])
        return windows(crops, self.images.offsets_N[positions_B], sizes_B2), uniform_BD[:, CROP_DRAWS:]

    def _on_host(self, drawn: Iterator[tuple[Windows, np.ndarray]]) -> Iterator[Tensor]:
        each = max(_TOGETHER // self.side**2, 1)
        for at, uniform_BD in drawn:
            images_BRRC = cut(self._flat, at, self.side)
            for start in range(0, len(images_BRRC), each):
                self._operated(images_BRRC[start : start + each], uniform_BD[start : start + each])
            yield images_BRRC

    def _operated(self, images_BRRC: Tensor, uniform_BD: np.ndarray) -> Tensor:
        return operate(images_BRRC, uniform_BD) if self.operations else images_BRRC


def grouped(batches: Sequence[np.ndarray], most: int) -> list[Sequence[np.ndarray]]:
    """Neighbouring batches in groups of so many images at most, and of one batch at least."""
    together = max(most // max(map(len, batches), default=1), 1)
    return [batches[start : start + together] for start in range(0, len(batches), together)]


def room_of_images(free: int, total: int, sharing: int) -> int:
    """Bytes of a GPU that a task's images may take: the first of several tasks finds all of it free, and it is not."""
    return int(_SHARE * min(free, total / sharing))


class _Resident:
    """Pixels on a GPU, brought there once if there is room."""

    def __init__(self, flat: np.ndarray, sharing: int) -> None:
        self._flat, self._sharing, self._asked = flat, sharing, False
        self._there: Tensor | None = None

    def on(self, device: torch.device) -> Tensor | None:
        """The flat uint8 pixels on this device; None where they stay on the host."""
        if device.type == "cuda" and not self._asked:
            self._asked = True
            if self._flat.nbytes <= room_of_images(*torch.cuda.mem_get_info(device), self._sharing):
                self._there = torch.empty(self._flat.size, dtype=torch.uint8, device=device)
                for start in range(0, self._flat.size, _COPIED):
                    part = np.array(self._flat[start : start + _COPIED])
                    self._there[start : start + len(part)] = torch.from_numpy(part).to(device)
        return self._there


def _shared(flat: np.ndarray) -> Tensor:
    """The same memory as a tensor that is only read, which torch cannot know of a map that may not be written."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(np.asarray(flat))


class AugmentedImages:
    """Images cut anew in every epoch by a plug-in's transform, one by one.

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

    def epoch(self, batches: Sequence[np.ndarray], *, seed: int, feeder: Feeder) -> Iterator[Tensor]:
        """uint8 (B, R, R, 3) images of each batch, each image's randomness from the seed and its position."""
        yield from feeder.on_device(self._transformed(batches, seed))

    def _transformed(self, batches: Sequence[np.ndarray], seed: int) -> Iterator[Tensor]:
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


def squares(images_NHWC: np.ndarray) -> TrainImages:
    """Evaluation images as what transforms are given; of them, only the pixels matter there."""
    count, height, width = images_NHWC.shape[:3]
    offsets_N, sizes_N2 = np.arange(count) * height * width * 3, np.tile([height, width], (count, 1))
    nothing = np.empty(0, np.int64)
    return TrainImages(images_NHWC.reshape(-1), offsets_N, sizes_N2, nothing, (), nothing, ())


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
