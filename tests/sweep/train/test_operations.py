"""RandAugment in batches: each operation against torchvision and Pillow, image by image."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torchvision.transforms import v2

from sweep.train.draws import draws
from sweep.train.operations import NAMES, OPERATION_DRAWS, operate

SPACE = v2.RandAugment._AUGMENTATION_SPACE
RULE = v2.RandAugment()
FACTOR = 0.27
PILLOW = {
    "Brightness": lambda image, sign: ImageEnhance.Brightness(image).enhance(1 + sign * FACTOR),
    "Color": lambda image, sign: ImageEnhance.Color(image).enhance(1 + sign * FACTOR),
    "Contrast": lambda image, sign: ImageEnhance.Contrast(image).enhance(1 + sign * FACTOR),
    "Sharpness": lambda image, sign: ImageEnhance.Sharpness(image).enhance(1 + sign * FACTOR),
    "Posterize": lambda image, sign: ImageOps.posterize(image, 7),
    "Solarize": lambda image, sign: ImageOps.solarize(image, 178.5),
    "AutoContrast": lambda image, sign: ImageOps.autocontrast(image),
    "Equalize": lambda image, sign: ImageOps.equalize(image),
}
EXACT = {"Posterize", "Solarize", "Equalize"}  # of whole numbers at Pillow and torchvision as well


def images(side=32):
    """Noise, dark noise, a ramp, one colour, black and white."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (3, side, side, 3))
    ramp = np.arange(side * side * 3).reshape(side, side, 3) % 256
    flat = np.broadcast_to([10, 200, 90], (side, side, 3))
    two = (rng.random((side, side, 3)) < 0.5) * 255
    found = np.stack([*noise, noise[0] // 3 + 20, ramp, flat, two]).astype(np.uint8)
    return torch.from_numpy(found)


def once(name, up):
    """Two operations: this one, then none."""
    numbers = [(NAMES.index(each) + 0.5) / len(NAMES) for each in (name, "Identity")]
    return np.array([[*numbers, 0.25 if up else 0.75, 0.5]])


def torchvisions(image_RRC, name, sign):
    magnitudes, signed = SPACE[name]
    found = magnitudes(31, *image_RRC.shape[:2])
    magnitude = 0.0 if found is None else float(found[9]) * (sign if signed else 1)
    how = {"interpolation": v2.InterpolationMode.NEAREST, "fill": RULE._fill}
    return RULE._apply_image_or_video_transform(image_RRC.permute(2, 0, 1), name, magnitude, **how).permute(1, 2, 0)


def test_operations_are_torchvisions():
    assert sorted(NAMES) == sorted(SPACE)


@pytest.mark.parametrize("up", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_each_operation_is_that_of_torchvision_and_pillow(name, up):
    before, sign = images(), 1 if up else -1
    ours = operate(before.clone(), np.tile(once(name, up), (len(before), 1)))
    for image_RRC, ours_RRC in zip(before, ours, strict=True):
        theirs_RRC = torchvisions(image_RRC, name, sign)
        bound = 0 if name in EXACT or name not in PILLOW else 1
        assert (ours_RRC.int() - theirs_RRC.int()).abs().max() <= bound
        if name in PILLOW:
            pillow = np.array(PILLOW[name](Image.fromarray(image_RRC.numpy()), sign)).astype(int)
            assert np.abs(ours_RRC.numpy() - pillow).max() <= bound


def test_two_operations_of_each_image_whatever_is_worked_on_beside():
    before = images().repeat(40, 1, 1, 1)
    uniform_BD = draws(2, np.arange(len(before)), OPERATION_DRAWS)
    together = operate(before.clone(), uniform_BD)
    for number in range(0, len(before), 3):
        part = slice(number, number + 1)
        assert torch.equal(operate(before[part].clone(), uniform_BD[part]), together[part])
        first, second = ((uniform_BD[number, slot] * len(NAMES)).astype(int) for slot in (0, 1))
        ups = uniform_BD[number, 2:] < 0.5
        twice = operate(before[part].clone(), once(NAMES[first], ups[0]))
        assert torch.equal(operate(twice, once(NAMES[second], ups[1])), together[part])
    counts = np.bincount((draws(3, np.arange(5_000), 2) * len(NAMES)).astype(int).ravel(), minlength=len(NAMES))
    assert counts == pytest.approx(10_000 / len(NAMES), rel=0.15)
