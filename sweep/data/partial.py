"""A cache entry while it is decoded: pixels so far, and after every chunk what of them is sure to be whole.

Whoever goes on after a kill loses no more than the last chunk: pixels after it are cut off.

Legend: N images kept of a selection.
"""

from __future__ import annotations

import os
import shutil
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
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

    Attributes
    ----------
    sizes : position → (height, width) of the images whose pixels are there, in the order in which they were written.
    broken : position → why an image has none.
    """

    def __init__(self, directory: Path) -> None:
        self._directory, self._chunk, self._chunks = directory, _Chunk(), 0
        self.sizes: dict[int, tuple[int, int]] = {}
        self.broken: dict[int, str] = {}
        directory.mkdir(exist_ok=True)
        self._read()

    def _read(self) -> None:
        """Take over what another process left, up to the first chunk that is not whole."""
        pixels = self._directory / PIXELS
        there, length = pixels.stat().st_size if pixels.exists() else 0, 0
        while (file := self._file(self._chunks)).exists():
            chunk = _parsed(file)
            if chunk is None or length + _bytes(chunk.sizes) > there:
                break
            length += _bytes(chunk.sizes)
            self.sizes |= chunk.sizes
            self.broken |= chunk.broken
            self._chunks += 1
        for name in self._directory.iterdir():
            if name.name not in {PIXELS, *(_CHUNK.format(number) for number in range(self._chunks))}:
                name.unlink()
        if there > length:
            os.truncate(pixels, length)

    def _file(self, number: int) -> Path:
        return self._directory / _CHUNK.format(number)

    @property
    def done(self) -> int:
        """Images that need not be decoded any more."""
        return len(self.sizes) + len(self.broken)

    @property
    def bytes(self) -> int:
        """Of the pixels so far."""
        return _bytes(self.sizes)

    @property
    def is_shuffled(self) -> bool:
        """Whether storage yields the images in another order than the selection: they are copied in the end."""
        return any(later < earlier for earlier, later in pairwise(self.sizes))

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
            self._chunk.sizes[position] = self.sizes[position] = (image.shape[0], image.shape[1])
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
        kept = sorted(self.sizes)
        if self.is_shuffled:
            self._rearrange()
        skipped = np.array([self.broken[position] for position in sorted(self.broken)], dtype=np.str_)
        sizes_N2 = np.array([self.sizes[position] for position in kept], dtype=np.int64)
        np.savez(self._directory / INDEX, kept=np.array(kept, dtype=np.int64), sizes=sizes_N2, skipped=skipped)
        for number in range(self._chunks):
            self._file(number).unlink()

    def _rearrange(self) -> None:
        """Copy images from the order of storage into the order of the selection."""
        file = self._directory / PIXELS
        starts, start = {}, 0
        for position, (height, width) in self.sizes.items():
            starts[position] = start
            start += 3 * height * width
        source = np.memmap(file, dtype=np.uint8, mode="r")
        sorted_file = file.with_name("sorted")
        with open(sorted_file, "wb") as target:
            for position in sorted(self.sizes):
                height, width = self.sizes[position]
                target.write(source[starts[position] : starts[position] + 3 * height * width].tobytes())
        sorted_file.replace(file)

    def remove(self) -> None:
        """Nobody can go on from it."""
        shutil.rmtree(self._directory, ignore_errors=True)


def _bytes(sizes: Mapping[int, tuple[int, int]]) -> int:
    return sum(3 * height * width for height, width in sizes.values())


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
