"""Images decoded once, kept as uint8 on disk, memory-mapped by every process that needs them.

Legend: N images kept, R resolution in pixels, H height, W width, C = 3 colour channels.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sweep.data.dataset import Dataset
from sweep.data.decoded import ALONE, Decoding, Entry, Wanted, decode_together, decoded
from sweep.data.options import Part
from sweep.data.pixels import training_pixels, training_side
from sweep.data.shown import evaluation_view, training_view
from sweep.data.view import View

if TYPE_CHECKING:  # whoever decodes waits for no torch
    import torch

_ASPECT = 1.5  # longer side over shorter, of most photographs at most


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
        import torch

        return torch.from_numpy(pixels).permute(2, 0, 1)


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
    wanted = _wanted(dataset, split, indices, view)
    entry = decoded(wanted, cache_dir=cache_dir, how=how)
    images_NHWC = entry.pixels.reshape(len(entry.kept_N), view.resolution, view.resolution, 3)
    return EvalImages(images_NHWC, *_described(wanted, entry))


def training_images(
    dataset: Dataset, split: Part, indices: np.ndarray, *, resolution: int, cache_dir: Path, how: Decoding = ALONE
) -> TrainImages:
    """Training images of a selection: shorter side min(original, 4 × resolution, max(256, 256/224 × resolution)).

    Parameters and errors are those of :func:`evaluation_images`; the view is that of a resolution.
    """
    wanted = _wanted(dataset, split, indices, resolution)
    entry = decoded(wanted, cache_dir=cache_dir, how=how)
    bytes_N = entry.sizes_N2.prod(axis=1) * 3
    return TrainImages(entry.pixels, np.cumsum(bytes_N) - bytes_N, entry.sizes_N2, *_described(wanted, entry))


def decode_views(
    dataset: Dataset, split: Part, indices: np.ndarray, *, views: Iterable[View | int], cache_dir: Path, how: Decoding
) -> None:
    """Have images of a selection under several views, each image decoded once.

    Parameters and errors are those of :func:`evaluation_images`; a view that is a number is that of
    :func:`training_images` at that resolution.
    """
    decode_together([_wanted(dataset, split, indices, view) for view in views], cache_dir=cache_dir, how=how)


def is_decoded(dataset: Dataset, split: Part, indices: np.ndarray, *, view: View | int, cache_dir: Path) -> bool:
    """Whether the cache has a selection, as a view shows it or, by a resolution, as random crops are cut from it."""
    return _wanted(dataset, split, indices, view).path(cache_dir).is_dir()


def _wanted(dataset: Dataset, split: Part, indices: np.ndarray, view: View | int) -> Wanted:
    """A selection under an evaluation view or, by a resolution, as random crops are cut from it."""
    indices = np.asarray(indices, dtype=np.int64)
    if isinstance(view, View):
        shown = (f"evaluation {view.identity}".rstrip(), functools.partial(evaluation_view, view=view))
        return Wanted(dataset, split, indices, shown, view.resolution, 3 * view.resolution**2)
    version = training_pixels(view)
    name = "training" if version == 1 else f"training {version}"
    about = round(_ASPECT * 3 * training_side(view) ** 2)
    shown = (name, functools.partial(training_view, resolution=view))
    return Wanted(dataset, split, indices, shown, view, about_each=about)


def _described(wanted: Wanted, entry: Entry) -> tuple[np.ndarray, tuple[str, ...], np.ndarray, tuple[str, ...]]:
    """Labels, names, kept_N and skipped of an entry's images."""
    samples, chosen = wanted.samples, wanted.indices[entry.kept_N]
    names = tuple(samples.names[index] for index in chosen.tolist())
    return samples.labels[chosen], names, entry.kept_N, entry.skipped
