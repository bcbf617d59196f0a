"""The version of the pixels: what keys say of it, and of which images it may be left unsaid.

Version 2 (this one) reads some images otherwise than version 1 did. A key names the version only where an image's
pixels are not those of version 1, so that results made before stay valid wherever they would come out the same.
"""

PIXELS_VERSION = 2
# Version 1 cached training images with a shorter side of 256 px at most, which is all that 224 px and less ask for.
_SAME_UP_TO = 224


def training_side(resolution: int) -> int:
    """Longest shorter side of a cached training image: four times the resolution, 256 px or 256/224 of it.

    Evaluation resizes to 256/224 × resolution ([H24] A.3); with less than that in the cache, augmented training above
    224 px would see blurred images which evaluation does not. A random crop of less than 57 % of a 4:3 image's area
    is enlarged at 224 px: in [H24], which cuts from the original file, one of a 500 px image is not.
    """
    return min(4 * resolution, max(256, round(256 / 224 * resolution)))


def training_pixels(resolution: int) -> int:
    """The version that a key of augmented training at a resolution names: 1 where pixels are as they always were."""
    return 1 if resolution <= _SAME_UP_TO else PIXELS_VERSION


def pixels_identity(odd: set[str], background: str) -> str:
    """What a dataset's key says of its pixels: nothing if version 1 read every image alike.

    Parameters
    ----------
    odd : kinds of oddities (:func:`sweep.data.decode.oddity`) among the dataset's images.
    background : what transparent images lie on.
    """
    if not odd:
        return ""
    return f"pixels {PIXELS_VERSION}" + (f" on {background}" if "alpha" in odd else "")
