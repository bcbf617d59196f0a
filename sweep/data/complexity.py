"""How much there is in images, by how far they compress without loss: a variable of the data that no label enters.

Shapes: N images, H and W pixels.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from sweep.base.seeds import derive_seed

MOST_IMAGES = 512
_PNG_FRAME = 57  # bytes of a PNG file that are no pixels: its signature and the heads of its chunks


def image_complexity(images_NHWC: np.ndarray, *, seed: int) -> float:
    """Bits per pixel of images as PNG files: about 0 for one colour, 24 for noise.

    Parameters
    ----------
    images_NHWC : uint8, as a backbone is shown them; resizing is part of what is measured.
    seed : of the draw of at most :data:`MOST_IMAGES` images, whose mean it is.
    """
    n, height, width, _ = images_NHWC.shape
    rng = np.random.default_rng(derive_seed("complexity", seed))
    drawn = np.sort(rng.choice(n, MOST_IMAGES, replace=False)) if n > MOST_IMAGES else np.arange(n)
    sizes = []
    for index in drawn:
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(images_NHWC[index])).save(file, "PNG", compress_level=9)
        sizes.append(len(file.getvalue()) - _PNG_FRAME)
    return 8 * float(np.mean(sizes)) / (height * width)
