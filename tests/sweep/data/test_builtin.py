import hashlib
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from sweep import register
from sweep.base.errors import UserError
from sweep.data.open import fingerprint, open_dataset
from sweep.data.options import DatasetOptions

NAMES = ["digits", "fractals", "glyphs", "gratings"]
SMALL = {"classes": 3, "train_per_class": 4, "test_per_class": 2}


def opened(tmp_path, generator, **options):
    options = DatasetOptions("builtin", generator=generator, **options)
    return open_dataset(generator, options, cache_dir=tmp_path)


def pixels(split, indices=None):
    indices = range(len(split)) if indices is None else indices
    return np.stack([np.asarray(image) for _, image in split.read_many(indices)])


@pytest.mark.parametrize("name", NAMES)
def test_listing_matches_what_was_asked(tmp_path, name):
    data = opened(tmp_path, name, **SMALL)
    assert len(data.class_names) == len(set(data.class_names)) == 3
    assert data.train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert data.test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    names = data.train.names + data.test.names
    assert len(set(names)) == len(names)
    side = register.find_ours("dataset", name).size
    assert pixels(data.train).shape == (12, side, side, 3)


@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_the_same_in_any_batch_and_whatever_the_counts(tmp_path, name):
    small = opened(tmp_path, name, **SMALL)
    large = opened(tmp_path, name, classes=5, train_per_class=7, test_per_class=3)
    assert np.array_equal(pixels(small.train), pixels(large.train, [7 * c + i for c in range(3) for i in range(4)]))
    assert np.array_equal(pixels(small.test), pixels(large.test, [3 * c + i for c in range(3) for i in range(2)]))
    assert np.array_equal(np.asarray(small.train.read(9)), pixels(small.train)[9])
    assert [index for index, _ in small.train.read_many([5, 2])] == [5, 2]


@pytest.mark.parametrize("name", NAMES)
def test_all_images_differ_and_the_seed_matters(tmp_path, name):
    data = opened(tmp_path, name, classes=10, train_per_class=30, test_per_class=30)
    images = np.concatenate([pixels(data.train), pixels(data.test)])
    assert len({image.tobytes() for image in images}) == len(images)
    other = opened(tmp_path, name, classes=10, train_per_class=30, test_per_class=30, seed=1)
    assert not np.array_equal(pixels(data.train), pixels(other.train))
    assert data.fingerprint != other.fingerprint


def test_another_process_draws_the_same_pixels(tmp_path):
    code = (
        "import sys, hashlib, numpy as np; from pathlib import Path;"
        "from sweep.data import DatasetOptions, open_dataset\n"
        "for name in sys.argv[1:]:\n"
        "    options = DatasetOptions('builtin', generator=name, classes=3, train_per_class=4, test_per_class=2)\n"
        "    split = open_dataset(name, options, cache_dir=Path('unused')).train\n"
        "    print(hashlib.sha256(b''.join(i.tobytes() for _, i in split.read_many(range(12)))).hexdigest())"
    )
    done = subprocess.run([sys.executable, "-c", code, *NAMES], capture_output=True, text=True, check=True)
    here = [hashlib.sha256(pixels(opened(tmp_path, name, **SMALL).train).tobytes()).hexdigest() for name in NAMES]
    assert done.stdout.split() == here


@pytest.mark.parametrize("size", [16, 32, 100])
@pytest.mark.parametrize("name", ["fractals", "glyphs", "gratings"])
def test_any_size(tmp_path, name, size):
    images = pixels(opened(tmp_path, name, size=size, **SMALL).train)
    assert images.shape == (12, size, size, 3)
    assert images.std(axis=(1, 2, 3)).min() > 5  # no empty picture


@pytest.mark.parametrize("name", ["fractals", "glyphs", "gratings"])
def test_mean_colour_does_not_tell_the_class(tmp_path, name):
    data = opened(tmp_path, name, classes=2, train_per_class=300, test_per_class=1)
    colour = pixels(data.train).mean(axis=(1, 2))
    by_class = colour.reshape(2, 300, 3)
    separation = np.abs(by_class[0].mean(axis=0) - by_class[1].mean(axis=0)) / colour.std(axis=0)
    assert separation.max() < 0.35  # in standard deviations


def test_fingerprint_follows_every_option_and_not_the_name(tmp_path):
    base = DatasetOptions("builtin", generator="gratings", **SMALL)
    changes = [{"classes": 4}, {"train_per_class": 5}, {"test_per_class": 3}, {"size": 32}, {"seed": 1}]
    others = [replace(base, **change) for change in [*changes, {"generator": "glyphs"}]]
    prints = [fingerprint("a", options, cache_dir=tmp_path) for options in [base, *others]]
    assert len(set(prints)) == len(prints)
    assert fingerprint("b", base, cache_dir=tmp_path) == prints[0]
    spelled_out = replace(base, size=64)  # the default
    assert fingerprint("a", spelled_out, cache_dir=tmp_path) == prints[0]


# Mean brightness of each class' first image. Change it only together with the generator's version: stores made
# before would otherwise mix with new images under one key.
BRIGHTNESS = {
    ("digits", 1): [92.1, 68.0, 81.7],
    ("fractals", 1): [204.2, 213.8, 171.2],
    ("glyphs", 1): [56.1, 43.7, 74.4],
    ("gratings", 1): [123.9, 160.5, 126.7],
}


@pytest.mark.parametrize("name", NAMES)
def test_pixels_stay_what_they_were(tmp_path, name):
    data = opened(tmp_path, name, classes=3, train_per_class=1, test_per_class=1)
    expected = BRIGHTNESS[name, register.find_ours("dataset", name).version]
    assert pixels(data.train).mean(axis=(1, 2, 3)) == pytest.approx(expected, abs=0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"generator": "fractal"}, "valid generators: digits, fractals, glyphs, gratings"),
        ({"generator": "glyphs", "classes": 63}, "63 classes asked for, it has 62"),
        ({"generator": "digits", "train_per_class": 150, "test_per_class": 60}, "smallest class has 174"),
        ({"generator": "digits", "size": 16}, "leave size out"),
        ({"generator": "gratings", "train_per_class": 0}, "at least 1"),
    ],
)
def test_impossible_options_are_explained(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        opened(tmp_path, **options)


def test_options_import_nothing_heavy():
    code = "import sys, sweep.data.options; print(sorted({'numpy', 'torch', 'PIL'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
