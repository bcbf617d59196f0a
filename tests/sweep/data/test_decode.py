"""Images as people have them: transparent, turned, deep, large; and which of them are read otherwise than before."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from sweep.data.decode import SEVERAL, decode_image, oddity
from sweep.data.tree import EXTENSIONS, UNREAD

RAMP_HW = np.tile(np.linspace(0, 1, 256), (32, 1))
GREY_HW = (RAMP_HW * 255).astype(np.uint8)
DEEP_HW = (RAMP_HW * 65535).astype(np.uint16)


def packed(image, kind, **more):
    out = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(out, kind, **more)
    return out.getvalue()


def drawing(mode, kind, ink=(0, 0, 0)):
    """A disc on a transparent ground whose hidden colour is the ink's."""
    image = Image.new("RGBA", (48, 48), (*ink, 0))
    ImageDraw.Draw(image).ellipse((8, 8, 40, 40), fill=(*ink, 255))
    return packed(image.quantize(8) if mode == "P" else image.convert(mode), kind)


RAMPS = {
    "8-bit PNG": packed(GREY_HW, "PNG"),
    "16-bit PNG": packed(DEEP_HW, "PNG"),
    "16-bit TIFF": packed(DEEP_HW, "TIFF"),
    "16-bit PGM": b"P5\n256 32\n65535\n" + DEEP_HW.astype(">u2").tobytes(),
    "12-bit PGM": b"P5\n256 32\n4095\n" + (RAMP_HW * 4095).astype(">u2").tobytes(),
    "integer TIFF": packed(DEEP_HW.astype(np.int32), "TIFF"),
    "32-bit TIFF": packed((RAMP_HW * (2**31 - 1)).astype(np.int32), "TIFF"),
    "float TIFF to 1": packed(RAMP_HW.astype(np.float32), "TIFF"),
    "float TIFF to 255": packed((RAMP_HW * 255).astype(np.float32), "TIFF"),
    "float TIFF to 65535": packed((RAMP_HW * 65535).astype(np.float32), "TIFF"),
}


@pytest.mark.parametrize("name", RAMPS)
def test_a_ramp_is_the_same_ramp_in_every_depth(name):
    read_HWC = np.asarray(decode_image(RAMPS[name])).astype(int)
    top = 127 if name == "32-bit TIFF" else 255  # half of the unsigned range
    assert np.abs(read_HWC[..., 0] - RAMP_HW * top).max() <= 1
    assert (read_HWC[..., 0] == read_HWC[..., 2]).all()


@pytest.mark.parametrize("values", [(-1, 1), (0, 70_000), (0, np.nan)])
def test_floats_without_a_known_range_are_broken_not_guessed(values):
    assert_no_grey_values(np.float32(values))


def test_whole_numbers_below_zero_are_broken_not_large():
    """As geographic rasters mark what is not known."""
    assert_no_grey_values(np.int32((-1, 65_535)))


def assert_no_grey_values(values):
    found = decode_image(packed(np.tile(values, (4, 2)), "TIFF"))
    assert isinstance(found, ValueError)
    assert "no grey values" in str(found)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("RGBA", "PNG"), ("LA", "PNG"), ("P", "PNG"), ("RGBA", "WEBP"), ("RGBA", "GIF"), ("RGBA", "TIFF")],
)
@pytest.mark.parametrize(("ink", "background"), [((0, 0, 0), "white"), ((255, 255, 255), "black"), ((0, 0, 0), "grey")])
def test_a_transparent_drawing_lies_on_its_background(mode, kind, ink, background):
    read_HWC = np.asarray(decode_image(drawing(mode, kind, ink), background)).astype(int)
    under = {"white": 255, "grey": 128, "black": 0}[background]
    assert np.abs(read_HWC[0, 0] - under).max() <= 2
    assert np.abs(read_HWC[24, 24] - ink[0]).max() <= 2


@pytest.mark.parametrize("background", ["white", "grey", "black"])
def test_the_clear_value_of_16_bits_is_the_background(background):
    grey_HW = np.array([[0, 7], [40_000, 65_535]], np.uint16)
    content = packed(Image.fromarray(grey_HW), "PNG", transparency=7)
    read_HW = np.asarray(decode_image(content, background))[..., 0]
    assert read_HW.tolist() == [[0, {"white": 255, "grey": 128, "black": 0}[background]], [156, 255]]
    assert oddity(content) == "alpha"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_orientation_tag_is_applied_as_viewers_do(orientation, kind):
    tags = Image.Exif()
    tags[0x0112] = orientation
    content = packed(np.random.default_rng(0).integers(0, 256, (24, 16, 3), dtype=np.uint8), kind, exif=tags)
    with Image.open(io.BytesIO(content)) as image:
        expected = ImageOps.exif_transpose(image).convert("RGB")
    assert np.array_equal(np.asarray(decode_image(content)), np.asarray(expected))
    turned = orientation > 1 and kind != "TIFF"  # Pillow has always turned those
    assert oddity(content) == ("orientation" if turned else "")


def test_an_animated_image_is_its_first_frame():
    frames = [Image.new("RGB", (6, 6), colour) for colour in ("red", "green", "blue")]
    content = packed(frames[0], "GIF", save_all=True, append_images=frames[1:])
    image = decode_image(content)
    assert (image.getpixel((0, 0)), image.info[SEVERAL]) == ((255, 0, 0), True)
    assert oddity(content) == ""
    assert not decode_image(packed(frames[0], "GIF")).info[SEVERAL]
    cut = decode_image(content[: len(content) // 2])  # whose first frame is whole
    assert cut.getpixel((0, 0)) == (255, 0, 0)


def before(content):
    """The decoder before pixels had a version, as it stood in the code."""
    with Image.open(io.BytesIO(content)) as image:
        if image.mode.startswith("I;16"):
            return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
        return image.convert("RGB")


COLOURS_HWC = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)
ORDINARY = {
    "JPEG": packed(COLOURS_HWC, "JPEG"),
    "CMYK": packed(Image.fromarray(COLOURS_HWC).convert("CMYK"), "JPEG"),
    "PNG": packed(COLOURS_HWC, "PNG"),
    "palette": packed(Image.fromarray(COLOURS_HWC).quantize(16), "PNG"),
    "bits": packed(Image.new("1", (8, 8), 1), "PNG"),
    "opaque alpha": packed(Image.fromarray(COLOURS_HWC).convert("RGBA"), "PNG"),
    "BMP": packed(COLOURS_HWC, "BMP"),
    "8 bits as integers": packed(GREY_HW.astype(np.int32), "TIFF"),
}


@pytest.mark.parametrize("name", [*ORDINARY, *RAMPS])
def test_what_is_not_odd_is_read_as_ever(name):
    """So that keys may leave the version of the pixels unsaid."""
    content = (ORDINARY | RAMPS)[name]
    same = np.array_equal(np.asarray(before(content)), np.asarray(decode_image(content)))
    assert (oddity(content) == "") == same
    assert same or name in RAMPS


@pytest.mark.parametrize("ink", [(0, 0, 0), (255, 255, 255)])
def test_alpha_is_odd_even_where_the_default_background_shows_no_difference(ink):
    assert oddity(drawing("RGBA", "PNG", ink)) == "alpha"


def test_every_ending_that_pillow_reads_is_an_image_or_known_to_be_left_out():
    Image.init()
    readable = {ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    stubs = {".bufr", ".grib", ".h5", ".hdf", ".mpg", ".mpeg"}  # identified, never read
    programs = {".eps", ".ps", ".wmf", ".emf"}  # Ghostscript, Windows
    assert readable - stubs - programs <= EXTENSIONS
    assert not EXTENSIONS & UNREAD
    assert ".mpo" in EXTENSIONS  # which Pillow opens as a JPEG, and does not list
    several = io.BytesIO()
    Image.new("RGB", (4, 4), (9, 9, 9)).save(several, "MPO", save_all=True, append_images=[Image.new("RGB", (4, 4))])
    assert decode_image(several.getvalue()).getpixel((0, 0)) == (9, 9, 9)


def test_what_is_wrong_with_bytes_is_the_same_words_every_time():
    (first, again) = (str(decode_image(b"<html>not found</html>")) for _ in range(2))
    assert first == again
    assert "0x" not in first
