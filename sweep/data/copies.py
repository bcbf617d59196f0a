"""Images that stand in a dataset twice: equal files by their digest, the same picture by a perceptual hash.

Legend: N and M images of two parts, K near pairs; a thumbnail is 16 × 16 grey values.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from PIL import Image

from sweep.data.dataset import Split

_BANDS = 4  # of 16 bits: two hashes that differ in 3 bits at most agree in a band
_MAX_BITS = 3
_MAX_GREY = 6.0  # mean difference of thumbnails of one picture, re-encoded or resized
_MIN_SPREAD = 8.0  # standard deviation below which a thumbnail is flat, like every other flat one


def equal_pairs(train: Split, test: Split) -> list[tuple[str, str]]:
    """Pairs (training image, test image) of equal bytes, by name."""
    name_of = dict(zip(train.digests, train.names, strict=False))
    pairs = zip(test.digests, test.names, strict=False)
    return [(name_of[digest], name) for digest, name in pairs if digest in name_of]


def repeated(split: Split) -> int:
    """How many images of a part have the bytes of another one of it."""
    return sum(count - 1 for count in Counter(split.digests).values())


def thumbnail(image: Image.Image) -> np.ndarray:
    """The picture in 16 × 16 grey values, uint8."""
    return np.asarray(image.convert("L").resize((16, 16), Image.Resampling.BOX))


def difference_hash(image: Image.Image) -> int:
    """64 bits: whether each of 8 × 8 places is brighter than its right neighbour."""
    grey_HW = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX)).astype(int)
    bits_64 = (grey_HW[:, :-1] > grey_HW[:, 1:]).ravel()
    return int.from_bytes(np.packbits(bits_64).tobytes(), "big")


def near_pairs(
    train: Sequence[tuple[str, int, np.ndarray]], test: Sequence[tuple[str, int, np.ndarray]]
) -> list[tuple[str, str]]:
    """Pairs (training image, test image) that are the same picture.

    Parameters
    ----------
    train, test : (name, difference hash, thumbnail) of images; flat ones are passed by.
    """
    buckets: dict[tuple[int, int], list[int]] = defaultdict(list)
    for position, (_, bits, grey) in enumerate(train):
        if grey.std() >= _MIN_SPREAD:
            for band in range(_BANDS):
                buckets[band, bits >> 16 * band & 0xFFFF].append(position)
    pairs = []
    for name, bits, grey in test:
        if grey.std() < _MIN_SPREAD:
            continue
        candidates = {each for band in range(_BANDS) for each in buckets.get((band, bits >> 16 * band & 0xFFFF), ())}
        for position in sorted(candidates):
            other, their_bits, their_grey = train[position]
            close = (bits ^ their_bits).bit_count() <= _MAX_BITS
            if close and np.abs(grey.astype(int) - their_grey.astype(int)).mean() <= _MAX_GREY:
                pairs.append((other, name))
                break
    return pairs
