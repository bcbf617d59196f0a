"""Bytes of an image file → RGB pixels, as a viewer would show them.

- An orientation tag is applied.
- A transparent image lies on the dataset's background: white unless the config says otherwise.
- Grey values of more than 8 bits are scaled by the range of their kind: 16 bits; 32 bits where a value needs them;
  floats from 0 to 1, to 255 or to 65535, whichever holds them. Other floats have no range and count as broken.
- Of an animated image, the first frame.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from sweep.data.options import Background

SEVERAL = "several frames"  # in an image's ``info``: whether its file has
_ORIENTATION = 0x0112  # of Exif
_GREYS: dict[Background, int] = {"white": 255, "grey": 128, "black": 0}


def decode_image(content: bytes, background: Background = "white") -> Image.Image | Exception:
    """An RGB image, or what is wrong with the bytes: the caller counts and names the broken ones."""
    try:
        with _opened(content) as image:
            turned = ImageOps.exif_transpose(image) if _is_turned(image, content) else image
            shown = _to_rgb(turned, background)
            with suppress(Exception):  # of a broken second frame, which nobody asked for
                shown.info[SEVERAL] = getattr(image, "is_animated", False)
            return shown
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        return error


def limits() -> tuple[int | None, bool]:
    """What Pillow reads in this process, which a user's module may have changed: others are to read the same."""
    return Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES


def oddity(content: bytes) -> str:
    """What of an image is read otherwise than before pixels had a version: "alpha", "orientation", "range", or "".

    Nearly every file is told by its first bytes or its header; the others are decoded both ways and compared.
    """
    if _surely_plain(content):
        return ""
    try:
        with _opened(content) as image:
            kinds = {
                "orientation": _is_turned(image, content),
                "range": image.mode in ("I", "F"),
                "alpha": _has_alpha(image),  # the last: a background is part of what a key says
            }
            odd = [kind for kind, found in kinds.items() if found]
            if not odd:
                return ""
            before = _first_version(image)
    except Exception:  # broken: it has no pixels in either version
        return ""
    backgrounds: tuple[Background, ...] = ("white", "black") if "alpha" in odd else ("white",)
    now = [decode_image(content, background) for background in backgrounds]
    same = all(not isinstance(image, Exception) and np.array_equal(before, np.asarray(image)) for image in now)
    return "" if same else odd[-1]


def _surely_plain(content: bytes) -> bool:
    """Whether a JPEG or PNG shows without being opened that it has no tags, no alpha and 8 bits at most."""
    if b"Exif" in content or b"eXIf" in content or b"rientation" in content:
        return False
    if content.startswith(b"\xff\xd8"):
        return True
    is_png = content.startswith(b"\x89PNG\r\n\x1a\n") and len(content) > 26
    return is_png and content[24] <= 8 and content[25] in (0, 2, 3) and b"tRNS" not in content


@contextmanager
def _opened(content: bytes) -> Iterator[Image.Image]:
    """Without warnings: odd metadata of a readable image is nobody's business here."""
    with warnings.catch_warnings(action="ignore"):
        try:
            image = Image.open(io.BytesIO(content))
        except UnidentifiedImageError:  # whose words are the address of our buffer
            raise UnidentifiedImageError("it is no image of a kind that Pillow knows") from None
        with image:
            yield image


def _is_turned(image: Image.Image, content: bytes) -> bool:
    """Whether a tag says that the camera was held otherwise; a PNG without such a tag is not decoded to see."""
    if image.format == "PNG" and b"eXIf" not in content and b"rientation" not in content:
        return False
    return image.getexif().get(_ORIENTATION, 1) not in (0, 1)


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def _to_rgb(image: Image.Image, background: Background) -> Image.Image:
    if image.mode.startswith("I;16"):
        grey_HW = (np.asarray(image) >> 8).astype(np.uint8)
        if isinstance(clear := image.info.get("transparency"), int):  # the one value that is
            grey_HW[np.asarray(image) == clear] = _GREYS[background]
        return Image.fromarray(grey_HW).convert("RGB")
    if image.mode in ("I", "F"):
        grey_HW = _scaled_integers(image) if image.mode == "I" else _scaled_floats(np.asarray(image))
        return Image.fromarray(grey_HW).convert("RGB")
    if _has_alpha(image):
        image = image.convert("RGBA")
        under = Image.new("RGBA", image.size, (_GREYS[background],) * 3 + (255,))
        return Image.alpha_composite(under, image).convert("RGB")
    return image.convert("RGB")


_SAMPLE_FORMAT, _SIGNED = 339, 2  # of TIFF


def _scaled_integers(image: Image.Image) -> np.ndarray:
    """32-bit integers as uint8, shape (H, W): Pillow opens 16-bit PGM and PNG so; a TIFF may hold either."""
    signed_HW = np.asarray(image)
    if getattr(image, "tag_v2", {}).get(_SAMPLE_FORMAT) == (_SIGNED,) and signed_HW.min() < 0:
        raise ValueError(f"whole numbers from {signed_HW.min()} on are no grey values")
    values_HW = signed_HW.view(np.uint32)
    highest = int(values_HW.max())
    bits = 16 if image.format in ("PPM", "PNG") else next(bits for bits in (8, 16, 32) if highest < 2**bits)
    return (values_HW >> (bits - 8)).astype(np.uint8)


def _scaled_floats(values_HW: np.ndarray) -> np.ndarray:
    lowest, highest = float(values_HW.min()), float(values_HW.max())
    top = next((top for top in (1, 255, 65535) if highest <= top), None)
    if not lowest >= 0 or top is None:  # NaN fails both
        raise ValueError(f"floats from {lowest:g} to {highest:g} are no grey values: none of 0..1, 0..255, 0..65535")
    return (values_HW * (255 / top) + 0.5).astype(np.uint8)


def _first_version(image: Image.Image) -> np.ndarray:
    """The pixels of version 1, uint8 (H, W, 3): no orientation, alpha dropped, values above 255 clipped."""
    if image.mode.startswith("I;16"):
        return np.asarray(Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB"))
    return np.asarray(image.convert("RGB"))
