"""Crops of a whole batch resized on a device as two matmuls per image, in whole numbers, or by kernels of Triton's.

Pixels have 8 bits and weights 16; each weight is split in two bytes, so that every product and sum is a whole number
that float32 holds, whatever the order of the sums and also where matmuls read no more than 8 bits of a number
(bfloat16, TF32). The pixels are those of torch's kernel on the host (:func:`sweep.train.crops.cut`), bit for bit, and
so are those of :mod:`sweep.train.kernels`, which take a tenth of the time where Triton works.

Shapes: B images, H and W the largest window, R resolution, C = 3 channels, L lengths, K weights of a pixel.
"""

from __future__ import annotations

import functools
import logging
import math
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from sweep.models import resident
from sweep.train.crops import RATIO, Windows

log = logging.getLogger(__name__)

_CUBIC = -0.5  # Keys' a, as Pillow and torch have it where they antialias
_REACH = 2.0  # source pixels on either side
_MOST_BITS = 22
_CHUNK = 2**24  # numbers of a matmul's result at a time, so that memory does not grow with the batch
_LINES = 2**28  # bytes between the two kernels, likewise


def weights_of(length: int, side: int) -> tuple[np.ndarray, np.ndarray, int]:
    """First source pixel (R,), int weights (R, K) and their bits, of a line of so many pixels resized to another.

    Keys' cubic (1981), stretched where the line is shortened, as Pillow and torch compute it in float64.
    """
    scale = length / side
    stretch = max(scale, 1.0)
    centre_R = scale * (np.arange(side) + 0.5)
    first_R = np.maximum((centre_R - _REACH * stretch + 0.5).astype(np.int64), 0)
    last_R = np.minimum((centre_R + _REACH * stretch + 0.5).astype(np.int64), length)
    at_RK = first_R[:, None] + np.arange(math.ceil(_REACH * stretch) * 2 + 1)
    weight_RK = _cubic((at_RK - centre_R[:, None] + 0.5) * (1 / stretch)) * (at_RK < last_R[:, None])
    weight_RK /= weight_RK.sum(1, keepdims=True)
    bits = next(
        n for n in range(_MOST_BITS + 1) if int(0.5 + weight_RK.max() * 2 ** (n + 1)) >= 2**15 or n == _MOST_BITS
    )
    scaled_RK = weight_RK * 2**bits
    return first_R, np.trunc(scaled_RK + np.copysign(0.5, scaled_RK)).astype(np.int64), bits


def longest_window(sizes_N2: np.ndarray) -> int:
    """The most px that a side of a crop of these images may have: by its share of the area, or by the image's side."""
    most_N = np.sqrt(sizes_N2.astype(np.int64).prod(1) * RATIO[1]) + 1
    return int(np.minimum(most_N, sizes_N2.max(1)).max())


def _cubic(distance: np.ndarray) -> np.ndarray:
    x, a = np.abs(distance), _CUBIC
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


@functools.cache
def kernels_on(device: torch.device) -> ModuleType | None:
    """The kernels that cut and resize on a device; None where matmuls do, with the same pixels."""
    if device.type != "cuda":
        return None
    try:
        from sweep.train import kernels

        works = kernels.work(device)
    except Exception as error:  # whatever a compiler may say
        log.info("crops are resized by matmuls, more slowly: Triton does not work here (%s)", error)
        return None
    return kernels if works else None


class Resampler:
    """The weights of all lengths up to a longest one, on a device.

    Parameters
    ----------
    longest : px, of a window.
    side : R.
    """

    def __init__(self, longest: int, side: int, device: torch.device) -> None:
        self.side, self.device = side, device
        found = [weights_of(length, side) for length in range(1, longest + 1)]
        taps = max(weight_RK.shape[1] for _, weight_RK, _ in found)
        weight_LRK = np.zeros((longest, side, taps), np.float32)
        for weight_RK, (_, own_RK, _) in zip(weight_LRK, found, strict=True):
            weight_RK[:, : own_RK.shape[1]] = own_RK
        self._first_LR = torch.from_numpy(np.stack([first_R for first_R, _, _ in found])).to(device)
        self._weight_LRK = torch.from_numpy(weight_LRK).to(device)
        self._bits_L = torch.tensor([bits for _, _, bits in found], dtype=torch.int32, device=device)
        taps_L = torch.tensor([own_RK.shape[1] for _, own_RK, _ in found], dtype=torch.int32, device=device)
        self._kernels = kernels_on(device)
        self._tables = self._first_LR.int(), self._weight_LRK.int(), self._bits_L, taps_L

    def cut(self, flat: Tensor, at: Windows) -> Tensor:
        """uint8 (B, R, R, 3) of windows in a flat uint8 tensor on the device."""
        numbers_5B = resident(np.stack([*at[:4], at.flipped_B]).astype(np.int64), self.device)
        tall, wide = int(at.height_B.max()), int(at.width_B.max())
        if self._kernels is not None:
            tables = self._kernels.Tables(*self._tables)
            parts = numbers_5B.tensor_split(-(-len(at.start_B) * tall * 3 * self.side // _LINES), dim=1)
            return torch.cat([self._kernels.cut(flat, part.contiguous(), tables, tall=tall) for part in parts])
        each = 3 * max(wide, 2 * self.side) * max(tall, self.side)
        parts = numbers_5B.tensor_split(-(-len(at.start_B) * each // _CHUNK), dim=1)
        return torch.cat([self._cut(flat, part, tall, wide) for part in parts])

    def _cut(self, flat: Tensor, at_5B: Tensor, tall: int, wide: int) -> Tensor:
        start_B, stride_B, height_B, width_B, flipped_B = at_5B
        y_H = torch.arange(tall, device=self.device).minimum((height_B - 1)[:, None])  # beyond the window: its rim, × 0
        x_W = torch.arange(wide, device=self.device).minimum((width_B - 1)[:, None])
        row_BH, column_BW = start_B[:, None] + y_H * stride_B[:, None], 3 * x_W
        channel_C = torch.arange(3, device=self.device)
        at_BWHC = column_BW[:, :, None, None] + row_BH[:, None, :, None] + channel_C
        window_BWX = flat[at_BWHC].flatten(2)
        columns_BRX = self._resized(window_BWX, width_B, flipped_B > 0)
        across_BHX = columns_BRX.unflatten(2, (tall, 3)).transpose(1, 2).flatten(2)
        return self._resized(across_BHX, height_B, torch.zeros_like(flipped_B) > 0).unflatten(2, (self.side, 3))

    def _resized(self, lines_BWX: Tensor, length_B: Tensor, flipped_B: Tensor) -> Tensor:
        """uint8 (B, R, X) of uint8 (B, W, X): the second axis resized from each image's own length, and mirrored."""
        high_BRW, low_BRW = self._dense(length_B, flipped_B, lines_BWX.shape[1])
        pixels_BWX = lines_BWX.float()
        with torch.autocast(self.device.type, enabled=False):
            high_BRX, low_BRX = (high_BRW @ pixels_BWX).int(), (low_BRW @ pixels_BWX).int()
        bits_B11 = self._bits_L[length_B - 1][:, None, None]
        sums_BRX = high_BRX.mul_(256).add_(low_BRX).add_(1 << (bits_B11 - 1))
        return (sums_BRX >> bits_B11).clamp_(0, 255).to(torch.uint8)

    def _dense(self, length_B: Tensor, flipped_B: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """Weights (B, R, W) as their high and low bytes: w = 256 high + low."""
        out_R = torch.arange(self.side, device=self.device)
        out_BR = torch.where(flipped_B[:, None], self.side - 1 - out_R, out_R)
        chosen = (length_B - 1)[:, None], out_BR
        weight_BRK = self._weight_LRK[chosen]
        at_BRK = self._first_LR[chosen][..., None] + torch.arange(weight_BRK.shape[2], device=self.device)
        room = torch.zeros((*out_BR.shape, width + weight_BRK.shape[2]), device=self.device)
        dense_BRW = room.scatter_(2, at_BRK, weight_BRK)[..., :width]
        high_BRW = (dense_BRW / 256).floor()
        return high_BRW, dense_BRW - 256 * high_BRW
