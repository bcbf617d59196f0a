"""What the doctor keeps of each image, looked at by as many processes as are worth their start."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageFile

from sweep.base.errors import UserError
from sweep.data.copies import difference_hash, thumbnail
from sweep.data.dataset import Decode, Split
from sweep.data.decode import SEVERAL, limits
from sweep.data.parallel import LostProcessError, in_order

_NAMED = 5  # images that may have ended a process


class Look(NamedTuple):
    """One image.

    Attributes
    ----------
    size : width and height, px.
    bits : its difference hash.
    grey : its thumbnail.
    flat : whether it has one colour alone.
    several : whether it is the first of several frames.
    """

    size: tuple[int, int]
    bits: int
    grey: np.ndarray
    flat: bool
    several: bool


def looks(split: Split, indices: Sequence[int], *, processes: int) -> Iterator[tuple[str, Look | str]]:
    """Each image's name, and what it looks like or why it cannot be read, in storage order.

    Parameters
    ----------
    processes : the most that decode.

    Raises
    ------
    UserError
        If an image ends the process that decodes it.
    """
    work = functools.partial(_looked, limits=limits())
    try:
        with closing(in_order(work, split.read_lazily(indices), count=len(indices), processes=processes)) as found:
            for index, look in found:
                yield split.names[index], look
    except LostProcessError as error:
        names = [split.names[index] for index, _ in error.items]
        raise UserError(
            f"{error}, decoding one of {', '.join(names[:_NAMED])}{', …' * (len(names) > _NAMED)}"
        ) from error


def _looked(read: tuple[int, Decode], *, limits: tuple[int | None, bool]) -> tuple[int, Look | str]:
    """In any process."""
    Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = limits
    index, decode = read
    image = decode()
    if isinstance(image, Exception):
        return index, str(image) or type(image).__name__
    extrema: Any = image.getextrema()  # of RGB a pair for each channel, which its stub does not know
    flat = all(low == high for low, high in extrema)
    return index, Look(image.size, difference_hash(image), thumbnail(image), flat, bool(image.info.get(SEVERAL)))
