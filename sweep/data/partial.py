"""A cache entry while it is decoded: pixels so far, and after every chunk what of them is sure to be whole.

Whoever goes on after a kill loses no more than the last chunk: pixels after it are cut off.

Legend: N images kept of a selection.
"""

from __future__ import annotations

import os
import shutil
import time
import zipfile
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sweep.data.files import flush_to_disk

PIXELS, INDEX = "pixels.u8", "index.npz"
_CHUNK = "chunk-{:06d}.npz"
_CHUNK_SECONDS = 10.0  # what a kill costs at most, whatever the size of the images


@dataclass
class _Chunk:
    """Images since the last chunk, by position in the selection, in the order in which they were written."""

    sizes: dict[int, tuple[int, int]] = field(default_factory=dict)
    broken: dict[int, str] = field(default_factory=dict)


class Partial:
    """An entry under way in a directory of its own; the caller holds its lock.

    Of every image it holds 16 bytes, whatever is decoded.

    Attributes
    ----------
    broken : position → why an image has no pixels.
    bytes : of the pixels so far.
    is_shuffled : whether storage yields the images in another order than the selection: they are copied in the end.
    """

    def __init__(self, directory: Path) -> None:
        self._directory, self._chunk, self._chunks = directory, _Chunk(), 0
        self._positions, self._sides = array("q"), array("i")  # as they were written; height and width of each
        self.broken: dict[int, str] = {}
        self.bytes, self.is_shuffled = 0, False
        directory.mkdir(exist_ok=True)
        self._read()

    def _read(self) -> None:
        """Take over what another process left, up to the first chunk that is not whole."""
        pixels = self._directory / PIXELS
        there = pixels.stat().st_size if pixels.exists() else 0
        while (file := self._file(self._chunks)).exists():
            chunk = _parsed(file)
            if chunk is None or self.bytes + sum(3 * height * width for height, width in chunk.sizes.values()) > there:
                break
            for position, (height, width) in chunk.sizes.items():
                self._note(position, height, width)
            self.broken |= chunk.broken
            self._chunks += 1
        for name in self._directory.iterdir():
            if name.name not in {PIXELS, *(_CHUNK.format(number) for number in range(self._chunks))}:
                name.unlink()
        if there > self.bytes:
            os.truncate(pixels, self.bytes)

    def _note(self, position: int, height: int, width: int) -> None:
        """An image of which the pixels are there."""
        self.is_shuffled |= bool(self._positions) and position < self._positions[-1]
        self._positions.append(position)
        self._sides.extend((height, width))
        self.bytes += 3 * height * width

    def _file(self, number: int) -> Path:
        return self._directory / _CHUNK.format(number)

    @property
    def images(self) -> int:
        """Whose pixels are there."""
        return len(self._positions)

    @property
    def done(self) -> int:
        """Images that need not be decoded any more."""
        return self.images + len(self.broken)

    def lacks(self, images: int) -> np.ndarray:
        """Of a selection of so many images, at which positions one is still to be decoded; bool."""
        lacks_N = np.ones(images, dtype=bool)
        lacks_N[np.array(self._positions, dtype=np.int64)] = False
        lacks_N[np.array(list(self.broken), dtype=np.int64)] = False
        return lacks_N

    def __enter__(self) -> Partial:
        self._pixels = open(self._directory / PIXELS, "ab")
        self._since = time.monotonic()
        return self

    def __exit__(self, *_error: object) -> None:
        self._pixels.close()

    def add(self, position: int, image: np.ndarray | str) -> bool:
        """Take an image, uint8 (H, W, 3), or why it is broken; True if it completed a chunk."""
        if isinstance(image, str):
            self._chunk.broken[position] = self.broken[position] = image
        else:
            self._chunk.sizes[position] = (image.shape[0], image.shape[1])
            self._note(position, image.shape[0], image.shape[1])
            self._pixels.write(image.tobytes())
        if time.monotonic() - self._since < _CHUNK_SECONDS:
            return False
        self._publish()
        return True

    def _publish(self) -> None:
        """Pixels first, then what says that they are whole."""
        self._pixels.flush()
        os.fsync(self._pixels.fileno())
        chunk, file = self._chunk, self._file(self._chunks)
        aside = file.with_suffix(".tmp")
        with open(aside, "wb") as opened:
            np.savez(opened, **_arrays(chunk))
        flush_to_disk(aside)
        aside.replace(file)
        self._chunk, self._chunks, self._since = _Chunk(), self._chunks + 1, time.monotonic()

    def complete(self) -> None:
        """Put the images into the order of the selection, and an index beside them instead of the chunks."""
        order_N = np.argsort(np.array(self._positions, dtype=np.int64))
        sizes_N2 = np.array(self._sides, dtype=np.int64).reshape(-1, 2)
        if self.is_shuffled:
            self._rearrange(order_N, sizes_N2)
        skipped = np.array([self.broken[position] for position in sorted(self.broken)], dtype=np.str_)
        kept_N = np.array(self._positions, dtype=np.int64)[order_N]
        np.savez(self._directory / INDEX, kept=kept_N, sizes=sizes_N2[order_N], skipped=skipped)
        for number in range(self._chunks):
            self._file(number).unlink()

    def _rearrange(self, order_N: np.ndarray, sizes_N2: np.ndarray) -> None:
        """Copy images from the order of storage into the order of the selection."""
        file, bytes_N = self._directory / PIXELS, 3 * sizes_N2.prod(axis=1)
        starts_N = np.cumsum(bytes_N) - bytes_N
        source = np.memmap(file, dtype=np.uint8, mode="r")
        sorted_file = file.with_name("sorted")
        with open(sorted_file, "wb") as target:
            for number in order_N.tolist():
                target.write(source[starts_N[number] : starts_N[number] + bytes_N[number]].tobytes())
        sorted_file.replace(file)

    def remove(self) -> None:
        """Nobody can go on from it."""
        shutil.rmtree(self._directory, ignore_errors=True)


def _arrays(chunk: _Chunk) -> dict[str, Any]:
    return {
        "positions": np.array(list(chunk.sizes), dtype=np.int64),
        "sizes": np.array(list(chunk.sizes.values()), dtype=np.int64).reshape(-1, 2),
        "broken": np.array(list(chunk.broken), dtype=np.int64),
        "reasons": np.array(list(chunk.broken.values()), dtype=np.str_),
    }


def _parsed(file: Path) -> _Chunk | None:
    """A chunk, or None where it is not what was written."""
    try:
        with open(file, "rb") as opened, np.load(opened) as arrays:
            sizes = [(int(height), int(width)) for height, width in arrays["sizes"]]
            return _Chunk(
                dict(zip(arrays["positions"].tolist(), sizes, strict=True)),
                dict(zip(arrays["broken"].tolist(), arrays["reasons"].tolist(), strict=True)),
            )
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
