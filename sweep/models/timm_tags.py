"""timm's weights without timm: which tags an architecture has, which is its default, and the pixels each expects.

``timm_tags.json`` is written by ``python -m sweep.models.tags_build``; a test holds it against the installed timm.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweep.data import Mode

FILE = Path(__file__).with_name("timm_tags.json")


@dataclass(frozen=True)
class Pixels:
    """What images weights of timm were made for: input side (px), mean and std in [0, 1], and timm's words of the crop:
    its share of the resized side, the interpolation, and ``center``, ``squash`` or ``border``.
    """

    resolution: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: float
    interpolation: str
    mode: Mode


@functools.cache
def _stored() -> dict[str, Any]:
    return json.loads(FILE.read_text(encoding="utf-8"))


def tags(architecture: str) -> tuple[str, ...]:
    """Tags of an architecture's weights, timm's default first; none where timm has no weights or no such name."""
    return tuple(_stored()["tags"].get(architecture, {}))


def default_tag(architecture: str) -> str | None:
    """The tag that timm takes where none is named."""
    return next(iter(tags(architecture)), None)


def expected_pixels(architecture: str, tag: str | None = None) -> Pixels | None:
    """What a tag expects, or without one what the architecture's own timm config says; None if timm has neither."""
    kind = _stored()["own"].get(architecture) if tag is None else _stored()["tags"].get(architecture, {}).get(tag)
    if kind is None:
        return None
    resolution, mean, std, crop, interpolation, mode = _stored()["kinds"][kind]
    return Pixels(resolution, tuple(mean), tuple(std), crop, interpolation, mode)
