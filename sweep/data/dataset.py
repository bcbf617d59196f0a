"""What every dataset looks like to the rest of the program, whatever it is read from.

Legend: N samples of one split.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from PIL import Image

Decode: TypeAlias = Callable[[], Image.Image | Exception]


class Reader(Protocol):
    """Yields the images of one split."""

    def read_many(self, indices: Iterable[int]) -> Iterator[tuple[int, Image.Image | Exception]]:
        """The images at ``indices`` (each once), in storage order; a broken one as its exception."""
        ...


@runtime_checkable
class LazyReader(Protocol):
    """A reader that can leave the decoding to others; reading bytes is its own affair."""

    def read_lazily(self, indices: Iterable[int]) -> Iterator[tuple[int, Decode]]:
        """As ``read_many``, but each image is a function that decodes it, in any process: it can be pickled."""
        ...


@dataclass(frozen=True, eq=False)
class Split:
    """One part of a dataset.

    Attributes
    ----------
    groups
        int64, shape (N,): which images belong together, where that is known (:mod:`sweep.data.groups`).
    labels
        int64, shape (N,): index into the dataset's ``class_names``.
    names
        N stable sample ids such as ``"train/cat/0001.png"``.
    reader
        Where the pixels come from.
    digests
        N digests of the stored bytes, by which copies are found; empty where images are made.
    """

    labels: np.ndarray
    names: tuple[str, ...]
    reader: Reader
    digests: tuple[str, ...] = ()
    groups: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> Image.Image:
        """Image ``index`` in mode RGB; raises whatever a broken image raises. Slow in a ``.tar.gz``."""
        ((_, image),) = self.read_many([index])
        if isinstance(image, Exception):
            raise image
        return image

    def read_many(self, indices: Iterable[int]) -> Iterator[tuple[int, Image.Image | Exception]]:
        """Pairs (index, RGB image or the exception of a broken one), in storage order, one pass."""
        return self.reader.read_many(indices)

    def read_lazily(self, indices: Iterable[int]) -> Iterator[tuple[int, Decode]]:
        """As :meth:`read_many`, but what can be decoded later is a function that does it, in any process."""
        if isinstance(self.reader, LazyReader):
            yield from self.reader.read_lazily(indices)
            return
        for index, image in self.read_many(indices):
            # of an error its words: one of a plug-in's own may not pass to another process
            said = (str(image) or type(image).__name__) if isinstance(image, Exception) else image
            yield index, functools.partial(_ready, said)


def _ready(image: Image.Image | str) -> Image.Image | Exception:
    return ValueError(image) if isinstance(image, str) else image


@dataclass(frozen=True, eq=False)
class Dataset:
    """A labelled image set with a train and a test part.

    Attributes
    ----------
    name
        Name in the configuration; never part of a key.
    fingerprint
        Hexadecimal digest of the content: same images in the same parts, same fingerprint, wherever they lie.
    class_names
        Names of the classes; a label is an index into them.
    split_note
        ``"official"``, or how the test part was made, e.g. ``"stratified 80/20, seed 0"``.
    grouping
        What keys say of its groups: a digest of which training images belong together; mostly nothing.
    pixels
        What keys say of how its images are decoded (:mod:`sweep.data.pixels`); mostly nothing.
    notes
        What a person should know: what was left out, how the parts were found.
    """

    name: str
    fingerprint: str
    class_names: tuple[str, ...]
    train: Split
    test: Split
    split_note: str
    pixels: str = ""
    notes: tuple[str, ...] = ()
    grouping: str = ""
