"""Decoded images in the store of a sweep: a set is decoded on one node, others fetch it.

An entry of the cache is put there in parts that fit the memory, its index last: where that is, all is.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from sweep.base.store import Store
from sweep.data.files import aside, publish
from sweep.data.partial import INDEX, PIXELS, Partial
from sweep.data.scratch import Room

_PART_BYTES = 256 << 20
_PLACE = "decoded"


@dataclass(frozen=True)
class Shelf:
    """Where a sweep's decoded images are shared."""

    store: Store

    def put(self, entry: Path) -> None:
        """Share an entry of the cache that is whole, if nobody has."""
        if self.store.exists(_name(entry, INDEX)):
            return
        pixels = np.memmap(entry / PIXELS, dtype=np.uint8, mode="r")
        for number, start in enumerate(range(0, len(pixels), _PART_BYTES)):
            self.store.put(_name(entry, f"{number:06d}.u8"), pa.py_buffer(pixels[start : start + _PART_BYTES]))
        self.store.put(_name(entry, INDEX), (entry / INDEX).read_bytes())

    def fetch(self, entry: Path, what: str, most: int | None) -> bool:
        """Have an entry that another shared; the caller holds its lock.

        Parameters
        ----------
        what : the images, for people.
        most : bytes that the cache may hold, see :class:`sweep.data.scratch.Room`.

        Returns
        -------
        whether it is there: nothing was shared, or it was lost on the way, and is to be decoded.

        Raises
        ------
        UserError
            If the disk has no room for it.
        """
        try:
            index = self.store.get(_name(entry, INDEX))
            with np.load(io.BytesIO(index)) as arrays:
                sizes_N2 = arrays["sizes"]
        except FileNotFoundError:
            return False
        total = 3 * int(sizes_N2.prod(axis=1).sum())
        place = aside(entry)
        place.mkdir(exist_ok=True)
        partial = Partial(place)
        if partial.done:
            return False  # somebody decoded a part of it: that is gone on from
        Room(what, entry, most, len(sizes_N2), -(-total // max(len(sizes_N2), 1))).refuse_too_little(partial)
        with open(place / PIXELS, "wb") as file:
            try:
                for number in range(-(-total // _PART_BYTES)):
                    file.write(self.store.get(_name(entry, f"{number:06d}.u8")))
            except FileNotFoundError:
                return False
        if (place / PIXELS).stat().st_size != total:
            return False
        (place / INDEX).write_bytes(index)
        publish(entry)
        return True


def _name(entry: Path, part: str) -> str:
    return f"{_PLACE}/{entry.name}/{part}"
