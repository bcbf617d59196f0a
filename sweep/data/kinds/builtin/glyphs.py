"""Rendered glyphs: letters and digits in the fonts that ship with matplotlib.

Font, size, place, rotation, shear, colours, background and noise vary within a class.

Legend: N images, S side in pixels, U draws of an image.
"""

import functools
import hashlib
import math
import string
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sweep.data.kinds.builtin import canvas
from sweep.data.kinds.builtin.generator import Generator, image_streams
from sweep.data.options import Part

CHARACTERS = string.ascii_uppercase + string.ascii_lowercase + string.digits
_FONTS = (  # those of matplotlib's that hold every character above
    *("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSans-Oblique.ttf", "DejaVuSans-BoldOblique.ttf"),
    *("DejaVuSansMono.ttf", "DejaVuSansMono-Bold.ttf", "DejaVuSerif.ttf", "DejaVuSerif-Bold.ttf"),
    *("DejaVuSerif-Italic.ttf", "DejaVuSerif-BoldItalic.ttf", "STIXGeneral.ttf", "STIXGeneralBol.ttf"),
    *("STIXGeneralItalic.ttf", "STIXGeneralBolIta.ttf", "cmr10.ttf", "cmb10.ttf", "cmss10.ttf", "cmtt10.ttf"),
)
_HEIGHT = (0.75, 0.95)  # font size in image sides
_ROTATION, _SHEAR, _SHIFT = math.radians(8), 0.1, 0.05
_NOISE = 0.12
_OWN_DRAWS = 6


@functools.cache
def _font_paths() -> tuple[Path, ...]:
    import matplotlib  # imported here: slow, and unneeded to list the samples

    return tuple(Path(matplotlib.get_data_path(), "fonts", "ttf", name) for name in _FONTS)


@functools.cache
def fonts_digest() -> str:
    """Digest of the font files: their outlines are in the pixels."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in _font_paths())).hexdigest()


@functools.lru_cache(maxsize=8192)
def _master(font: int, character: str, em: int) -> Image.Image:
    """The glyph upright, its box centred on a square of two ems."""
    # The basic layout engine is always there; the other one depends on the machine.
    face = ImageFont.truetype(_font_paths()[font], em, layout_engine=ImageFont.Layout.BASIC)
    mask = Image.new("L", (2 * em, 2 * em))
    ImageDraw.Draw(mask).text((em, em), character, fill=255, font=face, anchor="ms")
    box = mask.getbbox()
    assert box is not None, f"{_FONTS[font]} draws nothing for {character!r}"
    centred = Image.new("L", mask.size)
    glyph = mask.crop(box)
    centred.paste(glyph, (em - glyph.width // 2, em - glyph.height // 2))
    return centred


def _alpha(character: str, u: np.ndarray, size: int) -> np.ndarray:
    """The glyph placed on the canvas: opacity in [0, 1], shape (S, S)."""
    em = size
    master = _master(int(u[0] * len(_FONTS)), character, em)
    scale = _HEIGHT[0] + (_HEIGHT[1] - _HEIGHT[0]) * u[1]
    angle, shear = _ROTATION * (2 * u[2] - 1), _SHEAR * (2 * u[3] - 1)
    shift_x, shift_y = size * (0.5 + _SHIFT * (2 * u[4:6] - 1))
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    a, b, d, e = cos + shear * sin, sin - shear * cos, -sin, cos  # canvas → master
    c, f = em - a * shift_x - b * shift_y, em - d * shift_x - e * shift_y
    placed = master.transform((size, size), Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BICUBIC)
    return np.asarray(placed, dtype=np.float32) / 255


def render(part: Part, classes_N: np.ndarray, indices_N: np.ndarray, *, size: int, seed: int) -> np.ndarray:
    """Glyph images; uint8, shape (N, S, S, 3)."""
    draws, noise, alpha = [], [], []
    streams = image_streams("glyphs", seed, part, classes_N, indices_N)
    for rng, label in zip(streams, classes_N.tolist(), strict=True):
        u = rng.random(_OWN_DRAWS + canvas.DRAWS)
        draws.append(u[_OWN_DRAWS:])
        noise.append(rng.random((size, size, 1), dtype=np.float32))
        alpha.append(_alpha(CHARACTERS[label], u[:_OWN_DRAWS], size))
    grain = 2 * _NOISE * (np.stack(noise) - 0.5)
    return canvas.paint(np.stack(draws), np.stack(alpha), grain, contrast=0.3)


GLYPHS = Generator(
    name="glyphs",
    version=1,
    render=render,
    class_name=lambda label: f"U+{ord(CHARACTERS[label]):04X}",
    classes=len(CHARACTERS),
    train_per_class=20,
    test_per_class=10,
    max_classes=len(CHARACTERS),
    ingredients=fonts_digest,
)
