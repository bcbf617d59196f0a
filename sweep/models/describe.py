"""Facts of a network, from building it on the meta device: no memory, no weights, no network connection.

One describer for all: what timm builds, and what a plug-in registered (which may state some facts itself).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import timm
import torch
from timm.layers import PatchEmbed
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sweep.base.errors import UserError
from sweep.models.axes import point_layout
from sweep.models.build import evidence_of, layers_of, without_memory
from sweep.models.choose import default
from sweep.models.evidence import Evidence
from sweep.models.first_rule import was_right
from sweep.models.layers import ProbedLayer, find_layers
from sweep.models.layout import Layout
from sweep.models.points import Point, blocks, convolutions
from sweep.register import Plugin

_USUAL = 224  # px, for timm models without weights
_RESOLUTION = 32  # px, for registered models: the smallest they take from here on


def columns(evidence: Evidence, layers: Sequence[ProbedLayer]) -> dict[str, Any]:
    """Family, stem, depth and φ of a network with these layers (protocol §3)."""
    family = _family(evidence, layers)
    return {
        "family": family,
        "stem": _stem(evidence, layers),
        "depth": _depth(evidence, layers),
        "spatial_reduction": first_stage(evidence) if family == "CNN" else 1.0,
    }


def _family(evidence: Evidence, layers: Sequence[ProbedLayer]) -> str:
    """ViT where at least half of the blocks mix places by attention; else CNN if it convolves, MLP if it does not."""
    found = blocks(evidence) or [layer.name for layer in layers]
    if found and 2 * sum(evidence.one.seen[name].attends for name in found) >= len(found):
        return "ViT"
    modules = dict(evidence.model.named_modules())
    if layers and layers[0].kind == "vector":
        return "MLP"
    convolved = [name for name in found if any(isinstance(m, nn.Conv2d) for m in modules[name].modules())]
    return "CNN" if 2 * len(convolved) >= len(found) else "MLP"


def _stem(evidence: Evidence, layers: Sequence[ProbedLayer]) -> int:
    """Kernel of the first convolution; without one the side of a patch, or of the image for a dense layer."""
    modules = dict(evidence.model.named_modules())
    first = next((modules[n] for n in evidence.one.seen if isinstance(modules[n], nn.Conv2d)), None)
    if isinstance(first, nn.Conv2d):
        return int(first.kernel_size[0])
    side = evidence.one.resolution
    if not layers or "T" not in layers[0].layout.axes:
        return side
    layer = layers[0]
    tokens = evidence.one.seen[layer.name].outputs[layer.layout.tensor][layer.layout.axes.index("T")]
    return round(side / (tokens - layer.prefix_tokens) ** 0.5)


def _depth(evidence: Evidence, layers: Sequence[ProbedLayer]) -> int:
    """As in the names of [H24]: probed convolutions (or dense layers) and the head, or blocks."""
    found = blocks(evidence)
    if not layers:
        return len(found) or len(convolutions(evidence)) + 1
    if layers[0].point == "conv" or layers[0].kind == "vector":
        return len(layers) + 1
    return len(found) or len(layers) + (layers[0].kind == "conv")


def first_stage(evidence: Evidence) -> float:
    """φ: side of the map that leaves the first stage / side of the image.

    The first stage is what runs before the first block, or, in a network without blocks, the convolutions of the first
    width with the pooling after them: it ends with the map that enters the first convolution of another width. 0.25
    for a ResNet (stem and max-pool), 0.5 for a VGG whose first convolutions end in a pooling, 1.0 without that.
    """
    sides = [side for name in blocks(evidence) if (side := _input_side(evidence, name)) is not None]
    if sides:
        return sides[0] / evidence.one.resolution
    modules = dict(evidence.model.named_modules())
    ran = [name for name in evidence.one.seen if isinstance(modules[name], nn.Conv2d)]
    shapes = [(evidence.one.seen[name].inputs[0], evidence.one.seen[name].outputs[0]) for name in ran]
    widens = (given[-1] for given, made in shapes[1:] if made[1] != given[1])
    return next(widens, shapes[-1][1][-1]) / evidence.one.resolution


def _input_side(evidence: Evidence, name: str) -> int | None:
    """Side of the map that enters a block; None if it is no map."""
    found = point_layout(evidence, Point(name, input=True))
    if not isinstance(found, Layout) or "W" not in found.axes:
        return None
    return evidence.one.seen[name].inputs[found.tensor][found.axes.index("W")]


def forward_flops(model: nn.Module, resolution: int) -> float:
    """Operations of one image's forward pass, two per multiply-add."""
    images = torch.zeros(1, 3, resolution, resolution, device="meta")
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model.eval().requires_grad_(False)(images)  # or the counter looks for gradients, which some tuples have not
    return float(counter.get_total_flops())


def _size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


# ---------------------------------------------------------------------------------------------- timm


@functools.cache
def describe(name: str) -> dict[str, Any]:
    """An entry of the catalogue for a timm model (see :mod:`sweep.models.facts`).

    Raises
    ------
    UserError
        If it cannot be built.
    """
    config = timm.get_pretrained_cfg(name)
    side = int(config.input_size[-1]) if config is not None else _USUAL
    with _explained(f"{name} cannot be described at {side} px"):
        evidence = evidence_of(name, resolution=side)
        layers, refused = _by_default(evidence)
        size = _size(evidence.model)
        slope = _size(without_memory(name, side, classes=3)) - size  # parameters of the head for a class
        tags = [full for full in timm.list_pretrained(f"{name}.*") if full.split(".", 1)[0] == name]
        patch = _patch(evidence.model) if layers and layers[0].kind == "tokens" else 1
        return {
            **columns(evidence, layers),
            "multiple_of": patch,
            "min_resolution": max(32, 2 * patch),
            "native_resolution": side if config is not None else None,
            "weights": [full.split(".", 1)[1] for full in tags],
            "parameters": size - 2 * slope,
            "features": slope - 1,
            "flops": forward_flops(evidence.model, side),
            "flops_resolution": side,
            "points": default(evidence),
            "first_rule": was_right(evidence.model, layers),
            **({"refused": refused} if refused else {}),
            "layers": [[x.label, x.channels, _stride(x.side, side), x.kind] for x in layers],
        }


def _by_default(evidence: Evidence) -> tuple[list[ProbedLayer], str | None]:
    """Layers that are probed by default; none, and why, where a config must say which."""
    try:
        return find_layers(evidence, lambda _side: evidence.model, resolution=evidence.one.resolution), None
    except UserError as error:
        return [], str(error)


def _patch(model: nn.Module) -> int:
    """Side of the patches that timm's own embedding cuts an image into; 1 if another one does."""
    embedding = next((module for module in model.modules() if isinstance(module, PatchEmbed)), None)
    return int(embedding.patch_size[0]) if embedding is not None else 1


def _stride(side: int, resolution: int) -> int:
    return max(1, round(resolution / side)) if side else 1


# ---------------------------------------------------------------------------------------------- registered models


@functools.cache
def facts(plugin: Plugin) -> dict[str, Any]:
    """What :class:`sweep.models.facts.Architecture` wants to know: what its author says, the rest from building it."""
    given, ranges = plugin.facts["given"], plugin.facts["ranges"]
    if None in given.values():
        found = _described(plugin)
        given = {key: found[key] if value is None else value for key, value in given.items()}
    return {
        "name": plugin.name,
        "source": "plug-in",
        **given,
        **ranges,
        "native_resolution": None,
        "weights": (),
        "points": None,
    }


def _usual(plugin: Plugin) -> int:
    multiple, smallest = plugin.facts["ranges"]["multiple_of"], plugin.facts["ranges"]["min_resolution"]
    return -(-max(_RESOLUTION, smallest) // multiple) * multiple


def _described(plugin: Plugin) -> dict[str, Any]:
    side = _usual(plugin)
    with _explained(_unbuilt(plugin, side)):
        evidence = evidence_of(plugin.name, resolution=side)
        layers = find_layers(
            evidence,
            lambda _side: evidence.model,
            resolution=evidence.one.resolution,
            layers=plugin.facts["layers"],
        )
        return columns(evidence, layers)


def layers(plugin: Plugin, *, width: float, resolution: int) -> list[tuple[str, int, str]]:
    """Name, embedding width and kind of every probed layer."""
    return [(layer.label, layer.width, layer.kind) for layer in _probed(plugin, width, resolution)]


@functools.cache
def _probed(plugin: Plugin, width: float, resolution: int) -> list[ProbedLayer]:
    with _explained(_unbuilt(plugin, resolution)):
        return layers_of(plugin.name, resolution=resolution, width=width, pattern=plugin.facts["layers"])


@functools.cache
def parameters(plugin: Plugin, *, classes: int, width: float, resolution: int | None) -> int:
    """Parameters with a head of so many classes; without a resolution at the one that facts are looked up at."""
    side = _usual(plugin) if resolution is None else resolution
    with _explained(_unbuilt(plugin, side)):
        return _size(without_memory(plugin.name, side, classes=classes, width=width))


@functools.cache
def flops(plugin: Plugin, *, width: float, resolution: int) -> float:
    """Of one image's forward pass."""
    with _explained(_unbuilt(plugin, resolution)):
        return forward_flops(without_memory(plugin.name, resolution, width=width), resolution)


def _unbuilt(plugin: Plugin, side: int) -> str:
    return f"model {plugin.name} of {plugin.module} cannot be built without memory at {side} px"


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Code of others may raise anything; what is wrong belongs to that model."""
    try:
        yield
    except Exception as error:
        reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        raise UserError(f"{what}: {reason}") from error


# ---------------------------------------------------------------------------------------------- what a config says


def asked(
    name: str, resolution: int, width: float, layers: str | None, pooling: str, norm: str
) -> list[tuple[str, int, str]]:
    """Name, embedding width and kind of the layers that a config asks for."""
    with _explained(f"{name} at {resolution} px"):
        found = layers_of(name, resolution=resolution, width=width, pattern=layers, pooling=pooling, norm=norm)
    return [(layer.label, layer.width, layer.kind) for layer in found]


@functools.cache
def first_rule(name: str, plugin: Plugin | None, layers: str | None, width: float, resolution: int) -> bool:
    """See :func:`sweep.models.facts.first_rule`; a plug-in is asked for because its name may mean another tomorrow."""
    with _explained(f"{name} cannot be described at {resolution} px"):
        evidence = evidence_of(name, resolution=resolution, width=width)
        found = find_layers(evidence, lambda _side: evidence.model, resolution=evidence.one.resolution, layers=layers)
        return was_right(evidence.model, found, named=layers is not None)
