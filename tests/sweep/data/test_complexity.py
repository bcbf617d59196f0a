"""Images by how far they compress."""

import numpy as np
import pytest

from sweep.data import image_complexity


def test_one_colour_is_about_nothing_noise_is_every_bit_and_half_of_it_lies_between():
    rng = np.random.default_rng(0)
    noise_NHWC = rng.integers(0, 256, (20, 64, 64, 3), dtype=np.uint8)
    half_NHWC = noise_NHWC.copy()
    half_NHWC[:, :32] = 128
    assert image_complexity(np.full_like(noise_NHWC, 7), seed=0) < 0.5
    assert image_complexity(noise_NHWC, seed=0) == pytest.approx(24, abs=0.5)
    assert image_complexity(half_NHWC, seed=0) == pytest.approx(12, abs=0.5)


def test_of_many_images_a_draw_counts_that_the_seed_decides():
    images_NHWC = np.random.default_rng(1).integers(0, 2, (600, 8, 8, 3), dtype=np.uint8) * np.uint8(255)
    images_NHWC[::2] = 0
    one, same, other = (image_complexity(images_NHWC, seed=seed) for seed in (1, 1, 2))
    assert one == same != other
