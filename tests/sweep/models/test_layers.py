"""Layer points: those of version 0.1 where it was right, and every kind of them."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import nn

from sweep.base.errors import UserError
from sweep.config import ConfigError
from sweep.embed import embed
from sweep.models import build_backbone, facts, layers_of, probed_layers
from sweep.models.build import evidence_of, without_memory
from sweep.models.closed_form import RESNETS, VGGS, VITS
from sweep.models.describe import columns, first_stage
from sweep.models.evidence import gather, on_meta
from sweep.models.first_rule import was_right
from sweep.models.layers import find_layers
from sweep.study import read_config

# what version 0.1 probed: layers, first, last, digest of names and widths, prefix tokens, kind; by name and resolution
BEFORE = json.loads(Path(__file__).with_name("points_before.json").read_text())
OURS = (*VGGS, *RESNETS, *VITS)
CPU = torch.device("cpu")


def recorded(layers, prefix, kind):
    digest = hashlib.sha256(json.dumps([[x.name, x.width] for x in layers]).encode()).hexdigest()[:16]
    return [len(layers), layers[0].name, layers[-1].name, digest, prefix, kind]


@pytest.mark.parametrize("case", [case for case in BEFORE if case.split()[0] in OURS])
def test_points_of_the_study_stay(case):
    name, resolution = case.split()
    evidence = evidence_of(name, resolution=int(resolution))
    layers = find_layers(evidence, lambda side: without_memory(name, side), resolution=int(resolution))
    assert recorded(layers, layers[0].prefix_tokens, layers[0].kind) == BEFORE[case]
    assert was_right(evidence.model, layers)


def test_points_of_timms_models_that_were_right_stay():
    """By the catalogue, which another test holds against the networks."""
    for case in BEFORE:
        name, resolution = case.split()
        if name not in OURS:
            layers = facts.layers(name, resolution=int(resolution))
            assert recorded(layers, BEFORE[case][4], layers[0].kind) == BEFORE[case]
            assert facts.architecture(name).first_rule


@pytest.mark.parametrize(
    "name", ["repvgg_a0", "test_nfnet", "davit_tiny", "pit_ti_224", "convit_tiny", "mixer_s32_224", "dla34"]
)
def test_what_was_wrong_is_known_to_be(name):
    assert not facts.architecture(name).first_rule


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vggm11", 0.5),
        ("vgg16_bn", 0.5),
        ("vgg11", 0.5),
        ("vggm17_dagger", 1.0),
        ("resnet18", 0.25),
        ("resnet50", 0.25),
        ("resnet50d", 0.25),
        ("convnext_tiny", 0.25),
        ("efficientnet_b0", 0.5),
        ("repvgg_a0", 0.5),
        ("densenet121", 0.25),
    ],
)
def test_spatial_reduction_is_one_definition_for_all(name, expected):
    assert first_stage(evidence_of(name, resolution=224)) == expected


@pytest.mark.parametrize(
    ("name", "family", "depth"),
    [
        ("cait_xxs24_224", "ViT", 26),
        ("efficientvit_m0", "ViT", 6),
        ("gemma4_vit_167m_enc", "ViT", 16),
        ("naflexvit_base_patch16_gap", "ViT", 12),
        ("pit_ti_224", "ViT", 12),
        ("tnt_s_patch16_224", "ViT", 12),
        ("xcit_nano_12_p16_224", "ViT", 14),
        ("mvitv2_tiny", "ViT", 10),
        ("mixer_s32_224", "MLP", 8),
        ("mobilevit_xxs", "CNN", 10),
        ("resnet26", "CNN", 26),
    ],
)
def test_networks_of_every_kind_are_described(name, family, depth):
    """The first seven ended a plan in a traceback."""
    about = facts.architecture(name)
    assert (about.family, about.depth) == (family, depth)
    assert facts.forward_flops(name, resolution=about.native_resolution or 224) > 1e7


def test_an_architecture_that_is_refused_is_a_problem_of_the_config(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("name: x\ngrid: [{architecture: coat_tiny, id_dataset: fractals, resolution: 224}]\n")
    with pytest.raises(ConfigError, match=r"say under layers which.*layer parallel_blocks\.0"):
        read_config(file)
    file.write_text(file.read_text() + "layers: {coat_tiny: 'serial_blocks\\d\\.\\d+'}\n")
    assert read_config(file).layers == {"coat_tiny": r"serial_blocks\d\.\d+"}
    layers = facts.layers("coat_tiny", layers=r"serial_blocks\d\.\d+")
    assert [layer.width for layer in layers] == [152] * 8
    with pytest.raises(UserError, match=r"coat_tiny: layer parallel_blocks\.0"):
        facts.layers("coat_tiny")


def names_and(layers, what):
    return [(layer.label, getattr(layer, what)) for layer in layers]


def test_kinds_of_points():
    blocks = layers_of("resnet18", resolution=64, pattern="blocks")
    assert names_and(blocks, "width")[0] == ("layer1.0", 256)
    assert [layer.channels for layer in blocks] == [64, 64, 128, 128, 256, 256, 512, 512]
    assert {layer.point for layer in blocks} == {"block"}
    stages = layers_of("resnet50", resolution=224, pattern="stages")
    assert names_and(stages, "channels")[1:] == [("layer1", 256), ("layer2", 512), ("layer3", 1024), ("layer4", 2048)]
    convolutions = layers_of("vit_tiny_patch16_224", resolution=224, pattern="conv")
    assert names_and(convolutions, "kind") == [("patch_embed.proj", "conv")]
    assert [x.point for x in layers_of("vggm11", resolution=32, pattern=r"features\.(0|3)")] == ["pattern"] * 2


def test_a_pattern_in_a_network_with_tokens_keeps_each_output_what_it_is():
    layers = layers_of("vit_tiny_patch16_224", resolution=224, pattern=r"patch_embed\.proj|blocks\.0|norm|fc_norm")
    assert [(x.name, x.layout.axes, x.prefix_tokens, x.width) for x in layers] == [
        ("patch_embed.proj", "BCHW", 0, 4 * 192),
        ("blocks.0", "BTC", 1, 192),
        ("norm", "BTC", 1, 192),
        ("fc_norm", "BC", 0, 192),
    ]


def test_pattern_overrides_the_rule():
    model = build_backbone("vggm11", classes=3, resolution=32, width=0.0625)
    names = [layer.name for layer in probed_layers(model, resolution=32, pattern=r"features\.(0|3)")]
    assert names == ["features.0", "features.3"]
    with pytest.raises(UserError, match=r"matches no module.*features\.0"):
        probed_layers(model, resolution=32, pattern="nothing")


@pytest.mark.parametrize(
    ("name", "pattern", "said"),
    [
        ("coat_tiny", None, r"layer parallel_blocks\.0: its axes cannot be told apart.*several tensors"),
        ("nest_tiny", "blocks", r"levels\.0\.transformer_encoder\.0.*\(7, 16, 196, 96\)"),
        ("vit_tiny_patch16_224", r"blocks\.0\.attn\.attn_drop", "has no output"),
        ("swinv2_cr_tiny_ns_224", "modules", "built otherwise"),
        ("resnet18", "modules", "0 attention modules"),
    ],
)
def test_what_cannot_be_shown_is_refused_by_name(name, pattern, said):
    with pytest.raises(UserError, match=said):
        layers_of(name, resolution=224, pattern=pattern)


def test_refused_poolings_and_norms():
    for name, options, said in [
        ("vit_tiny_patch16_224", {"pooling": "2x2"}, "2x2 is for maps"),
        ("swin_tiny_patch4_window7_224", {"pooling": "class"}, "no class token"),
        ("swin_tiny_patch4_window7_224", {"norm": "model"}, "is for BHWC with C 768, the layer is BHWC with C 96"),
        ("resnet18", {"norm": "model"}, "no norm between"),
    ]:
        with pytest.raises(UserError, match=said):
            layers_of(name, resolution=224, **options)


def test_a_class_token_that_networks_do_not_count_stands_first():
    """PiT, CrossViT, VOLO, CoaT: one token of the first block's input is the same for every image, the first."""
    for name, block in [
        ("pit_ti_224", "transformers.0.blocks.0"),
        ("crossvit_tiny_240", "blocks.0.blocks.0.0"),
        ("volo_d1_224", "post_network.0"),
        ("coat_lite_tiny", "serial_blocks1.0"),
    ]:
        side = timm.get_pretrained_cfg(name).input_size[-1]
        model = build_backbone(name, classes=2, resolution=side).eval()
        given = []
        model.get_submodule(block).register_forward_pre_hook(lambda _m, inputs, given=given: given.append(inputs[0]))
        with torch.inference_mode():
            model(torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0)))
        one, other = given[0]
        assert (one == other).all(1).nonzero().ravel().tolist() == [0], name
        (layer,) = layers_of(name, resolution=side, pattern=block.replace(".", r"\."))
        assert layer.prefix_tokens == 1


def test_networks_that_take_one_resolution_are_looked_at_again_at_another():
    model = build_backbone("vit_tiny_patch8", classes=3, resolution=32, width=0.0625)
    with pytest.raises(AssertionError, match="doesn't match model"):
        model(torch.zeros(1, 3, 64, 64))
    assert [layer.layout.axes for layer in probed_layers(model, resolution=32)] == ["BTC"] * 12


class Blocks(nn.Module):
    """A network of somebody else: pre-norm blocks of his own class, a class token that he does not count."""

    def __init__(self, count=3):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.chain = nn.ModuleList(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True) for _ in range(count))
        self.last = nn.Linear(8, 5)

    def forward(self, images):
        x = self.patches(images).flatten(2).transpose(1, 2)
        for block in self.chain:
            x = block(x)
        return self.last(x.mean(1))


def test_a_chain_of_blocks_is_found_without_any_statement():
    layers = probed_layers(Blocks(), resolution=16)
    assert [(x.name, x.layout.axes, x.prefix_tokens) for x in layers] == [(f"chain.{i}", "BTC", 0) for i in range(3)]
    evidence = gather(lambda _side: on_meta(Blocks()), 16)
    assert columns(evidence, layers) == {"family": "ViT", "stem": 4, "depth": 3, "spatial_reduction": 1.0}


def test_an_output_that_is_not_what_was_shown_is_an_error():
    model = Blocks().eval()
    (layer, *_) = probed_layers(model, resolution=16)
    model.chain[0] = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 8), nn.Flatten())
    model.chain[1] = nn.Unflatten(1, (16, 8))
    with pytest.raises(UserError, match=r"layer chain\.0: its output is \(1, 128\), where BTC with C 8 was shown"):
        embed(model, [layer], np.zeros((1, 16, 16, 3), np.uint8), mean=(0,) * 3, std=(1,) * 3, device=CPU)
