"""What a built-in generator is, and the random streams that make its images reproducible.

Legend: N images, S side in pixels, U draws of an image.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sweep.data.options import Part


class Render(Protocol):
    """Draws images; image (part, class, index) has the same pixels in whatever batch it is drawn."""

    def __call__(self, part: Part, classes_N: np.ndarray, indices_N: np.ndarray, *, size: int, seed: int) -> np.ndarray:
        """Return uint8, shape (N, S, S, 3)."""
        ...


@dataclass(frozen=True)
class Generator:
    """A family of generated images.

    Attributes
    ----------
    name, version
        Enter the fingerprint; raise ``version`` by hand whenever a pixel changes.
    class_name
        Name of a class id.
    max_classes, max_per_class
        How many classes, and images per class (train and test together), it can make; None: any number.
    classes, train_per_class, test_per_class, size
        Defaults.
    fixed_size
        The size is a property of the data and cannot be asked for.
    ingredients
        Digest of outside data that the pixels depend on (fonts); enters the fingerprint.
    """

    name: str
    version: int
    render: Render
    class_name: Callable[[int], str]
    classes: int
    train_per_class: int
    test_per_class: int
    size: int = 64
    fixed_size: bool = False
    max_classes: int | None = None
    max_per_class: int | None = None
    ingredients: Callable[[], str] = str


def stream(*key: str | int) -> np.random.Generator:
    """The random stream of a key: independent of every other key's, and cheap to open (microseconds)."""
    text = "\x1f".join(map(str, key))
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "big")))


def image_streams(
    name: str, seed: int, part: Part, classes_N: np.ndarray, indices_N: np.ndarray
) -> list[np.random.Generator]:
    """One stream per image; the part is in the key, so train and test images are never the same draws."""
    return [
        stream(name, seed, part, label, index)
        for label, index in zip(classes_N.tolist(), indices_N.tolist(), strict=True)
    ]
