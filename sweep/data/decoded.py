"""The decode-once cache: one directory per selection and view, made by whoever needs it first.

Legend: N images kept of a selection of S.
"""

import contextlib
import hashlib
import json
import os
import shutil
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from sweep.base.errors import UserError
from sweep.base.spans import span
from sweep.data.dataset import Dataset, Decode, Split
from sweep.data.files import aside, locked, publish
from sweep.data.options import Part
from sweep.data.parallel import in_order
from sweep.data.partial import INDEX, PIXELS, Partial
from sweep.data.scratch import Room

_VERSION = 1  # raise by hand when the pixels or the layout of an entry change
_MAX_BROKEN = 0.01  # share of a selection that may be unreadable
_LISTED = 50  # broken images named in an error

View = tuple[str, Callable[[Image.Image, int], Image.Image]]  # its name, (image, resolution) → image


Told = Callable[[str, int, int, float], None]


@dataclass(frozen=True)
class Decoding:
    """How images are decoded; what comes out does not depend on it.

    Attributes
    ----------
    threads : that decode.
    cache_bytes : the most that the cache may hold; what was used longest ago makes room. None: what the disk has.
    told : called after every image with what is decoded, how many images are done, of how many, and images/s.
    """

    threads: int = 1
    cache_bytes: int | None = None
    told: Told = lambda _what, _done, _total, _rate: None


ALONE = Decoding()


class _Wanted(NamedTuple):
    """A selection under a view."""

    dataset: Dataset
    part: Part
    indices: np.ndarray
    view: View
    resolution: int

    def __str__(self) -> str:
        return f"{self.dataset.name}, {self.part} part, {self.view[0]}, {self.resolution} px"


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
    dataset: Dataset,
    part: Part,
    indices: np.ndarray,
    *,
    view: View,
    resolution: int,
    cache_dir: Path,
    how: Decoding = ALONE,
    bytes_each: int | None = None,
) -> Entry:
    """The entry of a selection, opened if it is there and whole, else made; concurrent callers wait for one maker.

    Parameters
    ----------
    bytes_each : of an image, where all have the same size.
    """
    indices = np.asarray(indices, dtype=np.int64)
    wanted = _Wanted(dataset, part, indices, view, resolution)
    path = entry_path(dataset, part, indices, view=view[0], resolution=resolution, cache_dir=cache_dir)
    entry = _open(path)
    if entry is None:
        with span("waiting for another to decode", str(wanted)), locked(path):
            entry = _open(path)
            if entry is None:
                with span("decoding", str(wanted)):
                    _make(path, wanted, how, bytes_each)
                entry = _open(path)
    if entry is None:
        raise OSError(f"the image cache at {path} cannot be read back right after it was written")
    return entry


def entry_path(
    dataset: Dataset, part: Part, indices: np.ndarray, *, view: str, resolution: int, cache_dir: Path
) -> Path:
    """Where the entry of a selection is, or would be."""
    indices = np.asarray(indices, dtype=np.int64)
    if len(indices) == 0 or len(np.unique(indices)) < len(indices):
        raise ValueError("a selection of images needs at least one index, each of them once")
    selection = hashlib.sha256(indices.astype("<i8").tobytes()).hexdigest()
    pixels = [dataset.pixels] if dataset.pixels else []
    identity = json.dumps([_VERSION, dataset.fingerprint, part, selection, view, resolution, *pixels])
    return cache_dir / "images" / hashlib.sha256(identity.encode()).hexdigest()[:32]


def _open(path: Path) -> Entry | None:
    """An entry, or None if it is missing, cut short or otherwise not what was written."""
    try:
        with open(path / INDEX, "rb") as file, np.load(file) as index:
            kept_N, sizes_N2, skipped = index["kept"], index["sizes"], index["skipped"]
        length = (path / PIXELS).stat().st_size
    except (FileNotFoundError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if length != 3 * int(sizes_N2.prod(axis=1).sum()):
        return None
    with contextlib.suppress(OSError):  # a cache that may only be read
        os.utime(path / INDEX)  # what was used longest ago goes first
    pixels = np.memmap(path / PIXELS, dtype=np.uint8, mode="r")
    return Entry(pixels, kept_N, sizes_N2, tuple(skipped.tolist()))


def _make(path: Path, wanted: _Wanted, how: Decoding, bytes_each: int | None) -> None:
    """Decode, check, publish; the caller holds the lock. It goes on from what a dead process left."""
    partial = Partial(aside(path))
    room = Room(str(wanted), path, how.cache_bytes, len(wanted.indices), bytes_each)
    try:
        room.refuse_too_little(partial)
        with partial:
            _decode(partial, wanted, how, room)
        _check(wanted.dataset, wanted.part, wanted.indices, partial.broken)
    except UserError:
        if partial.done in (0, len(wanted.indices)):  # nothing to go on from; who mends images has others
            partial.remove()
        raise
    partial.complete()
    shutil.rmtree(path, ignore_errors=True)
    publish(path)


def _decode(partial: Partial, wanted: _Wanted, how: Decoding, room: Room) -> None:
    """Add what is missing, as storage yields it."""
    samples, view, resolution = part_of(wanted.dataset, wanted.part), wanted.view, wanted.resolution
    position_of = {index: position for position, index in enumerate(wanted.indices.tolist())}
    there = {*partial.sizes, *partial.broken}
    left = [index for index, position in position_of.items() if position not in there]
    started = time.monotonic()

    def viewed(read: tuple[int, Decode]) -> tuple[int, np.ndarray | str]:
        """An image as the view shows it, or why it is broken; in any thread."""
        index, image = read[0], _viewed(read[1](), view, resolution)
        if isinstance(image, Exception):
            return index, f"{samples.names[index]}: {str(image) or type(image).__name__}"
        return index, image

    for index, image in in_order(viewed, samples.read_lazily(left), threads=how.threads):
        if partial.add(position_of[index], image):
            room.refuse_too_little(partial)
        rate = (partial.done - len(there)) / max(time.monotonic() - started, 1e-9)
        how.told(str(wanted), partial.done, len(position_of), rate)


def _viewed(image: Image.Image | Exception, view: View, resolution: int) -> np.ndarray | Exception:
    """Pixels of an image, uint8 (H, W, 3); one that does not fit into memory is one broken image, not the end."""
    if isinstance(image, Exception):
        return image
    try:
        return np.asarray(view[1](image, resolution))
    except (ValueError, MemoryError) as error:
        return error


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
