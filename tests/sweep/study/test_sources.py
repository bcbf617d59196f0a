"""Weights that a config names, resolved: aliases, content, pixels, and what they were trained on (γ)."""

import json

import pytest
import timm

from sweep import commands
from sweep.config.schema import Config, WeightsEntry
from sweep.models import facts
from sweep.study.columns import derived
from sweep.study.costs import id_images
from sweep.study.grid import Sizes, expand
from sweep.study.keys import Keyring
from sweep.study.plan import render_plan
from sweep.study.sources import known_corpora, source_of, weights_source

DINOV2 = "vit_base_patch14_dinov2"


def make(architecture, pretraining, weights=None, root=None, **block):
    grid = [{"architecture": architecture, "id_dataset": "fractals", "pretraining": pretraining, **block}]
    return Config.model_validate({"name": "t", "grid": grid, "weights": weights or {}, "data_root": root and str(root)})


def backbones(config):
    return [cell.backbone for cell in expand(config, lambda _name: Sizes(10, 100, 50)).cells]


def key(backbone):
    return Keyring(data={"fractals": "f"}, split_seed=0, holdout=0.1, rank_threshold=1e-3).weights(backbone)


def gamma(config):
    (backbone,) = backbones(config)
    return derived(backbone, id_images(config, backbone))["overparametrization"]


# --------------------------------------------------------------------------------------- what they were trained on


def test_gamma_is_of_the_weights_own_corpus_not_of_the_id_dataset():
    assert gamma(make(DINOV2, "lvd142m", resolution=518)) == pytest.approx(0.6, abs=0.02)  # 86.6 M / 142 M
    assert gamma(make("convnext_base", "fb_in22k_ft_in1k", resolution=224)) == pytest.approx(6.2, abs=0.05)
    assert gamma(make("convnext_base", "fb_in1k", resolution=224)) == pytest.approx(88.6e6 / 1_281_167, rel=0.02)


@pytest.mark.parametrize(
    ("said", "images", "corpus"),
    [
        (5000, 5000, "lvd142m"),  # a number corrects the images alone
        ("cifar10", 50_000, "cifar10"),
        ("imagenet21k", 14_197_122, "imagenet21k"),
        ({"corpus": "mine", "images": 7}, 7, "mine"),
        ({"classes": 3}, 142_000_000, "lvd142m"),
    ],
)
def test_a_user_states_or_corrects_it_for_any_weights_and_nothing_is_recomputed(said, images, corpus):
    entry = {"timm": "lvd142m", "trained_on": said}
    (corrected,) = backbones(make(DINOV2, "mine", {"mine": entry}, resolution=518))
    (plain,) = backbones(make(DINOV2, "lvd142m", resolution=518))
    assert (corrected.weights.images, corrected.weights.trained_on.corpus) == (images, corpus)
    assert key(corrected) == key(plain)


def test_weights_of_an_unknown_corpus_have_no_gamma_and_the_plan_says_so(tmp_path):
    (tmp_path / "w.pt").write_bytes(b"weights")
    config = make("resnet50", "mine", {"mine": {"path": "w.pt"}}, tmp_path, resolution=224)
    assert gamma(config) is None
    grid = expand(config, lambda _name: Sizes(10, 100, 50))
    text = " ".join(render_plan(config, grid, done=None, why_unknown="", out="o").split())
    assert "how many images these weights were trained on is not known: mine of resnet50" in text
    stated = make("resnet50", "mine", {"mine": {"path": "w.pt", "trained_on": "imagenet1k"}}, tmp_path, resolution=224)
    assert gamma(stated) == pytest.approx(25.6e6 / 1_281_167, rel=0.1)
    assert "is not known" not in render_plan(stated, expand(stated, grid_sizes), done=None, why_unknown="", out="o")


def grid_sizes(_name):
    return Sizes(10, 100, 50)


def test_a_dataset_of_the_program_may_be_named_as_corpus():
    assert known_corpora()["cifar10"].classes == 10
    assert known_corpora()["imagenet1k"].images == 1_281_167  # its training set, not the 50 per class of the probes


# ------------------------------------------------------------------------------------------------------ aliases


@pytest.mark.parametrize("architecture", ["convnext_base", "vit_tiny_patch16_224", "resnet18"])
def test_timm_is_the_default_tag_in_column_key_and_rules(architecture):
    tag = timm.get_pretrained_cfg(architecture).tag
    config = make(architecture, ["timm", tag], resolution=224)
    grid = expand(config, grid_sizes)
    (backbone,) = (cell.backbone for cell in grid.cells)
    assert (backbone.pretraining, grid.merged) == (tag, 1)
    assert backbone.weights.identity == tag
    rule = [{"when": {"pretraining": "timm"}, "probe": {"lr": 0.5}}]
    ruled = config.model_validate(config.model_dump(exclude_unset=True) | {"rules": rule})
    assert expand(ruled, grid_sizes).cells[0].curves[0].probe.lr == 0.5


def test_torchvisions_default_is_what_it_stands_for():
    alias, named = (
        source_of(WeightsEntry(torchvision=f"ResNet50_Weights.{name}"), "resnet50")
        for name in ("DEFAULT", "IMAGENET1K_V2")
    )
    assert alias == named
    assert named.identity == "torchvision:ResNet50_Weights.IMAGENET1K_V2"


def test_native_is_the_resolution_of_the_tag():
    config = make("convnext_base", ["fb_in22k_ft_in1k", "fb_in22k_ft_in1k_384"], resolution="native")
    assert [backbone.resolution for backbone in backbones(config)] == [224, 384]


# --------------------------------------------------------------------------------------------------------- keys


def test_keys_of_explicit_tags_and_files_are_those_of_older_stores(tmp_path):
    """Written down before weights became a value."""
    (tmp_path / "a.pt").write_bytes(b"0123456789" * 100)
    entries = {
        "mine": {"path": "a.pt"},
        "mapped": {"path": "a.pt", "key_map": {"^a": "b"}},
        "normed": {"path": "a.pt", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
        "tv": {"torchvision": "ResNet50_Weights.IMAGENET1K_V2"},
    }
    config = make("resnet50", ["a1_in1k", *entries, "scratch"], entries, tmp_path, resolution=224)
    found = {backbone.pretraining: key(backbone) for backbone in backbones(config)}
    assert found == {
        "a1_in1k": "451c2948908830737f49",
        "mine": "58ab9103a420d9af3e65",
        "mapped": "e44ab7cc22f2a4f02f54",
        "normed": "4f516796ef559e074683",
        "tv": "53059aa5f264ec2da211",
        "scratch": "ca680e122ea7a77074e1",
    }
    config = make("vit_base_patch16_224", ["dino", "normed"], entries, tmp_path, resolution=224)
    assert [key(b) for b in backbones(config)] == ["0d096380a98078208a50", "d10bcd3699ff31f58fe8"]


def test_pixels_that_were_not_imagenets_make_another_key(tmp_path):
    """The numbers change for a file without mean and std where timm's config has others than was assumed."""
    (tmp_path / "a.pt").write_bytes(b"0123456789" * 100)
    said = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    entries = {"mine": {"path": "a.pt"}, "said": {"path": "a.pt", **said}}
    config = make("vit_base_patch16_224", ["mine", "said"], entries, tmp_path, resolution=224)
    silent, stated = backbones(config)
    assert silent.weights.mean == stated.weights.mean == (0.5, 0.5, 0.5)
    assert key(silent) == key(stated)


def test_averaged_weights_make_another_key_than_raw_ones_did(tmp_path):
    """They are taken first now, where the raw ones were."""
    plain, averaged = tmp_path / "a.pt", tmp_path / "b.pt"
    plain.write_bytes(b"x" * (1 << 22))
    averaged.write_bytes(b"x" * ((1 << 22) - 5) + b"state_dict_ema")  # over the border of two pieces
    assert not source_of(WeightsEntry(path=str(plain)), "resnet50").identity.endswith("averaged")
    assert source_of(WeightsEntry(path=str(averaged)), "resnet50").identity.endswith("averaged")
    named = source_of(WeightsEntry(path=str(averaged), key="state_dict"), "resnet50")
    assert json.loads("{" + named.identity.partition("{")[2]) == {"key": "state_dict"}


def test_every_part_of_a_checkpoint_counts(tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}))
    (tmp_path / "one.safetensors").write_bytes(b"1")
    assert source_of(WeightsEntry(path=str(index)), "resnet50").identity is None
    (tmp_path / "two.safetensors").write_bytes(b"2")
    before = source_of(WeightsEntry(path=str(index)), "resnet50").identity
    (tmp_path / "two.safetensors").write_bytes(b"22")
    assert None not in (before, source_of(WeightsEntry(path=str(index)), "resnet50").identity)
    assert source_of(WeightsEntry(path=str(index)), "resnet50").identity != before


def test_one_entry_may_serve_several_architectures(tmp_path):
    for name in ("resnet18", "resnet50"):
        (tmp_path / f"{name}.pt").write_bytes(name.encode())
    entry = {"path": {"resnet18": "resnet18.pt", "resnet50": "resnet50.pt"}}
    config = make(["resnet18", "resnet50"], "mine", {"mine": entry}, tmp_path, resolution=224)
    assert [b.weights.name for b in backbones(config)] == [str(tmp_path / f"{n}.pt") for n in ("resnet18", "resnet50")]
    assert weights_source(config, "resnet18", "scratch") is None


# --------------------------------------------------------------------------------------------- a file that is missing


def test_a_plan_without_the_checkpoint_file_answers_in_words(tmp_path):
    config = make("resnet18", "mine", {"mine": {"path": "away.pt"}}, tmp_path, resolution=64, id_classes=3)
    small = {"fractals": {"classes": 3, "train_per_class": 4, "test_per_class": 2}}
    config = Config.model_validate(config.model_dump(exclude_unset=True) | {"datasets": small})
    text = commands.plan(config, str(tmp_path / "out"))
    missing = tmp_path / "away.pt"
    assert f"already done: not known (weights mine: no such checkpoint file: {missing})" in text


def test_default_tags_are_valid_weights():
    assert facts.architecture("convnext_base").weights[0] == "fb_in22k_ft_in1k"
