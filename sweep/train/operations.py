"""RandAugment (Cubuk et al. 2020) on whole batches: two operations an image, at magnitude 9 of 31, as torchvision's.

Images with the same operation are worked on together, in whole numbers, so that pixels depend neither on the batch nor
on the device. Moved pixels are torchvision's; colours follow Pillow's definitions and differ from Pillow's and
torchvision's by one level of 255 at most, where these compute in float32.

Shapes: B images, G of them with one operation or kind of it, M moves, R resolution, C = 3 channels, P = R² pixels,
X = P C numbers, L = 256 levels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as moves

from sweep.models import resident

_SLOTS = 2
OPERATION_DRAWS = 2 * _SLOTS
_SHARE = 9 / 30  # magnitude 9 of bins 0 to 30
_PERCENT = 27  # 0.9 × share: brightness, colour, contrast and sharpness go to 73 or 127 %
_BITS = 7  # 8 − 4 × share, rounded
_BRIGHT = 179  # above 255 × (1 − share)

Levels = Callable[[Tensor], Tensor]  # uint8 (G, R, R, 3) → the same


def operate(images_BRRC: Tensor, uniform_BD: np.ndarray) -> Tensor:
    """The uint8 images after two operations each, drawn by ``OPERATION_DRAWS`` numbers in [0, 1) of each image."""
    number_BS = (uniform_BD[:, :_SLOTS] * len(NAMES)).astype(np.int64)
    up_BS = uniform_BD[:, _SLOTS:] < 0.5
    for number_B, up_B in zip(number_BS.T, up_BS.T, strict=True):
        _operated(images_BRRC, number_B, up_B)
    return images_BRRC


def _operated(images_BRRC: Tensor, number_B: np.ndarray, up_B: np.ndarray) -> None:
    """One operation of each image, in place: all moves at once, all blends, and then each other operation."""
    device, order_B = images_BRRC.device, np.argsort(number_B, kind="stable")
    at_B = resident(order_B, device)
    ends = [0, *np.cumsum(np.bincount(number_B, minlength=len(NAMES))).tolist()]
    blends, levels = len(_MOVES), len(_MOVES) + len(_DULLER)

    def change(start: int, end: int, operation: Callable[[Tensor], Tensor]) -> None:
        """These images of the order by what an operation makes of them."""
        if end > start:
            at_G = at_B[start:end]
            images_BRRC.index_copy_(0, at_G, operation(images_BRRC.index_select(0, at_G)))

    def move(images_GRRC: Tensor) -> Tensor:
        moved = order_B[: ends[blends]]
        return _moved(images_GRRC, resident(2 * number_B[moved] + up_B[moved], device))

    def blend(images_GRRC: Tensor) -> Tensor:
        sizes, up_G = np.diff(ends[blends : levels + 1]).tolist(), up_B[order_B[ends[blends] : ends[levels]]]
        return _blended(images_GRRC, sizes, resident(np.where(up_G, 100 + _PERCENT, 100 - _PERCENT), device))

    change(0, ends[blends], move)
    change(ends[blends], ends[levels], blend)
    for number, level in enumerate(_LEVELS.values(), levels):
        change(ends[number], ends[number + 1], level)


def _moved(images_GRRC: Tensor, move_G: Tensor) -> Tensor:
    """Each number of an image from where its move has it from, black from outside."""
    from_MX, inside_MX = _origins(images_GRRC.shape[1], images_GRRC.device)
    moved_GX = images_GRRC.flatten(1).gather(1, from_MX.index_select(0, move_G))
    return moved_GX.mul_(inside_MX.index_select(0, move_G)).view_as(images_GRRC)


@cache
def _origins(side: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Where each number comes from by each move, down and up, and whether from within: read off an image of numbers
    that torchvision moved.
    """
    numbers_1RR = torch.arange(1, side * side + 1, dtype=torch.float32).view(1, side, side)
    moved_MP = torch.stack([move(numbers_1RR, sign).flatten() for move in _MOVES.values() for sign in (-1, 1)]).long()
    from_MPC = 3 * (moved_MP - 1).clamp_(min=0)[..., None] + torch.arange(3)
    inside_MPC = (moved_MP > 0).to(torch.uint8)[..., None].expand_as(from_MPC)
    return from_MPC.flatten(1).to(device), inside_MPC.flatten(1).to(device)


def _affine(image_1RR: Tensor, *, shear: list[float] | None = None, translate: list[int] | None = None) -> Tensor:
    centre = {"center": [0, 0]} if shear else {}
    found: Tensor = moves.affine(
        image_1RR, angle=0.0, translate=translate or [0, 0], scale=1.0, shear=shear or [0.0, 0.0], **centre
    )
    return found


def _shear(sign: int) -> float:
    return math.degrees(math.atan(sign * 0.3 * _SHARE))


def _shift(image_1RR: Tensor, sign: int) -> int:
    return int(sign * 150 / 331 * image_1RR.shape[1] * _SHARE)


_MOVES: Mapping[str, Callable[[Tensor, int], Tensor]] = {
    "ShearX": lambda image, sign: _affine(image, shear=[_shear(sign), 0.0]),
    "ShearY": lambda image, sign: _affine(image, shear=[0.0, _shear(sign)]),
    "TranslateX": lambda image, sign: _affine(image, translate=[_shift(image, sign), 0]),
    "TranslateY": lambda image, sign: _affine(image, translate=[0, _shift(image, sign)]),
    "Rotate": lambda image, sign: moves.rotate(image, sign * 30 * _SHARE),
}


def _divided(sums: Tensor, by: Tensor | float) -> Tensor:
    """Whole numbers divided and rounded down, in place, however the device rounds quotients."""
    return sums.add_(0.5).div_(by).floor_()


def _bytes(levels: Tensor) -> Tensor:
    """Whole numbers from 0 to 255 as uint8; by way of int16 a CPU takes a quarter of the time."""
    return levels.to(torch.int16).to(torch.uint8)


def _blended(images_GRRC: Tensor, sizes: Sequence[int], percent_G: Tensor) -> Tensor:
    """So many percent of the images and what is missing to 100 of something duller, within 0 to 255.

    Parameters
    ----------
    sizes : how many images each of :data:`_DULLER` has, one after the other.
    """
    bright = images_GRRC.float()
    dull = torch.zeros_like(bright)
    for duller, part, into in zip(_DULLER.values(), bright.split(sizes), dull.split(sizes), strict=True):
        if len(part):
            duller(part, into)
    sums = (bright - dull).mul_(percent_G[:, None, None, None]).add_(dull, alpha=100)
    return _bytes(_divided(sums.clamp_(0, 25500), 100))


def _black(_bright: Tensor, _dull: Tensor) -> None:
    """Brightness: against nothing."""


def _grey(bright: Tensor) -> Tensor:
    """Luma (G, R, R, 1) by ITU-R 601-2 in 16 bits, as Pillow converts to "L"."""
    red, green, blue = bright.split(1, dim=3)
    return (19595 * red).add_(green, alpha=38470).add_(blue, alpha=7471).add_(32768).mul_(2.0**-16).floor_()


def _greys(bright: Tensor, dull: Tensor) -> None:
    """Colour: against each pixel's grey."""
    dull.copy_(_grey(bright).expand_as(dull))


def _mean_grey(bright: Tensor, dull: Tensor) -> None:
    """Contrast: against an image's mean grey."""
    total_G, count = _grey(bright).long().sum((1, 2, 3)), bright.shape[1] ** 2
    mean_G = torch.div(2 * total_G + count, 2 * count, rounding_mode="floor")
    dull.copy_(mean_G[:, None, None, None].expand_as(dull))


def _smooth(bright: Tensor, dull: Tensor) -> None:
    """Sharpness: against the mean of 3 × 3 pixels in which the one in the middle counts five times; the rim stays."""
    dull.copy_(bright)
    rows = (bright[:, :-2] + bright[:, 1:-1]).add_(bright[:, 2:])
    sums = (rows[:, :, :-2] + rows[:, :, 1:-1]).add_(rows[:, :, 2:]).add_(bright[:, 1:-1, 1:-1], alpha=4)
    dull[:, 1:-1, 1:-1] = _divided(sums.mul_(2).add_(13), 26)


def _posterize(images_GRRC: Tensor) -> Tensor:
    return images_GRRC & (256 - 2 ** (8 - _BITS))


def _solarize(images_GRRC: Tensor) -> Tensor:
    return images_GRRC ^ (images_GRRC >= _BRIGHT).to(torch.uint8).mul_(255)


def _autocontrast(images_GRRC: Tensor) -> Tensor:
    """Each channel from its darkest pixel to its brightest."""
    planes_GCP = _planes(images_GRRC)
    dark_GC1, bright_GC1 = planes_GCP.amin(2, keepdim=True).float(), planes_GCP.amax(2, keepdim=True).float()
    flat_GC1 = dark_GC1 == bright_GC1
    span_GC1 = (bright_GC1 - dark_GC1).masked_fill_(flat_GC1, 255)
    level_L = torch.arange(256, dtype=torch.float32, device=planes_GCP.device)
    sums_GCL = (level_L - dark_GC1.masked_fill_(flat_GC1, 0)).mul_(255)
    return _looked_up(planes_GCP, _divided(sums_GCL, span_GC1).clamp_(0, 255), images_GRRC)


def _equalize(images_GRRC: Tensor) -> Tensor:
    """Each channel's levels by how many pixels are darker, in steps of whole pixels, as Pillow counts them.

    Counts are whole numbers that float32 divides exactly enough up to 2,890 px a side.
    """
    planes_GCP = _planes(images_GRRC)
    count_GCL = torch.zeros((*planes_GCP.shape[:2], 256), device=planes_GCP.device)
    count_GCL.scatter_add_(2, planes_GCP.long(), torch.ones_like(planes_GCP, dtype=torch.float32))
    brightest_GC1 = count_GCL.gather(2, planes_GCP.amax(2, keepdim=True).long())
    step_GC1 = _divided(planes_GCP.shape[2] - brightest_GC1, 255)
    darker_GCL = count_GCL.int().cumsum(2) - count_GCL  # whole: on a GPU, sums of floats in a row have no fixed order
    spread_GCL = _divided(darker_GCL.add_(_divided(step_GC1.clone(), 2)), step_GC1.clamp(min=1)).clamp_(max=255)
    level_L = torch.arange(256, dtype=torch.float32, device=planes_GCP.device)
    return _looked_up(planes_GCP, torch.where(step_GC1 > 0, spread_GCL, level_L), images_GRRC)


def _planes(images_GRRC: Tensor) -> Tensor:
    """Each channel's pixels one after the other (G, C, P), which are looked through faster."""
    return images_GRRC.flatten(1, 2).transpose(1, 2).contiguous()


def _looked_up(planes_GCP: Tensor, table_GCL: Tensor, like_GRRC: Tensor) -> Tensor:
    """The images with each channel's levels replaced by those of its table."""
    made_GCP = _bytes(table_GCL).gather(2, planes_GCP.long())
    return made_GCP.transpose(1, 2).reshape(like_GRRC.shape)


_DULLER: Mapping[str, Callable[[Tensor, Tensor], None]] = {
    "Brightness": _black,
    "Color": _greys,
    "Contrast": _mean_grey,
    "Sharpness": _smooth,
}
_LEVELS: Mapping[str, Levels] = {
    "Posterize": _posterize,
    "Solarize": _solarize,
    "AutoContrast": _autocontrast,
    "Equalize": _equalize,
}
NAMES = (*_MOVES, *_DULLER, *_LEVELS, "Identity")
