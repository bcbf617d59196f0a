"""RandAugment (Cubuk et al. 2020) on whole batches: two operations an image, at magnitude 9 of 31, as torchvision's.

Images with the same operation are worked on together, in whole numbers, so that pixels depend neither on the batch nor
on the device. Moved pixels are torchvision's; colours follow Pillow's definitions and differ from Pillow's and
torchvision's by one level of 255 at most, where these compute in float32.

Shapes: G images of one operation, R resolution, C = 3 channels, P = R² pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
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
_BRIGHT = 178.5  # 255 × (1 − share)

Colour = Callable[[Tensor, Tensor], Tensor]  # uint8 (G, R, R, 3), percent (G, 1, 1, 1) → numbers 0 to 255 like it


def operate(images_BRRC: Tensor, uniform_BD: np.ndarray) -> Tensor:
    """The uint8 images after two operations each, drawn by ``OPERATION_DRAWS`` numbers in [0, 1) of each image."""
    number_BS = (uniform_BD[:, :_SLOTS] * len(NAMES)).astype(np.int64)
    up_BS = uniform_BD[:, _SLOTS:] < 0.5
    for number_B, up_B in zip(number_BS.T, up_BS.T, strict=True):
        _operated(images_BRRC, number_B, up_B)
    return images_BRRC


def _operated(images_BRRC: Tensor, number_B: np.ndarray, up_B: np.ndarray) -> None:
    """One operation of each image, in place."""
    group_B = 2 * number_B + (up_B & (number_B < len(_MOVES)))
    order_B = np.argsort(group_B, kind="stable")
    groups, sizes = np.unique(group_B, return_counts=True)
    device = images_BRRC.device
    order = resident(order_B, device).split(sizes.tolist())
    percent = resident(np.where(up_B, 100 + _PERCENT, 100 - _PERCENT)[order_B], device).split(sizes.tolist())
    for group, at_G, percent_G in zip(groups.tolist(), order, percent, strict=True):
        name, up = NAMES[group // 2], group % 2 == 1
        if name == "Identity":
            continue
        chosen_GRRC = images_BRRC[at_G]
        if name in _MOVES:
            images_BRRC[at_G] = _moved(chosen_GRRC, name, up)
        else:
            made = _COLOURS[name](chosen_GRRC, percent_G[:, None, None, None])
            images_BRRC[at_G] = made.to(torch.uint8)


def _moved(images_GRRC: Tensor, name: str, up: bool) -> Tensor:
    """Each pixel from where the operation has it from, black from outside."""
    from_P, inside_P1 = _origins(name, up, images_GRRC.shape[1], images_GRRC.device)
    return (images_GRRC.flatten(1, 2).index_select(1, from_P) * inside_P1).view_as(images_GRRC)


@cache
def _origins(name: str, up: bool, side: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Where each pixel comes from, and whether from within: read off an image of numbers that torchvision moved."""
    numbers_1RR = torch.arange(1, side * side + 1, dtype=torch.float32).view(1, side, side)
    moved_P = _MOVES[name](numbers_1RR, 1 if up else -1).flatten().long()
    return (moved_P - 1).clamp_(min=0).to(device), (moved_P > 0).to(torch.uint8)[:, None].to(device)


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
    """Whole numbers divided and rounded down, however the device rounds quotients."""
    return ((sums + 0.5) / by).floor_()


def _blended(images_GRRC: Tensor, dull: Tensor, percent_G111: Tensor) -> Tensor:
    """So many percent of the images and what is missing to 100 of something duller, within 0 to 255."""
    bright = images_GRRC.float()
    sums = (bright - dull) * percent_G111 + 100 * dull
    return _divided(sums.clamp_(0, 25500), 100)


def _grey(images_GRRC: Tensor) -> Tensor:
    """Luma (G, R, R, 1) by ITU-R 601-2 in 16 bits, as Pillow converts to "L"."""
    red, green, blue = images_GRRC.float().split(1, dim=3)
    return ((19595 * red + 38470 * green + 7471 * blue + 32768) * 2.0**-16).floor_()


def _brightness(images_GRRC: Tensor, percent_G111: Tensor) -> Tensor:
    return _blended(images_GRRC, torch.zeros((), device=images_GRRC.device), percent_G111)


def _colour(images_GRRC: Tensor, percent_G111: Tensor) -> Tensor:
    return _blended(images_GRRC, _grey(images_GRRC), percent_G111)


def _contrast(images_GRRC: Tensor, percent_G111: Tensor) -> Tensor:
    total_G, count = _grey(images_GRRC).long().sum((1, 2, 3)), images_GRRC.shape[1] ** 2
    mean_G = torch.div(2 * total_G + count, 2 * count, rounding_mode="floor")
    return _blended(images_GRRC, mean_G.float()[:, None, None, None], percent_G111)


def _sharpness(images_GRRC: Tensor, percent_G111: Tensor) -> Tensor:
    """Against the mean of 3 × 3 pixels in which the one in the middle counts five times; the rim stays."""
    images = images_GRRC.float()
    smooth = images.clone()
    rows = images[:, :-2] + images[:, 1:-1] + images[:, 2:]
    sums = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:] + 4 * images[:, 1:-1, 1:-1]
    smooth[:, 1:-1, 1:-1] = _divided(2 * sums + 13, 26)
    return _blended(images_GRRC, smooth, percent_G111)


def _posterize(images_GRRC: Tensor, _percent: Tensor) -> Tensor:
    return images_GRRC & (256 - 2 ** (8 - _BITS))


def _solarize(images_GRRC: Tensor, _percent: Tensor) -> Tensor:
    return torch.where(images_GRRC >= _BRIGHT, 255 - images_GRRC, images_GRRC)


def _autocontrast(images_GRRC: Tensor, _percent: Tensor) -> Tensor:
    """Each channel from its darkest pixel to its brightest."""
    planes_GCP = images_GRRC.flatten(1, 2).transpose(1, 2).contiguous()  # looked through faster
    dark, bright = (each_GC[:, None, None, :].float() for each_GC in (planes_GCP.amin(2), planes_GCP.amax(2)))
    images = images_GRRC.float()
    stretched = _divided((images - dark) * 255, (bright - dark).clamp_(min=1))
    return torch.where(bright > dark, stretched, images)


def _equalize(images_GRRC: Tensor, _percent: Tensor) -> Tensor:
    """Each channel's levels by how many pixels are darker, in steps of whole pixels, as Pillow counts them."""
    level_GCP = images_GRRC.flatten(1, 2).transpose(1, 2).long()
    ones = torch.ones_like(level_GCP)
    count_GCL = torch.zeros((*level_GCP.shape[:2], 256), dtype=torch.int64, device=level_GCP.device)
    count_GCL.scatter_add_(2, level_GCP, ones)
    brightest = count_GCL.gather(2, level_GCP.amax(2, keepdim=True))
    step = torch.div(level_GCP.shape[2] - brightest, 255, rounding_mode="floor")
    darker_GCL = count_GCL.cumsum(2) - count_GCL
    spread_GCL = torch.div(darker_GCL + step // 2, step.clamp(min=1), rounding_mode="floor").clamp_(max=255)
    made_GCP = torch.where(step > 0, spread_GCL.gather(2, level_GCP), level_GCP)
    return made_GCP.transpose(1, 2).unflatten(1, images_GRRC.shape[1:3])


_COLOURS: Mapping[str, Colour] = {
    "Brightness": _brightness,
    "Color": _colour,
    "Contrast": _contrast,
    "Sharpness": _sharpness,
    "Posterize": _posterize,
    "Solarize": _solarize,
    "AutoContrast": _autocontrast,
    "Equalize": _equalize,
}
NAMES = (*_MOVES, *_COLOURS, "Identity")
