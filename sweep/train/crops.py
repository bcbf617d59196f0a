"""Random resized crops and flips of whole batches: where they lie, and how they are cut on the host.

A crop is resized as Pillow and torchvision resize uint8 images: antialiased, bicubic, columns before rows, each rounded
to uint8, with weights of 16 bits. :mod:`sweep.train.resample` does the same on a device, bit for bit.

Shapes: B images, D draws of each, R resolution, C = 3 channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

_TRIES = 10
_SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)  # torchvision's defaults, which timm shares
CROP_DRAWS = 2 * _TRIES + 3
# what F.interpolate(mode="bicubic", antialias=True) calls; its checks are a seventh of the time of a small crop
_bicubic: Callable[..., Tensor] = torch._C._nn._upsample_bicubic2d_aa


class Crops(NamedTuple):
    """A rectangle of each image, px from its top left corner, and whether it is mirrored."""

    top_B: np.ndarray
    left_B: np.ndarray
    height_B: np.ndarray
    width_B: np.ndarray
    flipped_B: np.ndarray


class Windows(NamedTuple):
    """Rectangles of uint8 (height, width, 3) pixels in one flat tensor: where each starts, bytes to the next row."""

    start_B: np.ndarray
    stride_B: np.ndarray
    height_B: np.ndarray
    width_B: np.ndarray
    flipped_B: np.ndarray


def random_crops(sizes_B2: np.ndarray, uniform_BD: np.ndarray) -> Crops:
    """Crops by the rule of torchvision's ``RandomResizedCrop`` (Szegedy et al. 2015), and a flip at even odds.

    Parameters
    ----------
    sizes_B2 : (height, width) of the images.
    uniform_BD : ``CROP_DRAWS`` numbers in [0, 1) of each image.
    """
    full_B2 = sizes_B2.astype(np.int64)
    share_BT, ratio_BT = uniform_BD[:, :_TRIES], uniform_BD[:, _TRIES : 2 * _TRIES]
    area_BT = full_B2.prod(1)[:, None] * (_SCALE[0] + share_BT * (_SCALE[1] - _SCALE[0]))
    low, high = np.log(RATIO)
    ratio_BT = np.exp(low + ratio_BT * (high - low))
    sides_BT2 = np.rint(np.sqrt(np.stack([area_BT / ratio_BT, area_BT * ratio_BT], axis=2))).astype(np.int64)
    fits_BT = ((sides_BT2 > 0) & (sides_BT2 <= full_B2[:, None])).all(2)
    tried_B2 = sides_BT2[np.arange(len(full_B2)), fits_BT.argmax(1)]
    fits_B1 = fits_BT.any(1)[:, None]
    height_width_B2 = np.where(fits_B1, tried_B2, _widest(full_B2))
    room_B2 = full_B2 - height_width_B2
    at_B2 = np.where(fits_B1, (uniform_BD[:, -3:-1] * (room_B2 + 1)).astype(np.int64), room_B2 // 2)
    (top_B, left_B), (height_B, width_B) = at_B2.T, height_width_B2.T
    return Crops(top_B, left_B, height_B, width_B, uniform_BD[:, -1] < 0.5)


def _widest(full_B2: np.ndarray) -> np.ndarray:
    """(height, width) of the largest rectangle of an allowed shape: for images so long that no try fitted."""
    height_B, width_B = full_B2.T
    ratio_B = width_B / height_B
    tall_B = np.where(ratio_B < RATIO[0], np.rint(width_B / RATIO[0]).astype(np.int64), height_B)
    wide_B = np.where(ratio_B > RATIO[1], np.rint(height_B * RATIO[1]).astype(np.int64), width_B)
    return np.stack([tall_B, wide_B], axis=1)


def windows(crops: Crops, offsets_B: np.ndarray, sizes_B2: np.ndarray) -> Windows:
    """Where crops lie in a flat tensor that holds whole images from these offsets on."""
    stride_B = 3 * sizes_B2[:, 1].astype(np.int64)
    start_B = offsets_B + crops.top_B * stride_B + 3 * crops.left_B
    return Windows(start_B, stride_B, crops.height_B, crops.width_B, crops.flipped_B)


def cut(flat: Tensor, at: Windows, side: int) -> Tensor:
    """uint8 (B, R, R, 3) of windows in host memory; one after the other, as torch's kernel of 8 bits beats a matmul."""
    found: list[Tensor] = []
    for start, stride, height, width in zip(*(each.tolist() for each in at[:4]), strict=True):
        window_1CHW = flat.as_strided((1, 3, height, width), (height * stride, 1, stride, 3), start)
        found.append(_bicubic(window_1CHW, (side, side), False, None, None))
    images_BRRC = torch.cat(found).permute(0, 2, 3, 1).contiguous()  # as they are, where the kernel keeps the layout
    flipped_B = torch.from_numpy(at.flipped_B)
    images_BRRC[flipped_B] = images_BRRC[flipped_B].flip(2)
    return images_BRRC


def packed(flat: np.ndarray, at: Windows) -> tuple[Tensor, Windows]:
    """The pixels of windows alone, one after the other, and where each lies among them."""
    stride_B = 3 * at.width_B
    bytes_B = at.height_B * stride_B
    start_B = np.cumsum(bytes_B) - bytes_B
    pixels = np.empty(int(bytes_B.sum()), np.uint8)
    flat = np.asarray(flat)
    numbers = (start_B, at.start_B, at.stride_B, at.height_B, stride_B)
    for to, start, stride, height, width in zip(*(each.tolist() for each in numbers), strict=True):
        rows = np.lib.stride_tricks.as_strided(flat[start:], (height, width), (stride, 1), writeable=False)
        pixels[to : to + height * width].reshape(height, width)[:] = rows
    return torch.from_numpy(pixels), at._replace(start_B=start_B, stride_B=stride_B)
