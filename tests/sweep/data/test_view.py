"""How images are resized and cropped, against timm's and torchvision's own evaluation transforms."""

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform
from torchvision.models import get_weight
from torchvision.transforms.functional import pil_to_tensor

from sweep.data.shown import evaluation_view
from sweep.data.view import View, cropped_view, exact_view, study_view
from sweep.models.timm_tags import _stored

SHAPES = ((90, 60), (57, 143), (64, 64), (20, 31))


def picture(size):
    """An image with detail at all scales, (width, height)."""
    pixels = np.random.default_rng(sum(size)).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    smooth = Image.fromarray(pixels).resize((size[0] // 5 + 1, size[1] // 5 + 1)).resize(size)
    return Image.fromarray((np.asarray(smooth) // 2 + pixels // 2).astype(np.uint8))


def test_every_kind_of_timms_weights_is_shown_images_as_timm_shows_them():
    kinds = {(crop, interpolation, mode, tuple(mean)) for _, mean, _, crop, interpolation, mode in _stored()["kinds"]}
    assert {mode for _, _, mode, _ in kinds} == {"center", "squash", "border"}
    for number, (crop, interpolation, mode, mean) in enumerate(sorted(kinds)):
        for resolution in (64, 97):
            transform = create_transform(
                (3, resolution, resolution), is_training=False, use_prefetcher=True, interpolation=interpolation,
                mean=mean, std=mean, crop_pct=crop, crop_mode=mode,
            )  # fmt: skip
            image = picture(SHAPES[number % len(SHAPES)])
            view = cropped_view(resolution, crop, interpolation, mode, mean)
            theirs = torch.as_tensor(np.asarray(transform(image))).numpy()
            ours = np.asarray(evaluation_view(image, view)).transpose(2, 0, 1)
            assert np.array_equal(ours, theirs), (crop, interpolation, mode, resolution, image.size)


@pytest.mark.parametrize("name", ["ResNet50_Weights.IMAGENET1K_V2", "EfficientNet_B0_Weights.IMAGENET1K_V1"])
def test_torchvisions_weights_too(name):
    theirs = get_weight(name).transforms()
    crop = theirs.crop_size[0] / theirs.resize_size[0]
    view = cropped_view(theirs.crop_size[0], crop, theirs.interpolation.value, "center", tuple(theirs.mean))
    assert view.side == theirs.resize_size[0]
    image = picture((300, 260))
    mean_3, std_3 = (torch.tensor(each).view(3, 1, 1) for each in (theirs.mean, theirs.std))
    expected = (theirs(image) * std_3 + mean_3) * 255
    assert (pil_to_tensor(evaluation_view(image, view)) - expected).abs().max() < 0.51


def test_the_exact_view_of_an_image_of_its_size_is_the_image():
    image = picture((32, 32))
    assert np.array_equal(evaluation_view(image, exact_view(32)), np.asarray(image))
    assert evaluation_view(picture((50, 32)), exact_view(32)).size == (32, 32)


def test_views_that_show_the_same_are_the_same_to_keys_and_the_studys_is_nothing_to_them():
    assert study_view(224).identity == ""
    assert cropped_view(224, 0.875, "bicubic", "center", (0.5,) * 3).identity == ""  # 256 px, as the study's
    assert cropped_view(96, 0.875, "bicubic", "center", (0.5,) * 3).identity == "109 bicubic center"  # the study's: 110
    assert exact_view(32) == cropped_view(32, 1.0, "bicubic", "center", (0.1,) * 3)
    assert exact_view(32).identity == "32 bicubic center"
    padded = (View(32, 32, mode="border", fill=(c, c, c)).identity for c in (0, 1))
    assert len(set(padded)) == 2
