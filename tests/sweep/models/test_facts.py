"""Architectures against the protocol's exact counts, and the catalogue against the real networks."""

import json

import pytest
import safetensors.torch
import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sweep import register
from sweep.base.errors import UserError
from sweep.config.schema import WeightsEntry
from sweep.models import facts
from sweep.models.build import build_backbone, layers_of
from sweep.models.catalogue_build import FILE, build, text
from sweep.models.layers import probed_layers
from sweep.study.sources import source_of

# protocol §3, at 100 classes
PARAMETERS = {
    "vggm11": 9_462_180,
    "vggm11_dagger": 9_462_180,
    "vggm17": 20_086_692,
    "vggm17_dagger": 20_086_692,
    "resnet18": 11_227_812,
    "resnet34": 21_335_972,
    "vit_tiny_patch8": 5_395_108,
    "vit_tiny_plus_patch8": 8_064_292,
}
LAYERS = {
    "vggm11": 10,
    "vggm17": 16,
    "vggm11_dagger": 10,
    "vggm17_dagger": 16,
    "resnet18": 17,
    "resnet34": 33,
    "vit_tiny_patch8": 12,
    "vit_tiny_plus_patch8": 18,
    "resnet50": 49,
    "convnext_base": 37,
    "convnextv2_base": 37,
    "vit_base_patch16_224": 12,
}

BY_PATTERN = ("vggm7", "vggm14_dagger", "mlp3x64")


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def meta(name, resolution=32, width=1.0, classes=100):
    with torch.device("meta"):
        return build_backbone(name, classes=classes, resolution=resolution, width=width)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts_are_exact(name):
    assert count(meta(name)) == PARAMETERS[name] == facts.parameters(name, classes=100)


@pytest.mark.parametrize("name", LAYERS)
def test_layer_counts_are_the_papers(name):
    assert len(facts.layers(name)) == LAYERS[name]
    assert len(layers_of(name, resolution=facts.architecture(name).native_resolution or 32)) == LAYERS[name]


@pytest.mark.parametrize("name", [*register.OURS["model"], *BY_PATTERN])
@pytest.mark.parametrize(("width", "resolution"), [(1.0, 32), (0.125, 32), (0.25, 64), (0.0625, 224)])
def test_closed_forms_equal_the_networks(name, width, resolution):
    model = meta(name, resolution, width)
    said = facts.layers_pattern(name)
    built = [
        (layer.name, layer.width, layer.kind) for layer in probed_layers(model, resolution=resolution, pattern=said)
    ]
    about = facts.layers(name, width=width, resolution=resolution, layers=said)
    assert [(fact.name, fact.width, fact.kind) for fact in about] == built
    assert facts.parameters(name, classes=100, width=width, resolution=resolution) == count(model)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model.eval()(torch.zeros(1, 3, resolution, resolution, device="meta"))
    ours = facts.forward_flops(name, resolution=resolution, width=width)
    assert ours == pytest.approx(counter.get_total_flops(), rel=0.05)


@pytest.mark.parametrize(("depth", "theirs"), [(9, "vgg11_bn"), (11, "vgg13_bn"), (14, "vgg16_bn"), (17, "vgg19_bn")])
def test_a_plain_cnn_of_any_depth_has_the_convolutions_of_vgg_where_there_is_one(depth, theirs):
    with torch.device("meta"):
        model = timm.create_model(theirs)
    channels = [m.out_channels for m in model.features if isinstance(m, nn.Conv2d)]
    ours = facts.layers(f"vggm{depth}", resolution=224)
    assert [fact.width // 4 for fact in ours] == channels
    assert facts.architecture(f"vggm{depth}").depth == depth
    assert facts.architecture(f"vggm{depth}").min_resolution == 32


@pytest.mark.parametrize("name", ["vggm5", "vggm07", "mlp0x4", "mlp3x0", "mlp3", "vggm7x", "mlp3x100000"])
def test_names_that_only_look_like_a_pattern_are_none(name):
    with pytest.raises(KeyError):
        facts.architecture(name)


def test_an_mlp_says_of_itself_what_there_is_to_say():
    about = facts.architecture("mlp12x1024")
    assert (about.family, about.depth, about.stem, about.scalable) == ("MLP", 12, None, True)
    assert facts.first_rule("mlp12x1024", layers=facts.layers_pattern("mlp12x1024"), width=1.0, resolution=32)
    half = facts.layers("mlp12x1024", width=0.5, resolution=32, layers=facts.layers_pattern("mlp12x1024"))
    assert [fact.width for fact in half] == [512] * 12


def test_small_maps_are_only_flattened():
    widths = [fact.width for fact in facts.layers("resnet18", resolution=32)]
    assert widths[0] == 64 * 4
    assert widths[-1] == 512  # a 1×1 map
    assert [layer.width for layer in layers_of("resnet18", resolution=32)] == widths


@pytest.mark.parametrize("name", ["resnet50", "vit_base_patch16_224", "convnext_tiny", "swin_tiny_patch4_window7_224"])
def test_timm_facts_equal_the_networks(name):
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=7)
    assert facts.parameters(name, classes=7) == count(model)
    layers = layers_of(name, resolution=224)
    assert [(f.name, f.width) for f in facts.layers(name, resolution=224)] == [(x.name, x.width) for x in layers]


def test_catalogue_file_is_what_the_installed_timm_gives():
    stored = json.loads(FILE.read_text())
    if stored["timm_version"] != timm.__version__:
        pytest.skip(f"the catalogue was made with timm {stored['timm_version']}, {timm.__version__} is installed")
    assert FILE.read_text() == text(build())


def test_a_timm_name_outside_the_file_is_described_and_a_wrong_one_is_not():
    about = facts.architecture("resnet26")
    assert (about.family, about.stem, about.depth) == ("CNN", 7, 26)
    with pytest.raises(KeyError):
        facts.architecture("resnet8191")


def test_the_papers_downloaded_backbones_have_their_facts():
    about = facts.architecture("resnet50")
    assert (about.family, about.stem, about.depth, about.spatial_reduction) == ("CNN", 7, 50, 0.25)
    assert "tv2_in1k" in about.weights
    vit = facts.architecture("vit_base_patch16_224")
    assert (vit.family, vit.stem, vit.depth, vit.spatial_reduction, vit.multiple_of) == ("ViT", 16, 12, 1.0, 16)
    assert {"dino", "mae", "augreg_in1k"} <= set(vit.weights)
    assert "fcmae_ft_in1k" in facts.architecture("convnextv2_base").weights


@pytest.mark.parametrize("name", ["vggm11", "resnet18", "vit_tiny_patch8"])
def test_layers_come_in_the_order_they_run(name):
    model = build_backbone(name, classes=3, resolution=32, width=0.0625)
    ran = []
    modules = dict(model.named_modules())
    layers = probed_layers(model, resolution=32)
    for layer in layers:
        modules[layer.name].register_forward_hook(lambda m, i, o, n=layer.name: ran.append(n))
    model.eval()(torch.zeros(1, 3, 32, 32))
    assert ran == [layer.name for layer in layers]


def test_convolutions_are_probed_before_batch_norm():
    model = build_backbone("vggm11", classes=3, resolution=32, width=0.0625)
    modules = dict(model.named_modules())
    assert all(isinstance(modules[layer.name], nn.Conv2d) for layer in probed_layers(model, resolution=32))


def test_seed_decides_the_weights_and_nothing_else_is_touched():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, same, other = (build_backbone("vggm11", classes=3, resolution=32, width=0.0625, seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), same.state_dict().values(), strict=True))
    assert not torch.equal(one.features[0].weight, other.features[0].weight)


def test_position_embedding_is_fixed_and_not_stored():
    model = build_backbone("vit_tiny_patch8", classes=3, resolution=32, width=0.0625)
    assert model.positions_ND.shape == (16, 12)
    assert "positions_ND" not in model.state_dict()
    shuffled = torch.randn(1, 3, 32, 32)
    assert not torch.allclose(model.eval()(shuffled), model(shuffled.flip(3)))


def test_width_problems():
    assert facts.width_problem("vggm11", 0.3) is None
    assert facts.width_problem("vit_tiny_patch8", 0.25) is None
    assert "multiple of 12" in facts.width_problem("vit_tiny_patch8", 0.3)
    assert "one width" in facts.width_problem("resnet50", 0.5)


@pytest.mark.parametrize("ending", [".safetensors", ".pt"])
def test_local_checkpoint_of_a_timm_model(tmp_path, ending):
    source = timm.create_model("resnet18", num_classes=1000).eval()
    file = tmp_path / f"w{ending}"
    if ending == ".pt":
        torch.save({"state_dict": {f"module.{k}": v for k, v in source.state_dict().items()}}, file)
    else:
        safetensors.torch.save_file(source.state_dict(), file)
    saved = source_of(WeightsEntry(path=str(file)), "resnet18")
    model = build_backbone("resnet18", classes=10, resolution=64, weights=saved).eval()
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(model.forward_features(images), source.forward_features(images))
    assert model.fc.out_features == 10


def test_wrong_and_damaged_checkpoints_are_named(tmp_path):
    file = tmp_path / "w.safetensors"
    safetensors.torch.save_file({"conv1.weight": torch.zeros(1, 1)}, file)
    source = source_of(WeightsEntry(path=str(file)), "resnet18")
    with pytest.raises(UserError, match=r"conv1\.weight: \(1, 1\) in the file"):
        build_backbone("resnet18", classes=10, resolution=64, weights=source)
    file.write_bytes(b"garbage")
    with pytest.raises(UserError, match="cannot be read as weights"):
        build_backbone("resnet18", classes=10, resolution=64, weights=source)


def test_pretrained_weights_through_timms_own_loader(tmp_path, monkeypatch):
    source = timm.create_model("resnet18", num_classes=1000).eval()
    file = tmp_path / "w.safetensors"
    safetensors.torch.save_file(source.state_dict(), file)
    create = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda name, **more: create(name, pretrained_cfg_overlay={"file": str(file)}, **more)
    )
    weights = source_of(WeightsEntry(timm="a1_in1k"), "resnet18")
    model = build_backbone("resnet18", classes=5, resolution=64, weights=weights)
    torch.testing.assert_close(model.conv1.weight, source.conv1.weight)


def test_normalization_is_that_of_the_weights():
    def mean(architecture, **entry):
        return source_of(WeightsEntry(**entry), architecture).mean

    assert mean("vit_base_patch16_224", timm="augreg_in1k") == (0.5, 0.5, 0.5)
    assert mean("vit_base_patch16_224", timm="dino") == (0.485, 0.456, 0.406)
    assert mean("resnet50", path="swav.pt") == (0.485, 0.456, 0.406)
