"""The decode-once cache: one directory per selection and view, made by whoever needs it first.

Legend: N images kept of a selection of S.
"""

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from sweep.base.errors import UserError
from sweep.base.spans import span
from sweep.data.dataset import Dataset, Split
from sweep.data.files import aside, locked, publish
from sweep.data.options import Part

_VERSION = 1  # raise by hand when the pixels or the layout of an entry change
_MAX_BROKEN = 0.01  # share of a selection that may be unreadable
_LISTED = 50  # broken images named in an error
_PIXELS, _INDEX = "pixels.u8", "index.npz"

View = tuple[str, Callable[[Image.Image, int], Image.Image]]  # its name, (image, resolution) → image


class Entry(NamedTuple):
    """Decoded images of a selection.

    Attributes
    ----------
    pixels
        uint8 memory map, flat: the kept images in the order of the selection, each as (H, W, 3).
    kept_N
        Position of each image in the selection.
    sizes_N2
        Its (height, width).
    skipped
        ``"sample id: reason"`` of each broken image.
    """

    pixels: np.ndarray
    kept_N: np.ndarray
    sizes_N2: np.ndarray
    skipped: tuple[str, ...]


def part_of(dataset: Dataset, part: Part) -> Split:
    """The train or the test part."""
    return {"train": dataset.train, "test": dataset.test}[part]


def decoded(
    dataset: Dataset, part: Part, indices: np.ndarray, *, view: View, resolution: int, cache_dir: Path
) -> Entry:
    """The entry of a selection, opened if it is there and whole, else made; concurrent callers wait for one maker."""
    indices = np.asarray(indices, dtype=np.int64)
    if len(indices) == 0 or len(np.unique(indices)) < len(indices):
        raise ValueError("a selection of images needs at least one index, each of them once")
    selection = hashlib.sha256(indices.astype("<i8").tobytes()).hexdigest()
    pixels = [dataset.pixels] if dataset.pixels else []
    identity = json.dumps([_VERSION, dataset.fingerprint, part, selection, view[0], resolution, *pixels])
    path = cache_dir / "images" / hashlib.sha256(identity.encode()).hexdigest()[:32]
    entry = _open(path)
    if entry is None:
        about = f"{dataset.name}, {part}, {len(indices):,} images"
        with span("decoding", about), locked(path):
            entry = _open(path)
            if entry is None:
                _make(path, dataset, part, indices, view, resolution)
                entry = _open(path)
    if entry is None:
        raise OSError(f"the image cache at {path} cannot be read back right after it was written")
    return entry


def _open(path: Path) -> Entry | None:
    """An entry, or None if it is missing, cut short or otherwise not what was written."""
    try:
        with open(path / _INDEX, "rb") as file, np.load(file) as index:
            kept_N, sizes_N2, skipped = index["kept"], index["sizes"], index["skipped"]
        length = (path / _PIXELS).stat().st_size
    except (FileNotFoundError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if length != 3 * int(sizes_N2.prod(axis=1).sum()):
        return None
    pixels = np.memmap(path / _PIXELS, dtype=np.uint8, mode="r")
    return Entry(pixels, kept_N, sizes_N2, tuple(skipped.tolist()))


def _make(path: Path, dataset: Dataset, part: Part, indices: np.ndarray, view: View, resolution: int) -> None:
    """Decode, check, publish; the caller holds the lock, so whatever lies here is the remains of a dead process."""
    temporary = aside(path)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        sizes, broken, order = _decode(temporary / _PIXELS, part_of(dataset, part), indices, view, resolution)
        _check(dataset, part, indices, broken)
        kept = sorted(sizes)
        if order != kept:
            _rearrange(temporary / _PIXELS, sizes, order)
        skipped = np.array([broken[position] for position in sorted(broken)], dtype=np.str_)
        sizes_N2 = np.array([sizes[position] for position in kept], dtype=np.int64)
        np.savez(temporary / _INDEX, kept=np.array(kept, dtype=np.int64), sizes=sizes_N2, skipped=skipped)
        shutil.rmtree(path, ignore_errors=True)
        publish(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _decode(
    file: Path, samples: Split, indices: np.ndarray, view: View, resolution: int
) -> tuple[dict[int, tuple[int, int]], dict[int, str], list[int]]:
    """Write the images as storage yields them; sizes and reasons by position in the selection, order written."""
    position_of = {index: position for position, index in enumerate(indices.tolist())}
    sizes: dict[int, tuple[int, int]] = {}
    broken: dict[int, str] = {}
    with open(file, "wb") as pixels:
        for index, image in samples.read_many(position_of):
            position = position_of[index]
            array = _viewed(image, view, resolution)
            if isinstance(array, Exception):
                broken[position] = f"{samples.names[index]}: {str(array) or type(array).__name__}"
                continue
            sizes[position] = array.shape[:2]
            pixels.write(array.tobytes())
    return sizes, broken, list(sizes)


def _viewed(image: Image.Image | Exception, view: View, resolution: int) -> np.ndarray | Exception:
    """Pixels of an image, uint8 (H, W, 3); one that does not fit into memory is one broken image, not the end."""
    if isinstance(image, Exception):
        return image
    try:
        return np.asarray(view[1](image, resolution))
    except (ValueError, MemoryError) as error:
        return error


def _rearrange(file: Path, sizes: dict[int, tuple[int, int]], order: list[int]) -> None:
    """Copy images from the order of storage into the order of the selection."""
    starts, start = {}, 0
    for position in order:
        starts[position] = start
        start += 3 * sizes[position][0] * sizes[position][1]
    source = np.memmap(file, dtype=np.uint8, mode="r")
    sorted_file = file.with_name("sorted")
    with open(sorted_file, "wb") as target:
        for position in sorted(sizes):
            height, width = sizes[position]
            target.write(source[starts[position] : starts[position] + 3 * height * width].tobytes())
    sorted_file.replace(file)


def _check(dataset: Dataset, part: Part, indices: np.ndarray, broken: dict[int, str]) -> None:
    """Refuse a selection that lost too much: the measurement would be of another dataset."""
    reasons = [broken[position] for position in sorted(broken)]
    where = f"dataset {dataset.name!r}, {part} part"
    listed = "\n  ".join([*reasons[:_LISTED], *([f"and {len(reasons) - _LISTED} more"] * (len(reasons) > _LISTED))])
    if len(broken) > _MAX_BROKEN * len(indices):
        raise UserError(
            f"{where}: {len(broken)} of {len(indices)} images cannot be read, more than {_MAX_BROKEN:.0%}; "
            f"mend or remove them:\n  {listed}"
        )
    labels = part_of(dataset, part).labels[indices]
    lost = np.setdiff1d(labels, np.delete(labels, list(broken)))
    if len(lost):
        names = ", ".join(dataset.class_names[label] for label in lost.tolist())
        raise UserError(f"{where}: no readable image is left of class {names}; mend or remove:\n  {listed}")
