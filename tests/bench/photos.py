"""Pictures like photographs, made on the fly: structure of every size, the coarse the stronger; JPEG of 70 kB."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

SIZE = (375, 500)  # height and width of a typical photograph of ImageNet


def photograph(seed: int, size: tuple[int, int] = SIZE) -> Image.Image:
    """Noise of every octave, stronger by a quarter than that of the next smaller one; brightness more than colour."""
    rng, (height, width) = np.random.default_rng(seed), size
    total_HW3 = np.full((height, width, 3), 118.0)
    for octave in range(9):
        scale = 2**octave
        small = rng.normal(size=(-(-height // scale), -(-width // scale), 3))
        small = 0.75 * small.mean(axis=2, keepdims=True) * 3**0.5 + 0.25 * small
        channels = [
            Image.fromarray(small[..., c].astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
            for c in range(3)
        ]
        total_HW3 += 24 * 2 ** ((octave - 6) / 3) * np.stack([np.asarray(channel) for channel in channels], axis=2)
    return Image.fromarray(total_HW3.clip(0, 255).astype(np.uint8))


def jpeg(image: Image.Image, quality: int = 92) -> bytes:
    """The picture as a file's bytes."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
