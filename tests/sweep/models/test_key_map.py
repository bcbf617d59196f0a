"""Key maps by shape and order, held against networks that compute the same under other names."""

import re

import pytest
import timm
import torch
import torchvision
from timm.models.vision_transformer import VisionTransformer

from sweep.config.schema import WeightsEntry
from sweep.models.build import build_backbone, match_weights, propose_key_map
from sweep.models.key_map import propose
from sweep.models.weights import joined
from sweep.study.sources import source_of


def shapes(state, without=()):
    return {n: tuple(v.shape) for n, v in state.items() if n not in without and not n.endswith("num_batches_tracked")}


def mapped(state, rules):
    found = {}
    for name, value in state.items():
        for pattern, replacement in rules.items():
            name = re.sub(pattern, replacement, name)
        assert name not in found
        found[name] = value
    return found


def proposal(model, state, head):
    return propose(shapes(model.state_dict(), head), shapes(state))


# ------------------------------------------------------------------------------------------ other people's networks


def randomised(model):
    """Norms and their running values are not all ones and zeros: a swap would show."""
    torch.manual_seed(1)
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand_like(value) * 0.2 + 0.1)
    return model.eval()


def test_torchvisions_vision_transformer_onto_timms():
    sizes = {"image_size": 32, "patch_size": 8}
    theirs = torchvision.models.VisionTransformer(
        **sizes, num_layers=11, num_heads=2, hidden_dim=32, mlp_dim=64, num_classes=5
    )
    theirs = randomised(theirs)
    own = VisionTransformer(
        img_size=32, patch_size=8, depth=11, num_heads=2, embed_dim=32, mlp_ratio=2, num_classes=5
    ).eval()
    found = proposal(own, theirs.state_dict(), ("head.weight", "head.bias"))
    state = mapped(theirs.state_dict(), found.key_map)
    state |= {"head.weight": theirs.heads.head.weight, "head.bias": theirs.heads.head.bias}
    own.load_state_dict({name: state[name] for name in own.state_dict()})
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(own(images), theirs(images))
    assert len(found.key_map) <= 20  # rules for modules, not for tensors


HUGGING_FACE_VIT = (
    (r"^blocks\.(\d+)\.norm1", r"vit.encoder.layer.\1.layernorm_before"),
    (r"^blocks\.(\d+)\.norm2", r"vit.encoder.layer.\1.layernorm_after"),
    (r"^blocks\.(\d+)\.attn\.proj", r"vit.encoder.layer.\1.attention.output.dense"),
    (r"^blocks\.(\d+)\.mlp\.fc1", r"vit.encoder.layer.\1.intermediate.dense"),
    (r"^blocks\.(\d+)\.mlp\.fc2", r"vit.encoder.layer.\1.output.dense"),
    (r"^cls_token", "vit.embeddings.cls_token"),
    (r"^pos_embed", "vit.embeddings.position_embeddings"),
    (r"^patch_embed\.proj", "vit.embeddings.patch_embeddings.projection"),
    (r"^norm\.", "vit.layernorm."),
)
HUGGING_FACE_ORDER = ("embeddings", "attention", "intermediate", "output.dense", "layernorm_before", "layernorm_after")


def hugging_face_vit(state):
    """Names and order of transformers' ViTModel: three projections, and norms after what they stand before."""
    found = {}
    for name, value in state.items():
        if match := re.match(r"blocks\.(\d+)\.attn\.qkv\.(weight|bias)", name):
            for part, piece in zip(("query", "key", "value"), value.chunk(3), strict=True):
                found[f"vit.encoder.layer.{match[1]}.attention.attention.{part}.{match[2]}"] = piece.clone()
            continue
        for pattern, replacement in HUGGING_FACE_VIT:
            name = re.sub(pattern, replacement, name)
        found[name] = value

    def place(name):
        layer = re.search(r"layer\.(\d+)\.", name)
        kind = next((n for n, part in enumerate(HUGGING_FACE_ORDER) if part in name.partition("layer.")[2]), 9)
        return (0 if "embeddings" in name else 2 if layer is None else 1, int(layer[1]) if layer else 0, kind)

    return {name: found[name] for name in sorted(found, key=place)}


def test_hugging_faces_vit_is_joined_and_mapped_by_pasting_the_proposal(tmp_path):
    torch.manual_seed(0)
    own = randomised(timm.create_model("vit_tiny_patch16_224", num_classes=3))
    state = {n: v for n, v in own.state_dict().items() if not n.startswith("head")}
    torch.save(hugging_face_vit(state), tmp_path / "pytorch_model.bin")
    source = source_of(WeightsEntry(path=str(tmp_path / "pytorch_model.bin")), "vit_tiny_patch16_224")
    assert not match_weights("vit_tiny_patch16_224", source, resolution=224).fits
    found = propose_key_map("vit_tiny_patch16_224", source, resolution=224)
    pasted = WeightsEntry(path=str(tmp_path / "pytorch_model.bin"), key_map=found.key_map)
    weights = source_of(pasted, "vit_tiny_patch16_224")
    assert "query, key and value were joined" in match_weights("vit_tiny_patch16_224", weights, resolution=224).report()
    model = build_backbone("vit_tiny_patch16_224", classes=3, resolution=224, weights=weights).eval()
    images = torch.randn(1, 3, 224, 224)
    torch.testing.assert_close(model.forward_features(images), own.forward_features(images))
    assert len(found.key_map) <= 12


def hugging_face_resnet(state):
    """Names and order of transformers' ResNetModel: stages count from 0, and a block's shortcut comes first."""
    found = {}
    for name, value in state.items():
        if name.startswith("fc."):
            continue
        new = re.sub(r"^conv1\.", "resnet.embedder.embedder.convolution.", name)
        new = re.sub(r"^bn1\.", "resnet.embedder.embedder.normalization.", new)
        if match := re.match(r"layer(\d)\.(\d+)\.(conv|bn|downsample\.)(\d)\.(.*)", name):
            stage = f"resnet.encoder.stages.{int(match[1]) - 1}.layers.{match[2]}"
            if match[3] == "downsample.":
                new = f"{stage}.shortcut.{('convolution', 'normalization')[int(match[4])]}.{match[5]}"
            else:
                kind = {"conv": "convolution", "bn": "normalization"}[match[3]]
                new = f"{stage}.layer.{int(match[4]) - 1}.{kind}.{match[5]}"
        found[new] = value
    order = sorted(found, key=lambda n: (re.sub(r"\.(shortcut|layer\.).*", "", n), "shortcut" not in n))
    stem = [name for name in order if "embedder" in name]
    return {name: found[name] for name in (*stem, *(n for n in order if n not in stem))}


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_hugging_faces_resnet(name):
    """A bottleneck's shortcut has the shape of its last convolution: order alone would swap them."""
    own = randomised(timm.create_model(name, num_classes=5))
    head = ("fc.weight", "fc.bias")
    found = proposal(own, hugging_face_resnet(own.state_dict()), head)
    again = mapped(hugging_face_resnet(own.state_dict()), found.key_map)
    assert all(torch.equal(again[n], v) for n, v in own.state_dict().items() if n not in head)
    assert len(found.key_map) <= 40


def keras_port(state):
    """Names of the port of EfficientNet from Keras: one row of blocks, batch norms numbered inside each."""
    blocks = list(dict.fromkeys(n.rsplit(".", 99)[0:3][1] + "." + n.split(".")[2] for n in state if n[:6] == "blocks"))
    renamed = {"conv_dw": "_depthwise_conv", "conv_pwl": "_project_conv", "se.conv_reduce": "_se_reduce",
               "se.conv_expand": "_se_expand"}  # fmt: skip
    found = {}
    for name, value in state.items():
        if match := re.match(r"blocks\.(\d+\.\d+)\.(se\.\w+|\w+)\.(.*)", name):
            first = match[1].startswith("0.")  # its block has no expansion
            own = renamed | {"conv_pw": "_project_conv" if first else "_expand_conv"}
            norms = {"bn1": "_bn1", "bn2": "_bn2"} if first else {"bn1": "_bn0", "bn2": "_bn1", "bn3": "_bn2"}
            found[f"_blocks.{blocks.index(match[1])}.{(own | norms)[match[2]]}.{match[3]}"] = value
        else:
            new = name.replace("conv_stem", "_conv_stem").replace("conv_head", "_conv_head")
            found[re.sub(r"^bn(\d)", lambda m: f"_bn{int(m[1]) - 1}", new).replace("classifier", "_fc")] = value
    return found


def test_keras_names_of_efficientnet():
    own = randomised(timm.create_model("efficientnet_b0", num_classes=4))
    theirs = keras_port(own.state_dict())
    assert len(theirs) == len(own.state_dict())
    found = proposal(own, theirs, ("classifier.weight", "classifier.bias"))
    again = mapped(theirs, found.key_map)
    assert all(torch.equal(again[n], v) for n, v in own.state_dict().items() if not n.startswith("classifier"))


# ------------------------------------------------------------------------------------------------------- properties


def test_a_prefix_is_one_rule_and_extra_tensors_do_no_harm():
    own = timm.create_model("test_resnet", num_classes=5)
    state = {f"backbone.{name}": value for name, value in own.state_dict().items()}
    found = proposal(own, state | {"projector.weight": torch.zeros(3)}, ("fc.weight", "fc.bias"))
    assert found.key_map == {r"^backbone\.": ""}


@pytest.mark.parametrize("name", ["test_convnext", "test_efficientnet", "test_vit", "test_byobnet"])
def test_any_renaming_of_modules_is_undone(name):
    own = randomised(timm.create_model(name, num_classes=11))
    head = {n for n, v in own.state_dict().items() if v.dim() and len(v) == 11}
    parts = sorted({part for name in own.state_dict() for part in name.split(".")})
    stay = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
    words = {part: f"w{number}x" for number, part in enumerate(parts) if not part.isdigit() and part not in stay}
    state = {".".join(words.get(part, part) for part in n.split(".")): v for n, v in own.state_dict().items()}
    again = mapped(state, proposal(own, state, head).key_map)
    kept = [name for name in own.state_dict() if name not in head and not name.endswith("tracked")]
    assert all(torch.equal(again[name], own.state_dict()[name]) for name in kept)


def test_another_network_is_not_talked_into_fitting():
    own = timm.create_model("test_resnet", num_classes=5)
    for name in ("test_convnext", "test_efficientnet", "resnet18"):
        assert proposal(own, timm.create_model(name, num_classes=5).state_dict(), ("fc.weight", "fc.bias")) is None


def test_what_only_order_tells_apart_is_counted():
    needed = {"a.weight": (3, 3), "b.weight": (3, 3), "c.weight": (4, 3)}
    there = {"z.weight": (4, 3), "x.weight": (3, 3), "y.weight": (3, 3)}
    found = propose(needed, there)
    assert mapped(dict.fromkeys(there), found.key_map).keys() == needed.keys()
    assert (found.tensors, found.by_order) == (3, 2)
    assert propose(needed, {"x.weight": (3, 3), "z.weight": (4, 3)}) is None


def test_joined_projections_are_query_key_value_in_this_order():
    state = {f"a.{n}.weight": torch.full((2, 3), float(k)) for k, n in enumerate(("query", "key", "value"))}
    found = joined(state | {"b.query.weight": torch.zeros(2, 3)})
    assert found["a.qkv.weight"][:, 0].tolist() == [0, 0, 1, 1, 2, 2]
    assert "b.query.weight" in found  # without key and value it is something else
