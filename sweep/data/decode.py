"""Bytes of an image file → pixels."""

import io
import warnings

import numpy as np
from PIL import Image


def decode_image(content: bytes) -> Image.Image | Exception:
    """An RGB image, or what is wrong with the bytes: the caller counts and names the broken ones."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata of a readable image is nobody's business here
            with Image.open(io.BytesIO(content)) as image:
                if image.mode.startswith("I;16"):  # PIL would clip 16 bits to white
                    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
                return image.convert("RGB")
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        return error
