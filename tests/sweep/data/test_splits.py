import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweep.base.errors import UserError
from sweep.data.splits import capped, choose_classes, hold_out, subset

LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(7), [30, 31, 40, 29, 33, 35, 50]))
SEEDS = st.integers(0, 2**63 - 1)


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(1, 100), st.integers(1, 100))
def test_classes_are_nested(seed, a, b):
    few, many = (choose_classes(100, n, seed=seed) for n in sorted((a, b)))
    assert set(few) <= set(many)
    assert len(few) == min(a, b)
    assert np.all(np.diff(many) > 0)


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(1, 29), st.integers(1, 29))
def test_images_are_nested_and_stratified(seed, a, b):
    few, many = (subset(LABELS, images_per_class=n, seed=seed) for n in sorted((a, b)))
    assert set(few) <= set(many)
    assert np.bincount(LABELS[few]).tolist() == [min(a, b)] * 7
    assert np.all(np.diff(many) > 0)


def test_images_of_a_class_do_not_depend_on_the_other_classes():
    both = subset(LABELS, classes=np.array([2, 5]), images_per_class=10, seed=4)
    alone = subset(LABELS, classes=np.array([5]), images_per_class=10, seed=4)
    assert both[LABELS[both] == 5].tolist() == alone.tolist()
    assert set(LABELS[both]) == {2, 5}
    assert subset(LABELS, seed=4).tolist() == list(range(len(LABELS)))


def test_seeds_choose_differently():
    assert choose_classes(100, 10, seed=0).tolist() != choose_classes(100, 10, seed=1).tolist()
    assert subset(LABELS, images_per_class=5, seed=0).tolist() != subset(LABELS, images_per_class=5, seed=1).tolist()
    assert hold_out(LABELS, seed=0).tolist() != hold_out(LABELS, seed=1).tolist()


def test_choices_are_the_same_on_every_machine():
    """Written down once: a store made elsewhere must find the same images under the same key."""
    assert choose_classes(20, 5, seed=0).tolist() == CHOSEN_CLASSES
    assert subset(np.zeros(20, int), images_per_class=5, seed=0).tolist() == CHOSEN_IMAGES
    assert np.flatnonzero(hold_out(np.zeros(20, int), fraction=0.2, seed=0)).tolist() == HELD_OUT


CHOSEN_CLASSES = [4, 5, 15, 17, 18]
CHOSEN_IMAGES = [3, 5, 12, 16, 19]
HELD_OUT = [0, 2, 5, 15]


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.lists(st.integers(2, 40), min_size=1, max_size=6), st.floats(0.001, 0.999))
def test_held_out_part_is_stratified(seed, counts, fraction):
    labels = np.repeat(np.arange(len(counts)), counts)
    held = np.bincount(labels[hold_out(labels, fraction=fraction, seed=seed)], minlength=len(counts))
    for n_held, n in zip(held, counts, strict=True):
        assert 1 <= n_held <= n - 1
        assert abs(n_held - fraction * n) <= 1


def test_capped_keeps_small_classes_whole():
    labels = np.repeat([0, 1], [3, 10])
    assert np.bincount(labels[capped(labels, limit=5, seed=0)]).tolist() == [3, 5]
    assert set(capped(labels, limit=5, seed=0)) <= set(capped(labels, limit=8, seed=0))
    assert len(capped(labels, limit=None, seed=0)) == 13


def test_errors_name_the_class():
    with pytest.raises(UserError, match=r"class 'cat' has 29 images, 30 are asked for"):
        subset(LABELS, images_per_class=30, seed=0, class_names=["a", "b", "c", "cat", "e", "f", "g"])
    with pytest.raises(UserError, match="class 9 has 0 images"):
        subset(LABELS, classes=np.array([9]), seed=0)
    with pytest.raises(UserError, match="class 1 has a single image"):
        hold_out(np.array([0, 0, 1]), seed=0)
    with pytest.raises(UserError, match="ask for 1 to 10"):
        choose_classes(10, 11, seed=0)
