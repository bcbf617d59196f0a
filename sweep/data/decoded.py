"""The decode-once cache: one directory per selection and view, made by whoever needs it first.

Legend: N images kept of a selection of S.
"""

import contextlib
import functools
import hashlib
import json
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from PIL import Image, ImageFile

from sweep.base.errors import UserError
from sweep.base.spans import span, still_there
from sweep.data.dataset import Dataset, Decode, Split
from sweep.data.decode import limits
from sweep.data.files import aside, locked, publish
from sweep.data.options import Part
from sweep.data.parallel import LostProcessError, in_order
from sweep.data.partial import INDEX, PIXELS, Partial
from sweep.data.scratch import Room
from sweep.data.shelf import Shelf

_VERSION = 1  # raise by hand when the pixels or the layout of an entry change
_MAX_BROKEN = 0.01  # share of a selection that may be unreadable
_LISTED = 50  # broken images named in an error

Show: TypeAlias = Callable[[Image.Image], Image.Image]  # can be pickled: processes show it
_Read: TypeAlias = tuple[int, int, Decode, Sequence[int]]  # index, position, the image, numbers of views
View: TypeAlias = tuple[str, Show]  # its name, and an image as it shows it


Told = Callable[[str, int, int, float], None]


@dataclass(frozen=True)
class Decoding:
    """How images are decoded; what comes out does not depend on it.

    Attributes
    ----------
    processes : that decode, where there is enough to do for each.
    cache_bytes : the most that the cache may hold; what was used longest ago makes room. None: what the disk has.
    shelf : where decoded images are shared with other nodes; None: nowhere.
    told : called after every image with what is decoded, how many images are done, of how many, and images/s.
    """

    processes: int = 1
    cache_bytes: int | None = None
    shelf: Shelf | None = None
    told: Told = lambda _what, _done, _total, _rate: None


ALONE = Decoding()


class Wanted(NamedTuple):
    """A selection under a view.

    Attributes
    ----------
    bytes_each : of an image, where all have the same size.
    about_each : likewise where they have not, about.
    """

    dataset: Dataset
    part: Part
    indices: np.ndarray
    view: View
    resolution: int
    bytes_each: int | None = None
    about_each: int = 0

    @property
    def samples(self) -> Split:
        """The part that it is of."""
        return part_of(self.dataset, self.part)

    @property
    def place(self) -> str:
        """The view, for people."""
        return f"{self.view[0]}, {self.resolution} px"

    def __str__(self) -> str:
        return f"{self.dataset.name}, {self.part} part, {self.place}"

    def path(self, cache_dir: Path) -> Path:
        """Where its entry is, or would be."""
        if len(self.indices) == 0 or len(np.unique(self.indices)) < len(self.indices):
            raise ValueError("a selection of images needs at least one index, each of them once")
        selection = hashlib.sha256(self.indices.astype("<i8").tobytes()).hexdigest()
        own = [self.dataset.fingerprint, self.part, selection, self.view[0], self.resolution]
        identity = json.dumps([_VERSION, *own, *([self.dataset.pixels] if self.dataset.pixels else [])])
        return cache_dir / "images" / hashlib.sha256(identity.encode()).hexdigest()[:32]


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


def decoded(wanted: Wanted, *, cache_dir: Path, how: Decoding = ALONE) -> Entry:
    """The entry of a selection, opened if it is there and whole, else made; concurrent callers wait for one maker."""
    path = wanted.path(cache_dir)
    entry = _open(path)
    if entry is None:
        decode_together([wanted], cache_dir=cache_dir, how=how)
        entry = _open(path)
    if entry is None:
        raise OSError(f"the image cache at {path} cannot be read back right after it was written")
    return entry


def decode_together(several: Sequence[Wanted], *, cache_dir: Path, how: Decoding = ALONE) -> None:
    """Have the entries of a selection under several views: what is missing is made from one decoding of each image."""
    by_path = {wanted.path(cache_dir): wanted for wanted in several}
    missing = {path: by_path[path] for path in sorted(by_path) if _open(path) is None}
    if not missing:
        return
    if len(missing) > 1 and not _fit_together(missing.values(), how.cache_bytes):
        for wanted in missing.values():  # what is locked could not make room for the next
            decode_together([wanted], cache_dir=cache_dir, how=how)
        return
    about = _said(list(missing.values()))
    with ExitStack() as stack:
        with span("waiting for another to decode", about):
            for path in missing:  # in one order for all who wait for several
                stack.enter_context(locked(path))
        missing = {path: wanted for path, wanted in missing.items() if _open(path) is None}
        if how.shelf is not None:
            with span("fetching decoded images", about):
                most, shelf = how.cache_bytes, how.shelf
                missing = {path: each for path, each in missing.items() if not shelf.fetch(path, str(each), most)}
        if missing:
            with span("decoding", _said(list(missing.values()))):
                _make(missing, how)
        if how.shelf is not None:
            with span("sharing decoded images", about):
                for path in missing:
                    how.shelf.put(path)


def _fit_together(several: Iterable[Wanted], most: int | None) -> bool:
    """Whether a cache with a limit holds them at once, as far as sizes are known: they are made from one decoding."""
    return most is None or sum((each.bytes_each or each.about_each) * len(each.indices) for each in several) <= most


def _said(several: Sequence[Wanted]) -> str:
    """What is decoded, for people."""
    first, *others = several
    return "; ".join([str(first), *(wanted.place for wanted in others)])


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


@dataclass
class _Making:
    """An entry under way, and at which positions it lacks an image."""

    wanted: Wanted
    partial: Partial
    room: Room
    lacks_N: np.ndarray

    def take(self, position: int, image: np.ndarray | str, among: Sequence["_Making"]) -> None:
        """An image, or why it is broken; if that completes a chunk the room for the others is looked at."""
        if self.partial.add(position, image):
            self.look_for_room(among)

    def look_for_room(self, among: Sequence["_Making"]) -> None:
        """UserError if there is too little; ``among``: the entries that are made at the same time."""
        beside = sum(other.room.left(other.partial) for other in among if other is not self)
        self.room.refuse_too_little(self.partial, beside=beside)


def _begun(path: Path, wanted: Wanted, how: Decoding) -> _Making:
    """From what a dead process left."""
    partial, images = Partial(aside(path)), len(wanted.indices)
    room = Room(str(wanted), path, how.cache_bytes, images, wanted.bytes_each)
    return _Making(wanted, partial, room, partial.lacks(images))


def _make(missing: Mapping[Path, Wanted], how: Decoding) -> None:
    """Decode, check, publish entries of one selection; the caller holds their locks."""
    entries = {path: _begun(path, wanted, how) for path, wanted in missing.items()}
    try:
        with ExitStack() as stack:
            for entry in entries.values():
                entry.look_for_room(list(entries.values()))
                stack.enter_context(entry.partial)
            _decode(list(entries.values()), how)
        for entry in entries.values():
            _check(entry.wanted, entry.partial.broken)
    except UserError:
        for entry in entries.values():
            if entry.partial.done in (0, len(entry.wanted.indices)):  # nothing to go on from; who mends has others
                entry.partial.remove()
        raise
    for path, entry in entries.items():
        entry.partial.complete()
        shutil.rmtree(path, ignore_errors=True)
        publish(path)


def _decode(entries: Sequence[_Making], how: Decoding) -> None:
    """Add what is missing, as storage yields it: every image is decoded once for all entries that lack it."""
    indices, samples = entries[0].wanted.indices, entries[0].wanted.samples
    left_N, by_index_N = np.logical_or.reduce([entry.lacks_N for entry in entries]), np.argsort(indices)

    def lacking() -> Iterator[_Read]:
        """Each image that an entry lacks, its position in the selection, and which entries these are."""
        for index, decode in samples.read_lazily(indices[left_N].tolist()):
            position = int(by_index_N[np.searchsorted(indices, index, sorter=by_index_N)])
            yield index, position, decode, [n for n, entry in enumerate(entries) if entry.lacks_N[position]]

    work = functools.partial(_shown, shows=[entry.wanted.view[1] for entry in entries], limits=limits())
    about, started, left = _said([entry.wanted for entry in entries]), time.monotonic(), int(left_N.sum())
    try:
        with closing(in_order(work, lacking(), count=left, processes=how.processes)) as shown:
            for done, (index, position, images) in enumerate(shown, 1):
                for number, image in images.items():
                    named = f"{samples.names[index]}: {image}" if isinstance(image, str) else image
                    entries[number].take(position, named, entries)
                rate = done / max(time.monotonic() - started, 1e-9)
                how.told(about, len(indices) - left + done, len(indices), rate)
                still_there()
    except LostProcessError as error:
        names = [samples.names[index] for index, *_ in error.items]
        more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        raise OSError(f"{about}: {error}, decoding one of {', '.join(names[:_LISTED])}{more}") from error


def _shown(
    read: _Read, *, shows: Sequence[Show], limits: tuple[int | None, bool]
) -> tuple[int, int, dict[int, np.ndarray | str]]:
    """An image as some of the views show it, uint8 (H, W, 3), or why it is broken; in any process."""
    Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = limits
    index, position, decode, numbers = read
    image = decode()
    images = {number: _viewed(image, shows[number]) for number in numbers}
    said = {
        number: (str(seen) or type(seen).__name__) if isinstance(seen, Exception) else seen
        for number, seen in images.items()
    }
    return index, position, said


def _viewed(image: Image.Image | Exception, show: Show) -> np.ndarray | Exception:
    """Pixels of an image, uint8 (H, W, 3); one that does not fit into memory is one broken image, not the end."""
    if isinstance(image, Exception):
        return image
    try:
        return np.asarray(show(image))
    except (ValueError, MemoryError) as error:
        return error


def _check(wanted: Wanted, broken: Mapping[int, str]) -> None:
    """Refuse a selection that lost too much: the measurement would be of another dataset."""
    reasons = [broken[position] for position in sorted(broken)]
    where = f"dataset {wanted.dataset.name!r}, {wanted.part} part"
    listed = "\n  ".join([*reasons[:_LISTED], *([f"and {len(reasons) - _LISTED} more"] * (len(reasons) > _LISTED))])
    if len(broken) > _MAX_BROKEN * len(wanted.indices):
        raise UserError(
            f"{where}: {len(broken)} of {len(wanted.indices)} images cannot be read, more than {_MAX_BROKEN:.0%}; "
            f"mend or remove them:\n  {listed}"
        )
    labels = wanted.samples.labels[wanted.indices]
    lost = np.setdiff1d(labels, np.delete(labels, list(broken)))
    if len(lost):
        names = ", ".join(wanted.dataset.class_names[label] for label in lost.tolist())
        raise UserError(f"{where}: no readable image is left of class {names}; mend or remove:\n  {listed}")
