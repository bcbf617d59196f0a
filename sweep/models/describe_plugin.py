"""Facts of a registered model: what its plug-in says, the rest from building it on the meta device."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sweep.base.errors import UserError
from sweep.models.layers import ProbedLayer, probed_layers
from sweep.plugins import Plugin

_RESOLUTION = 32  # facts are looked up at the smallest resolution the model takes from here on


@functools.cache
def facts(plugin: Plugin) -> dict[str, Any]:
    """What :class:`sweep.models.facts.Architecture` wants to know."""
    given, ranges = plugin.facts["given"], plugin.facts["ranges"]
    described = given if None not in given.values() else _described(plugin)
    return {
        "name": plugin.name,
        "source": "plug-in",
        **{key: described[key] if value is None else value for key, value in given.items()},
        **ranges,
        "native_resolution": None,
        "weights": (),
    }


def _usual(plugin: Plugin) -> int:
    multiple, smallest = plugin.facts["ranges"]["multiple_of"], plugin.facts["ranges"]["min_resolution"]
    return -(-max(_RESOLUTION, smallest) // multiple) * multiple


def _described(plugin: Plugin) -> dict[str, Any]:
    resolution = _usual(plugin)
    model = _on_meta(plugin, 2, resolution, 1.0)
    probed = _probed(plugin, 1.0, resolution)
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    kind = probed[0].kind
    return {
        "family": {"conv": "CNN", "tokens": "ViT", "vector": "MLP"}[kind],
        "stem": first.kernel_size[0] if first is not None else resolution,  # a dense layer sees the whole image
        "depth": len(probed) + (0 if kind == "tokens" else 1),
        "spatial_reduction": probed[min(1, len(probed) - 1)].side / resolution if kind == "conv" else 1.0,
    }


def layers(plugin: Plugin, *, width: float, resolution: int) -> list[tuple[str, int, str]]:
    """Name, embedding width and kind of every probed layer."""
    return [(layer.name, layer.width, layer.kind) for layer in _probed(plugin, width, resolution)]


@functools.cache
def parameters(plugin: Plugin, *, classes: int, width: float, resolution: int | None) -> int:
    """Parameters with a head of so many classes; without a resolution at the one that facts are looked up at."""
    resolution = _usual(plugin) if resolution is None else resolution
    return sum(parameter.numel() for parameter in _on_meta(plugin, classes, resolution, width).parameters())


@functools.cache
def flops(plugin: Plugin, *, width: float, resolution: int) -> float:
    """Of one image's forward pass."""
    model = _on_meta(plugin, 2, resolution, width).eval()
    with _explained(plugin, resolution), torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, resolution, resolution, device="meta"))
    return float(counter.get_total_flops())


@functools.cache
def _probed(plugin: Plugin, width: float, resolution: int) -> list[ProbedLayer]:
    model = _on_meta(plugin, 2, resolution, width)
    with _explained(plugin, resolution):
        return probed_layers(model, resolution=resolution, pattern=plugin.facts["layers"])


def _on_meta(plugin: Plugin, classes: int, resolution: int, width: float) -> nn.Module:
    with _explained(plugin, resolution), torch.device("meta"):
        model = plugin.make(classes=classes, resolution=resolution, width=width)
    if not isinstance(model, nn.Module):
        raise UserError(f"model {plugin.name}: {plugin.module} gives a {type(model).__name__}, not a torch.nn.Module")
    return model


@contextmanager
def _explained(plugin: Plugin, resolution: int) -> Iterator[None]:
    """A user's code may raise anything; what is wrong belongs to that model."""
    try:
        yield
    except Exception as error:
        reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        raise UserError(
            f"model {plugin.name} of {plugin.module} cannot be built without memory at {resolution} px: {reason}"
        ) from error
