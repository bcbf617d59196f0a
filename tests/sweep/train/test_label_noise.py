"""Labels that ID training is told wrongly."""

import numpy as np
import pytest

from sweep.train.weights import with_noise
from tests.sweep.study.test_grid import grid_of, keys, make


def test_so_many_labels_are_another_class_and_each_of_the_others_equally_often():
    labels_N = np.arange(20_000) % 5
    noisy_N = with_noise(labels_N, 0.3, 5, ("images", 0))
    wrong_N = noisy_N != labels_N
    assert wrong_N.mean() == pytest.approx(0.3, abs=0.015)
    steps = (noisy_N - labels_N)[wrong_N] % 5
    assert np.bincount(steps, minlength=5)[1:] / len(steps) == pytest.approx([0.25] * 4, abs=0.02)
    assert (with_noise(labels_N, 1.0, 5, ("images", 0)) != labels_N).all()
    assert with_noise(labels_N, 0.0, 5, ("images", 0)) is labels_N


def test_more_noise_keeps_what_was_wrong_and_another_replicate_draws_anew():
    labels_N = np.arange(500) % 7
    little_N, much_N = (with_noise(labels_N, share, 7, ("images", 1)) for share in (0.2, 0.6))
    wrong_N = little_N != labels_N
    assert (much_N[wrong_N] == little_N[wrong_N]).all()
    assert (with_noise(labels_N, 0.2, 7, ("images", 2)) != little_N).any()


def test_noise_is_a_variable_of_the_grid_and_none_of_it_leaves_keys_alone():
    block = {"architecture": "vggm11", "id_dataset": "cifar10"}
    plain = [planned.key for cell in keys().cells(grid_of(make(grid=[block]))) for planned in cell.curves]
    noisy = keys().cells(grid_of(make(grid=[block | {"label_noise": [0.0, 0.2]}])))
    assert [planned.key for planned in noisy[0].curves] == plain
    assert len({cell.run for cell in noisy}) == 2
