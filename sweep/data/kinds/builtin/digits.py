"""Real handwritten digits: scikit-learn's copy of the UCI optical digits, 8 × 8 pixels, 10 classes.

Legend: N images.
"""

import functools

import numpy as np

from sweep.data.kinds.builtin.generator import Generator, stream
from sweep.data.options import Part

_SMALLEST_CLASS = 174  # images of the digit 8, the rarest


@functools.cache
def _images_by_digit() -> tuple[np.ndarray, ...]:
    """uint8 arrays (n, 8, 8), one per digit, in scikit-learn's order."""
    from sklearn.datasets import load_digits  # imported here: slow, and unneeded to list the samples

    data = load_digits()
    pixels = (data.images * (255 / 16) + 0.5).astype(np.uint8)
    return tuple(pixels[data.target == digit] for digit in range(10))


def render(part: Part, classes_N: np.ndarray, indices_N: np.ndarray, *, size: int, seed: int) -> np.ndarray:
    """Digits in a seeded order of each class, training images from its start and test images from its end.

    Returns uint8, shape (N, 8, 8, 3); ``size`` is always 8.
    """
    images = np.empty((len(classes_N), size, size, 3), dtype=np.uint8)
    for row, (label, index) in enumerate(zip(classes_N.tolist(), indices_N.tolist(), strict=True)):
        of_digit = _images_by_digit()[label]
        order = np.argsort(stream("digits", seed, label).random(len(of_digit)), kind="stable")
        position = order[index] if part == "train" else order[-1 - index]
        images[row] = of_digit[position][..., None]
    return images


DIGITS = Generator(
    name="digits",
    version=1,
    render=render,
    class_name=str,
    classes=10,
    train_per_class=20,
    test_per_class=60,
    size=8,
    fixed_size=True,
    max_classes=10,
    max_per_class=_SMALLEST_CLASS,
)
