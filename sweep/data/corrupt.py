"""Corruptions at graded severity, made on the fly from images as a backbone sees them.

Kinds and levels are those of ImageNet-C (Hendrycks & Dietterich 2019, arXiv 1903.12261) where these are stated in the
images' own terms; lengths in pixels are scaled from 224 px to the images' side. Here they act after resizing and
cropping, as there.
Legend: N images, H, W pixels.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from sweep.base.seeds import derive_seed

Array = npt.NDArray[np.uint8]
_SIDE = 224


def _noise(image_HW3: Array, level: float, rng: np.random.Generator) -> Array:
    return _as_pixels(image_HW3 / 255 + rng.normal(0, level, image_HW3.shape))


def _blur(image_HW3: Array, level: float, rng: np.random.Generator) -> Array:
    radius = level * image_HW3.shape[0] / _SIDE
    return np.asarray(Image.fromarray(image_HW3).filter(ImageFilter.GaussianBlur(radius)))


def _contrast(image_HW3: Array, level: float, rng: np.random.Generator) -> Array:
    mean_3 = image_HW3.mean(axis=(0, 1), keepdims=True)
    return _as_pixels(((image_HW3 - mean_3) * level + mean_3) / 255)


def _brightness(image_HW3: Array, level: float, rng: np.random.Generator) -> Array:
    hsv_HW3 = np.array(Image.fromarray(image_HW3).convert("HSV"))
    hsv_HW3[..., 2] = np.clip(hsv_HW3[..., 2] + 255 * level, 0, 255)
    bands = [Image.fromarray(np.ascontiguousarray(hsv_HW3[..., band])) for band in range(3)]
    return np.asarray(Image.merge("HSV", bands).convert("RGB"))


def _pixelate(image_HW3: Array, level: float, rng: np.random.Generator) -> Array:
    image = Image.fromarray(image_HW3)
    small = image.resize((max(1, int(image.width * level)), max(1, int(image.height * level))), Image.Resampling.BOX)
    return np.asarray(small.resize(image.size, Image.Resampling.NEAREST))


def _jpeg(image_HW3: Array, level: float, rng: np.random.Generator) -> Array:
    held = io.BytesIO()
    Image.fromarray(image_HW3).save(held, "JPEG", quality=int(level))
    return np.asarray(Image.open(held).convert("RGB"))


def _as_pixels(image_HW3: npt.NDArray[np.float64]) -> Array:
    return (np.clip(image_HW3, 0, 1) * 255).astype(np.uint8)


KINDS: Mapping[str, tuple[Callable[[Array, float, np.random.Generator], Array], tuple[float, ...]]] = {
    "gaussian_noise": (_noise, (0.08, 0.12, 0.18, 0.26, 0.38)),
    "gaussian_blur": (_blur, (1, 2, 3, 4, 6)),
    "contrast": (_contrast, (0.4, 0.3, 0.2, 0.1, 0.05)),
    "brightness": (_brightness, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "pixelate": (_pixelate, (0.6, 0.5, 0.4, 0.3, 0.25)),
    "jpeg": (_jpeg, (25, 18, 15, 10, 7)),
}


class Corrupted:
    """Images that are corrupted when they are read; each image's noise is its own, whoever reads it.

    Parameters
    ----------
    images_NHWC : uint8, may be memory-mapped.
    kind : a key of :data:`KINDS`; severity : 1 to 5.
    seed : of the noise.
    """

    def __init__(self, images_NHWC: np.ndarray, kind: str, severity: int, *, seed: int) -> None:
        self._images_NHWC, self._seed = images_NHWC, seed
        self._apply, levels = KINDS[kind]
        self._level = levels[severity - 1]
        self.shape = images_NHWC.shape

    def __len__(self) -> int:
        return len(self._images_NHWC)

    def __getitem__(self, wanted: slice) -> Array:
        """Images of a slice, uint8."""
        return np.stack([self._one(index) for index in range(*wanted.indices(len(self)))])

    def _one(self, index: int) -> Array:
        rng = np.random.default_rng(derive_seed("corrupt", self._seed, index))
        return self._apply(np.array(self._images_NHWC[index]), self._level, rng)
