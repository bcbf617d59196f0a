"""How images are brought to a backbone's resolution for evaluation: values, without numpy, PIL or torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, cast

Mode = Literal["center", "squash", "border"]
STUDY, EXACT = "study", "exact"
VIEWED = ("bicubic", "bilinear")  # interpolations that a view may have


@dataclass(frozen=True)
class View:
    """A resize and a centred square crop.

    Attributes
    ----------
    resolution : side of the square, px.
    side : what is resized to, px: the shorter side in mode ``center``, both in ``squash``, the longer in ``border``.
    interpolation : ``bicubic`` or ``bilinear``, antialiased.
    mode : as timm has it; ``border`` pads what is missing, and loses no part of the image.
    fill : colour of what is padded, 0 to 255.
    """

    resolution: int
    side: int
    interpolation: str = "bicubic"
    mode: Mode = "center"
    fill: tuple[int, int, int] = (0, 0, 0)

    @property
    def identity(self) -> str:
        """What keys and the image cache say of it; nothing for the study's, so that their keys stay as they were."""
        if self == study_view(self.resolution):
            return ""
        padded = self.mode == "border" or self.side < self.resolution
        colour = f" on {','.join(map(str, self.fill))}" if padded else ""
        return f"{self.side} {self.interpolation} {self.mode}{colour}"

    def __str__(self) -> str:
        how = {"center": "shorter side", "squash": "both sides", "border": "longer side"}[self.mode]
        return f"{how} to {self.side} px, {self.interpolation}, centre {self.resolution} px"


def study_view(resolution: int) -> View:
    """Shorter side to 256/224 × resolution, bicubic, then the centre square. [H24] A.3."""
    return View(resolution, round(256 / 224 * resolution))


def exact_view(resolution: int) -> View:
    """Shorter side to the resolution, bicubic: nothing is enlarged beyond it, and of a square image nothing is lost."""
    return View(resolution, resolution)


def named_view(name: str, resolution: int) -> View:
    """``study``, ``exact``, or one by its numbers, as :class:`sweep.config.Zoom` writes it: ``resize 1.1 center``."""
    if name in (STUDY, EXACT):
        return (study_view if name == STUDY else exact_view)(resolution)
    _, resize, mode = name.split()
    return View(resolution, max(1, round(float(resize) * resolution)), mode=cast(Mode, mode))


def cropped_view(resolution: int, crop: float, interpolation: str, mode: Mode, mean: tuple[float, ...]) -> View:
    """That of timm's ``transforms_imagenet_eval``: resized to resolution / crop, rounded down.

    Parameters
    ----------
    crop : side of the crop as a share of the resized image's; above 1 the image is padded.
    mean : colour of the padding in mode ``border``, in [0, 1]; that of ``center`` is black.
    """
    side = math.floor(resolution / crop + 1e-6)  # 224 / (224 / 232) is to be 232
    red, green, blue = (round(255 * value) for value in mean) if mode == "border" else (0, 0, 0)
    return View(resolution, side, interpolation, mode, (red, green, blue))
