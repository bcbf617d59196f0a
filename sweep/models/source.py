"""Weights as a value: where they are, what a key says of them, the pixels they expect, what they were trained on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sweep.base.errors import UserError
from sweep.data import VIEWED, Mode, View, cropped_view
from sweep.models.corpora import TrainedOn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class WeightsSource:
    """Downloaded or local weights of one architecture, resolved once and carried.

    Attributes
    ----------
    kind : timm's, torchvision's, or a file.
    name : timm's tag, torchvision's name (never an alias), or the file's whole path.
    identity : what keys hash: the tag, or the file's content, and how it is read; None while the file is not there.
    mean, std : of the pixels in [0, 1] that the weights expect.
    pixels_from : who says so, for people.
    resolution : input side they were made for, px; None where nobody says.
    crop, interpolation, mode : of their own evaluation, where somebody says (timm's ``crop_mode``).
    trained_on : None where nobody knows; no part of any key.
    key_map : regular expression → replacement, in this order.
    key : place in the file of the weights to take, where it holds several.
    """

    kind: Literal["timm", "torchvision", "file"]
    name: str
    identity: str | None = None
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    pixels_from: str = "ImageNet's, because nothing says otherwise"
    resolution: int | None = None
    crop: float | None = None
    interpolation: str | None = None
    mode: Mode = "center"
    trained_on: TrainedOn | None = None
    key_map: tuple[tuple[str, str], ...] = ()
    key: str | None = None

    @property
    def images(self) -> int | None:
        """Images that the weights were trained on, for γ; None if unknown."""
        return self.trained_on.images if self.trained_on else None

    def view(self, resolution: int) -> View | None:
        """How their own evaluation shows images, at any resolution; None where nobody says."""
        if self.crop is None or self.interpolation not in VIEWED:
            return None
        return cropped_view(resolution, self.crop, self.interpolation, self.mode, self.mean)

    def __str__(self) -> str:
        return {"timm": f"timm's {self.name}", "torchvision": f"torchvision's {self.name}"}.get(self.kind, self.name)


def shards(path: Path) -> list[Path]:
    """The files that the index of a checkpoint in parts names; none for another file.

    Raises
    ------
    UserError
        If it is called an index and is none.
    """
    if not path.name.endswith(".index.json"):
        return []
    try:
        named = json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()
        return [path.with_name(Path(name).name) for name in dict.fromkeys(named)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no index of a checkpoint in parts: it has no weight_map ({error!r})") from error
