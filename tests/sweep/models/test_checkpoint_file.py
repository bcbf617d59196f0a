"""Checkpoints as people have them: every usual kind as a generated file, loaded through the front door."""

import argparse
import io
import json
import pathlib
import pickle
import re
from collections import OrderedDict, defaultdict

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from timm.layers import resample_abs_pos_embed

from sweep.base.errors import UserError
from sweep.config.schema import WeightsEntry
from sweep.models.build import build_backbone, classes_in_file, classifier_names, match_weights
from sweep.models.checkpoint_file import read_checkpoint
from sweep.study.sources import source_of

LAST = "layer4.0.conv1.weight"


@pytest.fixture(scope="module")
def plain():
    torch.manual_seed(0)
    return timm.create_model("test_resnet", num_classes=11).state_dict()


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(0)
    return timm.create_model("test_vit", num_classes=11).eval()


def averaged(state):
    return {name: value + 0.25 if value.is_floating_point() else value for name, value in state.items()}


def halves(state):
    return {name: value.bfloat16() if value.is_floating_point() else value for name, value in state.items()}


def under(prefix, state):
    return {prefix + name: value for name, value in state.items()}


def source(path, architecture="test_resnet", **entry):
    return source_of(WeightsEntry(path=str(path), **entry), architecture)


def loaded(path, **entry):
    """The last convolution, as it comes out of the front door."""
    return build_backbone("test_resnet", classes=3, resolution=64, weights=source(path, **entry)).state_dict()[LAST]


WRAPPED = {
    "plain": lambda s: s,
    "an ordered dictionary": OrderedDict,
    "DDP": lambda s: under("module.", s),
    "DDP around torch.compile": lambda s: under("module._orig_mod.", s),
    "torch.compile around DDP": lambda s: under("_orig_mod.module.", s),
    "timm": lambda s: {"epoch": 3, "arch": "x", "state_dict": s, "metric": 71.2, "version": 2},
    "ImageNet example": lambda s: {"state_dict": under("module.", s), "best_acc1": np.float64(71.2)},
    "numpy array and dtype": lambda s: {"state_dict": s, "curve": np.arange(3), "kind": np.dtype("float32")},
    "MAE, DeiT": lambda s: {"model": s, "args": argparse.Namespace(lr=1e-3, output_dir=pathlib.PosixPath("/x"))},
    "with an optimizer": lambda s: {"model": s, "optimizer": adam(s), "lr_scheduler": {"last_epoch": 3}},
    "nested": lambda s: {"model": {"state_dict": s}},
    "PyTorch's tutorial": lambda s: {"model_state_dict": s, "epoch": 1, "loss": torch.tensor(0.3)},
    "pytorch-cifar": lambda s: {"net": under("module.", s), "acc": 91.2},
    "a name of one's own": lambda s: {"my_weights": s, "history": defaultdict(list)},
    "tensors and epoch side by side": lambda s: {**s, "epoch": 3},
    "DINO": lambda s: {"student": averaged(s), "teacher": s, "dino_loss": {"center": torch.zeros(1, 99)}},
    "YOLO": lambda s: {"model": s, "ema": averaged(s)},
}


def adam(state):
    weights = [torch.nn.Parameter(value.clone()) for value in state.values() if value.is_floating_point()]
    optimizer = torch.optim.Adam(weights)
    sum(weight.sum() for weight in weights).backward()
    optimizer.step()
    return optimizer.state_dict()


@pytest.mark.parametrize("kind", WRAPPED)
def test_wrappers_are_seen_through(tmp_path, plain, kind):
    torch.save(WRAPPED[kind](plain), tmp_path / "w.pt")
    torch.testing.assert_close(loaded(tmp_path / "w.pt"), plain[LAST])


@pytest.mark.parametrize("ending", ["pth", "pth.tar", "th", "pt", "bin", "ckpt"])
@pytest.mark.parametrize("zipped", [True, False])
def test_endings_do_not_matter(tmp_path, plain, ending, zipped):
    torch.save({"state_dict": plain}, tmp_path / f"w.{ending}", _use_new_zipfile_serialization=zipped)
    torch.testing.assert_close(loaded(tmp_path / f"w.{ending}"), plain[LAST])


@pytest.mark.parametrize("name", ["w.safetensors", "w.bin"])
def test_safetensors_and_half_precision(tmp_path, plain, name):
    safetensors.torch.save_file(halves(plain), tmp_path / name)
    found = loaded(tmp_path / name)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, plain[LAST], atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_a_checkpoint_in_parts(tmp_path, plain, ending):
    names = sorted(plain)
    parts = {f"model-{n:05}-of-00002.{ending}": names[n - 1 :: 2] for n in (1, 2)}
    for part, held in parts.items():
        content = {name: plain[name] for name in held}
        save = safetensors.torch.save_file if ending == "safetensors" else torch.save
        save(content, tmp_path / part)
    index = tmp_path / f"model.{ending}.index.json"
    index.write_text(
        json.dumps({"metadata": {}, "weight_map": {n: part for part, held in parts.items() for n in held}})
    )
    torch.testing.assert_close(loaded(index), plain[LAST])
    found = match_weights("test_resnet", source(tmp_path / next(iter(parts))), resolution=64)
    assert not found.fits


@pytest.mark.parametrize(("raw", "smooth"), [("state_dict", "state_dict_ema"), ("model", "model_ema")])
def test_averaged_weights_are_taken_as_timm_takes_them_and_both_are_named(tmp_path, plain, raw, smooth):
    torch.save({raw: plain, smooth: averaged(plain), "epoch": 2}, tmp_path / "w.pt")
    timms = timm.models.load_state_dict(str(tmp_path / "w.pt"), use_ema=True)
    torch.testing.assert_close(loaded(tmp_path / "w.pt"), timms[LAST])
    torch.testing.assert_close(loaded(tmp_path / "w.pt", key=raw), plain[LAST])
    report = match_weights("test_resnet", source(tmp_path / "w.pt"), resolution=64).report()
    assert f"the file's {smooth} was taken; it also holds {raw} (key: chooses)" in report


def test_a_place_may_lie_deep(tmp_path, plain):
    """VISSL's: a key map of one line."""
    trunk = {"trunk": under("_feature_blocks.", plain), "heads": {"0.weight": torch.zeros(50, 50)}}
    vissl = {"classy_state_dict": {"base_model": {"model": trunk, "meta": {}}, "optimizer": adam(plain)}}
    torch.save(vissl, tmp_path / "w.torch")
    torch.testing.assert_close(loaded(tmp_path / "w.torch", key_map={r"^_feature_blocks\.": ""}), plain[LAST])
    found = read_checkpoint(tmp_path / "w.torch")
    assert found.place == "classy_state_dict.base_model.model.trunk"


def test_several_places_that_nobody_knows_are_named(tmp_path, plain):
    torch.save({"online": plain, "target_net": averaged(plain)}, tmp_path / "w.pt")
    with pytest.raises(UserError, match="several places: online, target_net; say which with key:"):
        loaded(tmp_path / "w.pt")
    torch.testing.assert_close(loaded(tmp_path / "w.pt", key="online"), plain[LAST])
    with pytest.raises(UserError, match=r"has no offline: offline is not there; its keys are online, target_net"):
        loaded(tmp_path / "w.pt", key="offline")


def test_lightnings_prefix_takes_one_line(tmp_path, plain):
    torch.save({"state_dict": under("model.", plain), "pytorch-lightning_version": "2.1"}, tmp_path / "w.ckpt")
    report = match_weights("test_resnet", source(tmp_path / "w.ckpt"), resolution=64).report()
    assert r"key_map: {'^model\.': ''} would drop it" in report
    torch.testing.assert_close(loaded(tmp_path / "w.ckpt", key_map={r"^model\.": ""}), plain[LAST])


# --------------------------------------------------------------------------------------------------- what is refused


class Trainer:
    """A class of someone's program."""


def test_other_classes_are_refused_by_name_with_a_way_out(tmp_path, plain):
    torch.save({"model": plain, "trainer": Trainer()}, tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"it holds [\w.]*Trainer, which is no tensor.*weights_only=False"):
        loaded(tmp_path / "w.pt")


def test_a_whole_module_is_refused_by_name(tmp_path):
    torch.save(torch.nn.Sequential(torch.nn.Linear(2, 2)), tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"it holds torch\.nn\.modules\.container\.Sequential"):
        loaded(tmp_path / "w.pt")


def saved(content):
    data = io.BytesIO()
    torch.save(content, data)
    return data.getvalue()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "Git LFS pointer.*git lfs pull"),
        (b"<!DOCTYPE html><html><body>log in</body></html>", "is a web page"),
        (saved([1, 2]), "holds no state dict of tensors: it is a list"),
        (saved({"lr": 0.1, "epoch": 3}), "its keys are lr, epoch"),
        (b"\x80\x02garbage", "cannot be read as weights"),
        (pickle.dumps({"lr": 0.1}, protocol=4), "cannot be read as weights: UnpicklingError: Unsupported operand"),
        (b"", "cannot be read as weights"),
    ],
    ids=["LFS", "page", "list", "numbers", "garbage", "pickle 4", "empty"],
)
def test_what_is_no_checkpoint_is_called_what_it_is(tmp_path, content, expected):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(UserError, match=expected):
        loaded(tmp_path / "w.pth")


def test_numbered_tensors_are_called_that(tmp_path):
    torch.save({0: torch.ones(3), 1: torch.ones(2)}, tmp_path / "c.pt")
    with pytest.raises(UserError, match=r"holds tensors under 0, 1, which are no names .*state_dict\(\)"):
        read_checkpoint(tmp_path / "c.pt")


# ------------------------------------------------------------------------------------------ timm's own conversions


@pytest.mark.parametrize("side", [64, 224])
def test_positions_are_resampled_by_timms_own_function(tmp_path, vit, side):
    torch.save(vit.state_dict(), tmp_path / "w.pt")
    found = build_backbone("test_vit", classes=11, resolution=side, weights=source(tmp_path / "w.pt", "test_vit"))
    prefix = vit.num_prefix_tokens if not vit.no_embed_class else 0
    expected = resample_abs_pos_embed(vit.pos_embed, [side // 16] * 2, num_prefix_tokens=prefix)
    torch.testing.assert_close(found.pos_embed, expected)
    report = match_weights("test_vit", source(tmp_path / "w.pt", "test_vit"), resolution=side).report()
    assert re.search(r"resampled by timm's own function: pos_embed \(1, \d+, 64\) → \(1, \d+, 64\)", report)
    same = match_weights("test_vit", source(tmp_path / "w.pt", "test_vit"), resolution=160)
    assert (same.fits, same.notes) == (True, ())


def test_published_names_of_convnext_are_timms_business(tmp_path):
    """Facebook's names; the converted network gives what the original does."""
    torch.manual_seed(0)
    own = timm.create_model("test_convnext", num_classes=5).eval()
    theirs = {"norm.weight": own.head.norm.weight, "norm.bias": own.head.norm.bias, "head.weight": own.head.fc.weight,
              "head.bias": own.head.fc.bias}  # fmt: skip
    for name, value in own.state_dict().items():
        if not name.startswith("head."):
            name = re.sub(r"stages\.(\d)\.downsample\.", r"downsample_layers.\1.", name)
            name = re.sub(r"stages\.(\d)\.blocks\.(\d+)", r"stages.\1.\2", name).replace(
                "stem.", "downsample_layers.0."
            )
            theirs[re.sub(r"mlp\.fc(\d)", r"pwconv\1", name.replace("conv_dw", "dwconv"))] = value
    torch.save({"model": theirs}, tmp_path / "w.pth")
    weights = source(tmp_path / "w.pth", "test_convnext")
    found = build_backbone("test_convnext", classes=5, resolution=64, weights=weights).eval()
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(found(images), own(images))
    assert "renamed by timm's own function" in match_weights("test_convnext", weights, resolution=64).report()


# ------------------------------------------------------------------------------------------------------------- heads


@pytest.mark.parametrize("architecture", ["deit_tiny_distilled_patch16_224", "efficientformer_l1", "levit_128s"])
def test_any_classifier_may_have_another_number_of_classes(tmp_path, architecture):
    torch.save(timm.create_model(architecture).state_dict(), tmp_path / "w.pt")
    found = match_weights(architecture, source(tmp_path / "w.pt", architecture), resolution=224)
    assert found.fits, found.report()
    assert classes_in_file(architecture, source(tmp_path / "w.pt", architecture), resolution=224) == 1000


def test_a_file_may_lack_the_classifier_or_bring_another(tmp_path, plain):
    state = {name: value for name, value in plain.items() if not name.startswith("fc.")}
    torch.save(state | {"head_dist.weight": torch.zeros(5, 5)}, tmp_path / "w.pt")
    found = match_weights("test_resnet", source(tmp_path / "w.pt"), resolution=64)
    assert found.fits
    assert found.unused == ("head_dist.weight",)
    assert classes_in_file("test_resnet", source(tmp_path / "w.pt"), resolution=64) is None


@pytest.mark.parametrize("architecture", timm.list_models("test_*", pretrained=True))
def test_the_classifier_is_the_one_that_timm_declares(architecture):
    """Found by its shape, held against the name that timm's config gives it."""
    architecture = architecture.split(".")[0]
    config = timm.get_pretrained_cfg(architecture)
    declared = (config.classifier,) if isinstance(config.classifier, str) else config.classifier
    found = classifier_names(architecture, config.input_size[-1])
    assert found == {f"{name}.{part}" for name in declared for part in ("weight", "bias")}
