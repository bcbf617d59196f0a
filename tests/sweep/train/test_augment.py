from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from sweep import register
from sweep.base.store import Store
from sweep.data import Library
from sweep.data.options import DatasetOptions
from sweep.models import Feeder
from sweep.study.keys import _pixels
from sweep.train import Workshop
from sweep.train.augment import policy
from sweep.train.weights import _training_data
from tests.sweep.study.test_grid import grid_of, make

CPU = torch.device("cpu")
SQUARE = torch.arange(3 * 32 * 32).reshape(3, 32, 32).remainder(251).to(torch.uint8)


def test_policies():
    assert {name: (policy(name).source, policy(name).operations) for name in register.OURS["augmentation"]} == {
        "off": ("evaluation", False),
        "on": ("training", False),
        "strong": ("training", True),
    }


@pytest.fixture
def ones_own(monkeypatch):
    """A plug-in's policies: of the evaluation image, and of the training image."""
    monkeypatch.setattr(register, "_REGISTERED", {})
    register.register_augmentation("invert", source="evaluation")(lambda resolution: lambda image: 255 - image)
    register.register_augmentation("corner")(lambda resolution: lambda image: image[:, :resolution, :resolution])


def test_a_policy_of_ones_own(ones_own):
    assert (policy("invert").source, policy("corner").source) == ("evaluation", "training")
    assert torch.equal(policy("invert").build(32)(SQUARE), 255 - SQUARE)


def test_training_sees_what_the_policy_says_and_keys_say_what_changed(ones_own, tmp_path):
    options = DatasetOptions(kind="builtin", generator="fractals", classes=3, train_per_class=6, test_per_class=2)
    shop = Workshop(Store(str(tmp_path)), Library({"fractals": options}, str(tmp_path / "cache")), "run", CPU)
    cell = grid_of(make()).cells[0].backbone
    feeder = Feeder((0.5,) * 3, (0.25,) * 3, device=CPU, layout=torch.channels_last)
    first, parts = {}, {}
    for name in ("off", "on", "strong", "invert", "corner"):
        backbone = replace(cell, augmentation=name, id_classes=3, images_per_class=None)
        source, *_ = _training_data(backbone, shop)
        (first[name],) = source.epoch([np.arange(5)], seed=1, feeder=feeder)
        parts[name] = _pixels(backbone)
    assert {(images.shape, images.dtype) for images in first.values()} == {((5, 32, 32, 3), torch.uint8)}
    assert torch.equal(first["invert"], 255 - first["off"])
    assert len({images.numpy().tobytes() for images in first.values()}) == 5
    new = {"crops": 2}
    assert parts == {"off": {}, "on": new, "strong": new, "invert": {"transformed": 2}, "corner": {}}


def test_crops_have_the_labels_of_their_images_where_one_is_too_long_to_evaluate(tmp_path):
    """An image of 1 × 40,000 px is broken where it is resized, and would be there to crop from."""
    for label, grey in (("ant", 50), ("bee", 200)):
        for part, count in (("train", 55), ("test", 2)):
            (tmp_path / "bugs" / part / label).mkdir(parents=True)
            for number in range(count):
                Image.new("L", (12, 12), grey).save(tmp_path / "bugs" / part / label / f"{number}.png")
    Image.new("L", (1, 40_000), 120).save(tmp_path / "bugs/train/ant/00.png")
    library = Library({"bugs": DatasetOptions("folder", path=str(tmp_path / "bugs"))}, str(tmp_path / "cache"))
    shop = Workshop(Store(str(tmp_path)), library, "run", CPU)
    cell = grid_of(make()).cells[0].backbone
    backbone = replace(cell, id_dataset="bugs", augmentation="on", id_classes=2, images_per_class=None, resolution=64)
    source, *_ = _training_data(backbone, shop)
    feeder = Feeder((0.5,) * 3, (0.25,) * 3, device=CPU, layout=torch.channels_last)
    (crops,) = source.epoch([np.arange(len(source.labels_N))], seed=1, feeder=feeder)
    assert crops.flatten(1).float().mean(1).tolist() == [(50, 200)[label] for label in source.labels_N]
