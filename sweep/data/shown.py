"""An image as a view shows it, with PIL alone: processes that decode know no torch.

Legend: H height, W width of an original, R resolution in pixels.
"""

from __future__ import annotations

from PIL import Image

from sweep.data.pixels import training_side
from sweep.data.view import View

_INTERPOLATIONS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_MAX_PIXELS = 178_956_970  # of a resized image: as many as Pillow agrees to open


def resize_shorter_side(image: Image.Image, side: int, interpolation: str = "bicubic") -> Image.Image:
    """Antialiased, aspect kept (the longer side rounded down, as torchvision does)."""
    shorter = min(image.size)
    width, height = (side if length == shorter else int(side * length / shorter) for length in image.size)
    return _resized(image, width, height, interpolation)


def _resized(image: Image.Image, width: int, height: int, interpolation: str) -> Image.Image:
    if image.size == (width, height):
        return image
    if width * height > _MAX_PIXELS:
        raise ValueError(f"{image.width} × {image.height} px would be resized to {width:,} × {height:,}")
    return image.resize((width, height), _INTERPOLATIONS[interpolation])


def evaluation_view(image: Image.Image, view: View) -> Image.Image:
    """An image as a view shows it: resized, then the centred square, rounded as torchvision and timm round."""
    if view.mode == "squash":
        resized = _resized(image, view.side, view.side, view.interpolation)
    elif view.mode == "border":
        ratio = max(image.size) / view.side
        width, height = (max(1, round(length / ratio)) for length in image.size)
        resized = _resized(image, width, height, view.interpolation)
    else:
        resized = resize_shorter_side(image, view.side, view.interpolation)
    return _centre(resized, view.resolution, view.fill)


def _centre(image: Image.Image, side: int, fill: tuple[int, int, int]) -> Image.Image:
    """The centred square; an image that is smaller lies on a colour first."""
    width, height = image.size
    if min(width, height) < side:
        padded = Image.new("RGB", (max(width, side), max(height, side)), fill)
        padded.paste(image, (max(side - width, 0) // 2, max(side - height, 0) // 2))
        image = padded
    left, top = (round((length - side) / 2) for length in image.size)
    return image.crop((left, top, left + side, top + side))


def training_view(image: Image.Image, resolution: int) -> Image.Image:
    """Shorter side to at most :func:`sweep.data.pixels.training_side`; never enlarged."""
    return resize_shorter_side(image, min(min(image.size), training_side(resolution)))
