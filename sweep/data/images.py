"""Images decoded once, kept as uint8 on disk, memory-mapped by every process that needs them.

Legend: N images kept, R resolution in pixels, H height, W width, C = 3 colour channels.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from sweep.data.dataset import Dataset
from sweep.data.decoded import ALONE, Decoding, Entry, decoded, entry_path, part_of
from sweep.data.options import Part
from sweep.data.pixels import training_pixels, training_side
from sweep.data.view import View

_INTERPOLATIONS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_MAX_PIXELS = 178_956_970  # of a resized image: as many as Pillow agrees to open


@dataclass(frozen=True, eq=False)
class EvalImages:
    """Images as backbones are evaluated on them: resized, centre-cropped, square.

    Attributes
    ----------
    images_NHWC
        uint8 memory map, shape (N, R, R, 3), in the order of the selection.
    labels_N
        int64 labels.
    names
        N sample ids.
    kept_N
        Position of each image in the selection that was asked for (broken images are left out).
    skipped
        ``"sample id: reason"`` of each broken image.
    """

    images_NHWC: np.ndarray
    labels_N: np.ndarray
    names: tuple[str, ...]
    kept_N: np.ndarray
    skipped: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels_N)


class Mapped(NamedTuple):
    """A memory map as it passes to another process."""

    place: str
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class TrainImages:
    """Images as random crops are cut from them: aspect kept, sizes differ.

    Attributes
    ----------
    flat
        uint8 memory map of all pixels, image after image, each as (H, W, 3).
    offsets_N, sizes_N2
        Where each image starts in ``flat``, and its (height, width).
    labels_N, names, kept_N, skipped
        As in :class:`EvalImages`.
    """

    flat: np.ndarray
    offsets_N: np.ndarray
    sizes_N2: np.ndarray
    labels_N: np.ndarray
    names: tuple[str, ...]
    kept_N: np.ndarray
    skipped: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels_N)

    def __getstate__(self) -> dict[str, Any]:
        """As another process gets it: the pixels by the place of their map, not by value."""
        state = {field.name: getattr(self, field.name) for field in fields(self)}
        flat = state["flat"]
        place = flat.filename if isinstance(flat, np.memmap) and flat.offset == 0 else None
        return state | {"flat": flat if place is None else Mapped(str(place), flat.shape)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        flat = state["flat"]
        pixels = np.memmap(flat.place, np.uint8, "r", shape=flat.shape) if isinstance(flat, Mapped) else flat
        for name, value in {**state, "flat": pixels}.items():
            object.__setattr__(self, name, value)

    def __getitem__(self, index: int) -> torch.Tensor:
        """Image ``index`` as uint8, shape (3, H, W); a copy."""
        height, width = self.sizes_N2[index]
        start = self.offsets_N[index]
        pixels = np.array(self.flat[start : start + height * width * 3]).reshape(height, width, 3)
        return torch.from_numpy(pixels).permute(2, 0, 1)


def resize_shorter_side(image: Image.Image, side: int, interpolation: str = "bicubic") -> Image.Image:
    """Antialiased, aspect kept (the longer side rounded down, as torchvision does)."""
    shorter = min(image.size)
    width, height = (side if length == shorter else int(side * length / shorter) for length in image.size)
    return _resized(image, width, height, interpolation)


def _resized(image: Image.Image, width: int, height: int, interpolation: str) -> Image.Image:
    if image.size == (width, height):
        return image
    if width * height > _MAX_PIXELS:
        raise ValueError(f"{image.width} × {image.height} px would be resized to {width:,} × {height:,}")
    return image.resize((width, height), _INTERPOLATIONS[interpolation])


def evaluation_view(image: Image.Image, view: View) -> Image.Image:
    """An image as a view shows it: resized, then the centred square, rounded as torchvision and timm round."""
    if view.mode == "squash":
        resized = _resized(image, view.side, view.side, view.interpolation)
    elif view.mode == "border":
        ratio = max(image.size) / view.side
        width, height = (max(1, round(length / ratio)) for length in image.size)
        resized = _resized(image, width, height, view.interpolation)
    else:
        resized = resize_shorter_side(image, view.side, view.interpolation)
    return _centre(resized, view.resolution, view.fill)


def _centre(image: Image.Image, side: int, fill: tuple[int, int, int]) -> Image.Image:
    """The centred square; an image that is smaller lies on a colour first."""
    width, height = image.size
    if min(width, height) < side:
        padded = Image.new("RGB", (max(width, side), max(height, side)), fill)
        padded.paste(image, (max(side - width, 0) // 2, max(side - height, 0) // 2))
        image = padded
    left, top = (round((length - side) / 2) for length in image.size)
    return image.crop((left, top, left + side, top + side))


def training_view(image: Image.Image, resolution: int) -> Image.Image:
    """Shorter side to at most :func:`sweep.data.pixels.training_side`; never enlarged."""
    return resize_shorter_side(image, min(min(image.size), training_side(resolution)))


def evaluation_images(
    dataset: Dataset, split: Part, indices: np.ndarray, *, view: View, cache_dir: Path, how: Decoding = ALONE
) -> EvalImages:
    """Evaluation images of a selection, decoded by the first process that asks for them.

    Parameters
    ----------
    dataset, split, indices
        The selection, without repeats, in the order wanted.
    view
        How images are resized and cropped.
    cache_dir
        Local directory shared by the processes of a machine.
    how
        What the images do not depend on: threads, room, who is told.

    Raises
    ------
    UserError
        More than 1 % of the selection is broken, or a class has no readable image left.
    """
    side = view.resolution
    shown = (_evaluation_name(view), lambda image, _resolution: evaluation_view(image, view))
    known: dict[str, Any] = {"cache_dir": cache_dir, "how": how, "bytes_each": 3 * side**2}
    entry = decoded(dataset, split, indices, view=shown, resolution=side, **known)
    images_NHWC = entry.pixels.reshape(len(entry.kept_N), side, side, 3)
    return EvalImages(images_NHWC, *_described(dataset, split, indices, entry))


def training_images(
    dataset: Dataset, split: Part, indices: np.ndarray, *, resolution: int, cache_dir: Path, how: Decoding = ALONE
) -> TrainImages:
    """Training images of a selection: shorter side min(original, 4 × resolution, max(256, 256/224 × resolution)).

    Parameters and errors are those of :func:`evaluation_images`; the view is that of a resolution.
    """
    view = (_training_name(resolution), training_view)
    entry = decoded(dataset, split, indices, view=view, resolution=resolution, cache_dir=cache_dir, how=how)
    bytes_N = entry.sizes_N2.prod(axis=1) * 3
    described = _described(dataset, split, indices, entry)
    return TrainImages(entry.pixels, np.cumsum(bytes_N) - bytes_N, entry.sizes_N2, *described)


def _evaluation_name(view: View) -> str:
    return f"evaluation {view.identity}".rstrip()


def _training_name(resolution: int) -> str:
    version = training_pixels(resolution)
    return "training" if version == 1 else f"training {version}"


def is_decoded(dataset: Dataset, split: Part, indices: np.ndarray, *, view: View | int, cache_dir: Path) -> bool:
    """Whether the cache has a selection, as a view shows it or, by a resolution, as random crops are cut from it."""
    if isinstance(view, View):
        name, resolution = _evaluation_name(view), view.resolution
    else:
        name, resolution = _training_name(view), view
    return entry_path(dataset, split, indices, view=name, resolution=resolution, cache_dir=cache_dir).is_dir()


def _described(
    dataset: Dataset, split: Part, indices: np.ndarray, entry: Entry
) -> tuple[np.ndarray, tuple[str, ...], np.ndarray, tuple[str, ...]]:
    """Labels, names, kept_N and skipped of an entry's images."""
    samples = part_of(dataset, split)
    chosen = np.asarray(indices)[entry.kept_N]
    names = tuple(samples.names[index] for index in chosen.tolist())
    return samples.labels[chosen], names, entry.kept_N, entry.skipped
