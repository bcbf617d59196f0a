import random

import numpy as np
import pytest
import torch

from sweep import register
from sweep.train.augment import policy

IMAGE = torch.arange(3 * 60 * 80).reshape(3, 60, 80).remainder(251).to(torch.uint8)
SQUARE = IMAGE[:, :32, :32]


def source_image(augmentation):
    return SQUARE if augmentation.source == "evaluation" else IMAGE


def augmented(name, seed, count=5):
    augmentation = policy(name)
    transform = augmentation.build(32)
    torch.manual_seed(seed)
    return torch.stack([transform(source_image(augmentation)) for _ in range(count)])


def test_policies():
    assert {name: policy(name).source for name in register.OURS["augmentation"]} == {
        "off": "evaluation",
        "on": "training",
        "strong": "training",
    }


@pytest.mark.parametrize("name", ["off", "on", "strong"])
def test_uint8_square_of_the_resolution(name):
    images = augmented(name, 0)
    assert images.shape == (5, 3, 32, 32)
    assert images.dtype == torch.uint8


def test_off_changes_nothing():
    assert torch.equal(augmented("off", 0, 1)[0], SQUARE)


@pytest.mark.parametrize("name", ["on", "strong"])
def test_torchs_default_generator_decides_alone(name):
    random.seed(0)
    np.random.seed(0)
    first = augmented(name, seed=7)
    random.seed(1)
    np.random.seed(1)
    assert torch.equal(augmented(name, seed=7), first)
    assert not torch.equal(augmented(name, seed=8), first)
    assert len(torch.unique(first, dim=0)) == 5


def test_on_crops_within_the_image_and_flips():
    torch.manual_seed(0)
    ramp = torch.arange(80).expand(3, 60, 80).to(torch.uint8)  # brightness = column
    images = [policy("on").build(32)(ramp) for _ in range(60)]
    rising = sum(bool(image[0, 0, -1] > image[0, 0, 0]) for image in images)
    assert 15 < rising < 45
    assert all(image.max() <= 79 for image in images)


def test_a_policy_of_ones_own(monkeypatch):
    monkeypatch.setattr(register, "_REGISTERED", {})

    @register.register_augmentation("invert", source="evaluation")
    def invert(resolution):
        return lambda image: 255 - image

    assert policy("invert").source == "evaluation"
    assert torch.equal(policy("invert").build(32)(SQUARE), 255 - SQUARE)
