"""Facts of a timm model, from building it on the meta device: no memory, no weights, no network."""

from __future__ import annotations

import functools
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sweep.models.layers import ProbedLayer, probed_layers

_DEFAULT_RESOLUTION = 224


@functools.cache
def describe(name: str) -> dict[str, Any]:
    """An entry of the catalogue for a timm model (see :mod:`sweep.models.facts`)."""
    config = timm.get_pretrained_cfg(name)
    native = config.input_size[1] if config is not None else _DEFAULT_RESOLUTION
    fixed = bool(config is not None and config.fixed_input_size)
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=0, **({"img_size": native} if fixed else {})).eval()
    layers = probed_layers(model, resolution=native)
    tokens = layers[0].kind == "tokens"
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", (1,))[0] if tokens else 1
    stem = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    return {
        "family": "ViT" if tokens else "CNN",
        "stem": stem.kernel_size[0],
        "depth": len(layers) + (0 if tokens else 1),
        "spatial_reduction": 1.0 if tokens else _first_reduction(layers, native),
        "multiple_of": patch,
        "min_resolution": max(32, 2 * patch),
        "native_resolution": native if config is not None else None,
        "weights": [
            full.split(".", 1)[1] for full in timm.list_pretrained(f"{name}.*") if full.split(".", 1)[0] == name
        ],
        "parameters": sum(p.numel() for p in model.parameters()),
        "features": model.num_features,
        "flops": _flops(model, native),
        "flops_resolution": native,
        "layers": [[layer.name, layer.channels, _stride(layer.side, native), layer.kind] for layer in layers],
    }


def _forward(model: nn.Module, resolution: int) -> Tensor:
    with torch.inference_mode():
        return model(torch.zeros(1, 3, resolution, resolution, device="meta"))


def _first_reduction(layers: list[ProbedLayer], resolution: int) -> float:
    """φ: of the second probed layer, where the first stage's stride and pooling have been applied."""
    return layers[min(1, len(layers) - 1)].side / resolution


def _stride(side: int, resolution: int) -> int:
    return max(1, round(resolution / side)) if side else 1


def _flops(model: nn.Module, resolution: int) -> float:
    with FlopCounterMode(display=False) as counter:
        _forward(model, resolution)
    return float(counter.get_total_flops())
