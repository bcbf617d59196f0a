"""Backbones by name: the study's own architectures and anything from timm, with or without weights."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import timm
import torch
from timm.models.resnet import BasicBlock, ResNet
from torch import nn

from sweep import register
from sweep.base.errors import UserError
from sweep.models.closed_form import RESNETS, VITS, mlp_shape, scaled, vgg_plan
from sweep.models.evidence import Evidence, gather
from sweep.models.key_map import Proposal
from sweep.models.layers import DEFAULT, ProbedLayer, find_layers, usual_side
from sweep.models.mlp import MLP
from sweep.models.shapes import Shapes
from sweep.models.source import WeightsSource
from sweep.models.vgg import VGGm
from sweep.models.vit import SinCosViT
from sweep.models.weights import Match, fit_weights, load_weights, proposed

Builder = Callable[..., nn.Module]


def _vggm(name: str, *, classes: int, resolution: int, width: float) -> nn.Module:
    del resolution
    plan = vgg_plan(name)
    if plan is None:
        raise UserError(f"{name}: vggm{{depth}} counts convolutions and the head, so that depth is at least 6")
    return VGGm([scaled(channels, width) if channels else 0 for channels in plan], classes)


def _mlp(name: str, *, classes: int, resolution: int, width: float) -> nn.Module:
    shape = mlp_shape(name)
    if shape is None:
        raise UserError(f"{name}: mlp{{depth}}x{{width}} has at least one layer of one unit")
    return MLP(resolution=resolution, depth=shape[0], width=scaled(shape[1], width), classes=classes)


def _vit(name: str, *, classes: int, resolution: int, width: float) -> nn.Module:
    return SinCosViT(resolution=resolution, width=scaled(192, width), depth=VITS[name], classes=classes)


def _resnet(name: str, *, classes: int, resolution: int, width: float) -> nn.Module:
    """Timm's ResNet; its stem and first block are rebuilt for other widths, because timm fixes the stem at 64."""
    del resolution
    channels = tuple(scaled(c, width) for c in (64, 128, 256, 512))
    model = ResNet(BasicBlock, RESNETS[name], num_classes=classes, channels=channels)
    stem = channels[0]
    if stem != 64:
        model.conv1 = nn.Conv2d(3, stem, 7, stride=2, padding=3, bias=False)
        model.bn1 = nn.BatchNorm2d(stem)
        model.layer1[0] = BasicBlock(stem, stem)
        model.init_weights()
    return model


# what the register of names calls ours
vggm11 = functools.partial(_vggm, "vggm11")
vggm17 = functools.partial(_vggm, "vggm17")
vggm11_dagger = functools.partial(_vggm, "vggm11_dagger")
vggm17_dagger = functools.partial(_vggm, "vggm17_dagger")
resnet18 = functools.partial(_resnet, "resnet18")
resnet34 = functools.partial(_resnet, "resnet34")
vit_tiny_patch8 = functools.partial(_vit, "vit_tiny_patch8")
vit_tiny_plus_patch8 = functools.partial(_vit, "vit_tiny_plus_patch8")


def by_depth(name: str) -> Builder:
    """The builder of a plain CNN ``vggm{depth}``."""
    return functools.partial(_vggm, name)


def by_shape(name: str) -> Builder:
    """The builder of an MLP ``mlp{depth}x{width}``."""
    return functools.partial(_mlp, name)


def build_backbone(
    architecture: str,
    *,
    classes: int,
    resolution: int,
    width: float = 1.0,
    weights: WeightsSource | None = None,
    seed: int = 0,
) -> nn.Module:
    """A network that takes (B, 3, resolution, resolution) and gives (B, classes) logits.

    Parameters
    ----------
    architecture : built-in, registered or timm name.
    width : multiplier of the channels, built-ins only.
    weights : timm's, torchvision's, or a local file; everything but the classifier must match. None: untrained.
    seed : of the initial weights; the caller's random state is not touched.

    Raises
    ------
    UserError
        If weights cannot be loaded.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if weights is not None and weights.kind == "timm":
            model = _downloaded(architecture, weights.name, classes=classes, resolution=resolution)
        else:
            model = _untrained(architecture, classes=classes, resolution=resolution, width=width)
    if weights is not None and weights.kind != "timm":
        load_weights(model, weights, architecture, classifier_names(architecture, resolution))
    # how its layers are looked at (sweep.models.layers): the same network without memory, for another resolution
    vars(model)["made_for"] = functools.partial(without_memory, architecture, width=width)
    return model


def without_memory(architecture: str, resolution: int, *, classes: int = 2, width: float = 1.0) -> nn.Module:
    """A network on the meta device: shapes, but no weights.

    Raises
    ------
    UserError
        If a plug-in gives something else.
    """
    with torch.device("meta"), Shapes():
        model = _untrained(architecture, classes=classes, resolution=resolution, width=width)
    if not isinstance(model, nn.Module):
        raise UserError(f"it gives a {type(model).__name__}, not a torch.nn.Module")
    return model


def _untrained(architecture: str, *, classes: int, resolution: int, width: float) -> nn.Module:
    if plugin := register.find_plugin("model", architecture):
        return plugin.make(classes=classes, resolution=resolution, width=width)
    if builder := register.find_ours("model", architecture):
        return builder(classes=classes, resolution=resolution, width=width)
    return timm.create_model(architecture, num_classes=classes, **_size_argument(architecture, resolution))


def _size_argument(architecture: str, resolution: int) -> dict[str, Any]:
    """Models with fixed positions must be told the input side; timm resamples their weights."""
    fixed = bool(timm.get_pretrained_cfg_value(architecture, "fixed_input_size"))
    return {"img_size": resolution} if fixed else {}


def _downloaded(architecture: str, tag: str, *, classes: int, resolution: int) -> nn.Module:
    try:
        return timm.create_model(
            f"{architecture}.{tag}", pretrained=True, num_classes=classes, **_size_argument(architecture, resolution)
        )
    except Exception as error:  # an OSError where network, host or disk failed; else timm's own, of many types
        elsewhere = f"Or fill the Hugging Face cache ($HF_HOME), or declare a local file: weights.{tag}.path"
        advice = f"the network is not to blame: look at the tag, and at {resolution} px for this architecture"
        raise UserError(
            f"weights {tag} of {architecture} could not be loaded ({type(error).__name__}: {error}); "
            + (f"is there a network? {elsewhere}" if isinstance(error, OSError) else advice)
        ) from error


def match_weights(architecture: str, weights: WeightsSource, *, resolution: int) -> Match:
    """How the tensors of named weights fit an architecture; reads the file, builds the network without memory."""
    model = without_memory(architecture, resolution)
    return fit_weights(model, weights, architecture, classifier_names(architecture, resolution)).match


def propose_key_map(architecture: str, weights: WeightsSource, *, resolution: int) -> Proposal | None:
    """A key map under which a checkpoint would fit an architecture, see :func:`sweep.models.key_map.propose`."""
    model = without_memory(architecture, resolution)
    return proposed(model, weights, classifier_names(architecture, resolution))


def classes_in_file(architecture: str, weights: WeightsSource, *, resolution: int) -> int | None:
    """How many classes the classifier of weights tells apart; None if they have none that fits."""
    if weights.kind == "timm":
        config = timm.get_pretrained_cfg(f"{architecture}.{weights.name}")
        return config.num_classes or None
    head = classifier_names(architecture, resolution)
    model = without_memory(architecture, resolution)
    state, own = fit_weights(model, weights, architecture, head).state, model.state_dict()
    counts = {
        there
        for name in head
        if name in state and state[name].dim() == own[name].dim()
        for here, there in zip(own[name].shape, state[name].shape, strict=True)
        if here == 2 and own[name].shape != state[name].shape
    }
    return counts.pop() if len(counts) == 1 and head <= state.keys() else None


@functools.lru_cache(maxsize=64)
def classifier_names(architecture: str, resolution: int) -> frozenset[str]:
    """Parameters of an architecture's classifier: those whose shape follows the number of classes."""
    networks = (without_memory(architecture, resolution, classes=classes) for classes in (2, 3))
    shapes = [{name: value.shape for name, value in network.state_dict().items()} for network in networks]
    return frozenset(name for name, shape in shapes[0].items() if shapes[1].get(name) != shape)


def layers_of(
    architecture: str,
    *,
    resolution: int,
    width: float = 1.0,
    pattern: str | None = None,
    pooling: str = DEFAULT,
    norm: str = "none",
) -> list[ProbedLayer]:
    """Probed layers of an architecture without making its weights, see :func:`sweep.models.probed_layers`.

    They are looked for once in a process.
    """
    plugin = register.find_plugin("model", architecture)
    return list(_layers(architecture, plugin, resolution, width, pattern, pooling, norm))


@functools.lru_cache(maxsize=256)
def _layers(
    architecture: str,
    _plugin: register.Plugin | None,  # another plug-in of the name has other layers
    resolution: int,
    width: float,
    pattern: str | None,
    pooling: str,
    norm: str,
) -> tuple[ProbedLayer, ...]:
    make = functools.partial(without_memory, architecture, width=width)
    evidence = evidence_of(architecture, resolution=resolution, width=width)
    return tuple(find_layers(evidence, make, resolution=resolution, layers=pattern, pooling=pooling, norm=norm))


def evidence_of(architecture: str, *, resolution: int, width: float = 1.0) -> Evidence:
    """What an architecture shows of itself, at the resolution of timm's weights or one near that which is asked for."""
    own = register.find_plugin("model", architecture) or register.find_ours("model", architecture)
    config = None if own else timm.get_pretrained_cfg(architecture)
    side = config.input_size[-1] if config is not None else usual_side(resolution)
    return gather(functools.partial(without_memory, architecture, width=width), side, asked=resolution)


_CAPTURED = frozenset((MLP, VGGm, SinCosViT, ResNet))
_KNOWN_PARTS = ("torch.", "timm.", "sweep.models.")


def is_alike_every_time(model: nn.Module) -> bool:
    """Whether a forward pass is known to be the same operators every time, so that a CUDA graph may repeat it.

    So are the study's networks, MLPs and timm's ResNets, made of these libraries' parts and without hooks. What Python
    decides in another's pass a graph would decide once.
    """
    return type(model) in _CAPTURED and all(
        f"{type(part).__module__}.".startswith(_KNOWN_PARTS)
        and "forward" not in vars(part)
        and not (part._forward_hooks or part._forward_pre_hooks)
        for part in model.modules()
    )
