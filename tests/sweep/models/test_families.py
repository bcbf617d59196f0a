"""Embeddings of ten families of networks equal plain timm code: every hook and every average is written out here."""

import numpy as np
import pytest
import timm
import torch

from sweep.embed import embed
from sweep.models import build_backbone, probed_layers

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def ours(model, images_NHWC, **options):
    layers = probed_layers(model, resolution=images_NHWC.shape[1], **options)
    found = embed(model, layers, images_NHWC, mean=MEAN, std=STD, device=torch.device("cpu"))
    return {layer.label: emb_ND.float() for layer, emb_ND in zip(layers, found, strict=True)}


def pictures(side):
    return np.random.default_rng(0).integers(0, 256, (2, side, side, 3), dtype=np.uint8)


def pixels(images_NHWC):
    values = (images_NHWC.astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
    return torch.from_numpy(np.ascontiguousarray(values.transpose(0, 3, 1, 2)))


def outputs(model, images_NHWC, names):
    """What modules put out, by hooks of torch alone."""
    found = {}
    handles = []
    for name in names:

        def keep(_module, _inputs, output, name=name):
            found[name] = output

        handles.append(model.get_submodule(name).register_forward_hook(keep))
    with torch.inference_mode():
        model(pixels(images_NHWC))
    for handle in handles:
        handle.remove()
    return found


def quarters(map_BCHW):
    rows, columns = map_BCHW.shape[2:]
    parts = [
        map_BCHW[:, :, top * (rows // 2) : (top + 1) * (rows // 2), left * (columns // 2) : (left + 1) * (columns // 2)]
        for top in range(2)
        for left in range(2)
    ]
    return torch.stack([part.mean((2, 3)) for part in parts], 2).flatten(1)


def network(name, side):
    return build_backbone(name, classes=3, resolution=side, seed=1).eval()


def same(found, expected):
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-3 * float(expected.abs().max()))


def check(model, images, expected, **options):
    """Every layer that is embedded is one of the expected, in their order, with their numbers."""
    found = ours(model, images, **options)
    assert list(found) == list(expected)
    for name, emb_ND in found.items():
        same(emb_ND, expected[name])


def test_vit_with_registers_mean_of_the_patches():
    side, name = 64, "vit_little_patch16_reg4_gap_256"
    model, images = network(name, side), pictures(side)
    raw = outputs(model, images, [f"blocks.{i}" for i in range(14)])
    assert model.num_reg_tokens == 4
    check(model, images, {name: x[:, 4:].mean(1) for name, x in raw.items()})


def test_vit_with_class_token_every_pooling_and_the_models_norm():
    side = 64
    model, images = network("vit_tiny_patch16_224", side), pictures(side)
    raw = outputs(model, images, [f"blocks.{i}" for i in range(12)])
    with torch.inference_mode():
        normed = {name: model.norm(x) for name, x in raw.items()}
    check(model, images, {name: x[:, 1:].mean(1) for name, x in raw.items()})
    check(model, images, {name: x[:, 0] for name, x in raw.items()}, pooling="class")
    both = {name: torch.cat([x[:, 0], x[:, 1:].mean(1)], 1) for name, x in raw.items()}
    check(model, images, both, pooling="class+mean")
    check(model, images, {name: x[:, 1:].max(1).values for name, x in raw.items()}, pooling="max")
    check(model, images, {name: x[:, 1:].mean(1) for name, x in normed.items()}, norm="model")
    with torch.inference_mode():
        theirs = model.forward_intermediates(pixels(images), intermediates_only=True, norm=True)
    same(list(ours(model, images, norm="model").values())[3], theirs[3].mean((2, 3)))


def test_modules_inside_a_vit_block():
    side = 64
    model, images = network("vit_tiny_patch16_224", side), pictures(side)
    found = ours(model, images, pattern="modules")
    block = model.blocks[5]
    with torch.inference_mode():
        x = outputs(model, images, ["blocks.4"])["blocks.4"]
        one = block.norm1(x)
        attention = block.attn(one)
        residual = x + attention
        two = block.norm2(residual)
        hidden = block.mlp.fc1(two)
        active = block.mlp.act(hidden)
        last = block.mlp.fc2(active)
    expected = {
        "norm1": one,
        "attn": attention,
        "norm2 (input)": residual,
        "norm2": two,
        "mlp.fc1": hidden,
        "mlp.act": active,
        "mlp.fc2": last,
        "": residual + last,
    }
    assert len(found) == 12 * 8
    assert list(found)[40:48] == [f"blocks.5.{part}".rstrip(".") for part in expected]
    for part, tokens in expected.items():
        same(found[f"blocks.5.{part}".rstrip(".")], tokens[:, 1:].mean(1))


def test_swin_maps_channels_last():
    side = 224
    model, images = network("swin_tiny_patch4_window7_224", side), pictures(side)
    names = [f"layers.{stage}.blocks.{i}" for stage, count in enumerate((2, 2, 6, 2)) for i in range(count)]
    raw = outputs(model, images, names)
    assert raw[names[-1]].shape == (2, 7, 7, 768)
    check(model, images, {name: x.mean((1, 2)) for name, x in raw.items()})
    four = {name: quarters(x.permute(0, 3, 1, 2)) for name, x in raw.items() if x.shape[1] % 2 == 0}
    found = ours(model, images, pooling="2x2")
    for name, emb_ND in four.items():
        same(found[name], emb_ND)


def test_resnet_convolutions():
    side = 64
    model, images = network("resnet26", side), pictures(side)
    names = ["conv1", *(f"layer{s}.{b}.conv{c}" for s in range(1, 5) for b in range(2) for c in range(1, 4))]
    raw = outputs(model, images, names)
    check(model, images, {name: quarters(x) if x.shape[2] > 2 else x.flatten(1) for name, x in raw.items()})


def test_convnext_stem_and_depthwise_convolutions():
    side = 64
    model, images = network("convnext_atto", side), pictures(side)
    depths = (2, 2, 6, 2)
    names = ["stem.0", *(f"stages.{s}.blocks.{b}.conv_dw" for s in range(4) for b in range(depths[s]))]
    raw = outputs(model, images, names)
    check(model, images, {name: quarters(x) if x.shape[2] > 2 else x.flatten(1) for name, x in raw.items()})


def test_repvgg_convolutions_of_both_branches():
    side = 64
    model, images = network("repvgg_a0", side), pictures(side)
    names = [n for n, m in model.named_modules() if n.endswith(("conv_1x1.conv", "conv_kxk.conv"))]
    raw = outputs(model, images, names)
    found = ours(model, images)
    assert set(found) == set(names)
    for name, x in raw.items():
        same(found[name], quarters(x) if x.shape[2] > 2 else x.flatten(1))
    stem = ours(model, images, pattern="stem")["stem"]
    assert stem.shape == (2, 4 * 48)  # version 0.1 took 32 columns of pixels for channels


def test_davit_maps_channels_first():
    side = 64
    model, images = network("davit_tiny", side), pictures(side)
    counts = (1, 1, 3, 1)
    names = [f"stages.{s}.blocks.{b}.{half}" for s in range(4) for b in range(counts[s]) for half in range(2)]
    raw = outputs(model, images, names)
    check(model, images, {name: quarters(x) if x.shape[2] > 2 else x.flatten(1) for name, x in raw.items()})


def test_pit_counts_its_class_token_in_every_stage():
    side = 224
    model, images = network("pit_ti_224", side), pictures(side)
    names = [f"transformers.{s}.blocks.{b}" for s, count in enumerate((2, 6, 4)) for b in range(count)]
    raw = outputs(model, images, names)
    assert [raw[f"transformers.{s}.blocks.0"].shape[1] for s in range(3)] == [1 + 27**2, 1 + 14**2, 1 + 7**2]
    check(model, images, {name: x[:, 1:].mean(1) for name, x in raw.items()})


def test_convit_gains_its_class_token_after_ten_blocks():
    side = 224
    model, images = network("convit_tiny", side), pictures(side)
    raw = outputs(model, images, [f"blocks.{i}" for i in range(12)])
    expected = {f"blocks.{i}": raw[f"blocks.{i}"][:, 1 if i >= 10 else 0 :].mean(1) for i in range(12)}
    check(model, images, expected)


def test_blocks_of_class_tokens_alone():
    side = 64
    cait, images = network("cait_xxs24_224", side), pictures(side)
    raw = outputs(cait, images, [*(f"blocks.{i}" for i in range(24)), "blocks_token_only.0", "blocks_token_only.1"])
    expected = {name: x.mean(1) if "only" not in name else x[:, 0] for name, x in raw.items()}
    assert raw["blocks_token_only.1"].shape == (2, 1, 192)
    check(cait, images, expected)
    xcit = network("xcit_nano_12_p16_224", side)
    raw = outputs(xcit, images, [*(f"blocks.{i}" for i in range(12)), "cls_attn_blocks.0", "cls_attn_blocks.1"])
    check(xcit, images, {name: x[:, 0] if "cls" in name else x.mean(1) for name, x in raw.items()})


def test_mlp_mixer_blocks():
    side = 224
    model, images = network("mixer_s32_224", side), pictures(side)
    raw = outputs(model, images, [f"blocks.{i}" for i in range(8)])
    check(model, images, {name: x.mean(1) for name, x in raw.items()})


def test_tuples_and_inner_batches():
    side = 224
    mvit, images = network("mvitv2_tiny", side), pictures(side)
    names = [f"stages.{s}.blocks.{b}" for s, count in enumerate((1, 2, 5, 2)) for b in range(count)]
    raw = outputs(mvit, images, names)
    check(mvit, images, {name: x[0].mean(1) for name, x in raw.items()})
    tnt = network("tnt_s_patch16_224", side)
    raw = outputs(tnt, images, [f"blocks.{i}" for i in range(12)])
    assert raw["blocks.0"][0].shape[0] == 2 * 196
    check(tnt, images, {name: x[1][:, 1:].mean(1) for name, x in raw.items()})


@pytest.mark.parametrize("name", ["resnet18", "mobilevit_xxs", "efficientvit_m0"])
def test_the_same_maps_as_timms_own_intermediates(name):
    side = timm.get_pretrained_cfg(name).input_size[-1]
    model, images = timm.create_model(name, num_classes=3).eval(), pictures(side)
    with torch.inference_mode():
        theirs = model.forward_intermediates(pixels(images), intermediates_only=True)
    found = ours(model, images, pattern="stages", pooling="mean")
    assert len(found) == len(theirs)
    for emb_ND, map_BCHW in zip(found.values(), theirs, strict=True):
        same(emb_ND, map_BCHW.mean((2, 3)))
