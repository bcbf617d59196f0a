"""Backbones by name: the study's own architectures and anything from timm, with or without weights."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import timm
import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models.resnet import BasicBlock, ResNet
from torch import nn

from sweep import plugins
from sweep.base.errors import UserError
from sweep.config import SCRATCH, WeightsEntry
from sweep.models.closed_form import RESNETS, VGGS, VITS, scaled
from sweep.models.layers import ProbedLayer, probed_layers
from sweep.models.vgg import VGGm
from sweep.models.vit import SinCosViT
from sweep.models.weights import Match, load_weights, match, own_normalization, read_weights

Builder = Callable[..., nn.Module]
_OWN_WEIGHTS = "timm"  # `pretraining: timm` takes a model's default weights


def _vggm(name: str, *, classes: int, resolution: int, width: float) -> nn.Module:
    del resolution
    return VGGm([scaled(channels, width) if channels else 0 for channels in VGGS[name]], classes)


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


def build_backbone(
    architecture: str,
    *,
    classes: int,
    resolution: int,
    width: float = 1.0,
    pretraining: str = SCRATCH,
    weights: WeightsEntry | None = None,
    seed: int = 0,
) -> nn.Module:
    """A network that takes (B, 3, resolution, resolution) and gives (B, classes) logits.

    Parameters
    ----------
    architecture : built-in, registered or timm name.
    width : multiplier of the channels, built-ins only.
    pretraining : "scratch", "timm" (the model's default weights), one of timm's tags, or any name if
        ``weights`` says where they are.
    weights : a local file, or torchvision's weights; everything but the classifier must match.
    seed : of the initial weights; the caller's random state is not touched.

    Raises
    ------
    UserError
        If weights cannot be loaded.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if weights is not None or pretraining == SCRATCH:
            model = _untrained(architecture, classes=classes, resolution=resolution, width=width)
        else:
            model = _downloaded(architecture, pretraining, classes=classes, resolution=resolution)
    if weights is not None:
        load_weights(model, weights)
    return model


def _untrained(architecture: str, *, classes: int, resolution: int, width: float) -> nn.Module:
    if plugin := plugins.find_plugin("model", architecture):
        return plugin.make(classes=classes, resolution=resolution, width=width)
    if builder := plugins.find_ours("model", architecture):
        return builder(classes=classes, resolution=resolution, width=width)
    return timm.create_model(architecture, num_classes=classes, **_size_argument(architecture, resolution))


def _size_argument(architecture: str, resolution: int) -> dict[str, Any]:
    """Models with fixed positions must be told the input side; timm resamples their weights."""
    fixed = bool(timm.get_pretrained_cfg_value(architecture, "fixed_input_size"))
    return {"img_size": resolution} if fixed else {}


def _downloaded(architecture: str, pretraining: str, *, classes: int, resolution: int) -> nn.Module:
    name = architecture if pretraining == _OWN_WEIGHTS else f"{architecture}.{pretraining}"
    try:
        return timm.create_model(name, pretrained=True, num_classes=classes, **_size_argument(architecture, resolution))
    except (
        Exception
    ) as error:  # OSError is what the hub raises for whatever network, host or disk did
        advice = (
            f"is there a network? Or fill the Hugging Face cache ($HF_HOME), or declare a local file: "
            f"weights.{pretraining}.path"
            if isinstance(error, OSError)
            else f"the network is not to blame: look at the tag, and at {resolution} px for this architecture"
        )
        raise UserError(
            f"weights {pretraining} of {architecture} could not be loaded ({type(error).__name__}: {error}); {advice}"
        ) from error


def match_weights(architecture: str, weights: WeightsEntry, *, resolution: int) -> Match:
    """How the tensors of named weights fit an architecture; reads the file, builds the network without memory."""
    with torch.device("meta"):
        model = _untrained(architecture, classes=2, resolution=resolution, width=1.0)
    return match(model, read_weights(weights))


def normalization(
    architecture: str, pretraining: str, weights: WeightsEntry | None = None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std the weights were trained with: their entry's, torchvision's, timm's; ImageNet's for all others."""
    if weights is not None and (own := own_normalization(weights)):
        return own
    if pretraining == SCRATCH or not timm.is_model(architecture):
        return IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    name = architecture if pretraining == _OWN_WEIGHTS else f"{architecture}.{pretraining}"
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError:  # a local checkpoint's name is no tag of timm
        config = None
    if config is None:
        return IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    return tuple(config.mean), tuple(config.std)


def layers_of(
    architecture: str, *, resolution: int, width: float = 1.0, pattern: str | None = None
) -> list[ProbedLayer]:
    """Probed layers of an architecture without making its weights (on the meta device)."""
    with torch.device("meta"):
        model = _untrained(architecture, classes=2, resolution=resolution, width=width)
    return probed_layers(model, resolution=resolution, pattern=pattern)
