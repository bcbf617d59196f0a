"""What is known of a model or dataset without building it: names, layers, widths, parameters, classes, sizes.

The study's own architectures follow from their plans in closed form (:mod:`sweep.models.closed_form`); timm's are read
from ``catalogue.json``, which ``python -m sweep.models.catalogue_build`` writes and a test regenerates. A timm
model that is not in the file is described by building it without memory, which takes some seconds; so is a model
that a plug-in registered.
"""

from __future__ import annotations

import functools
import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sweep import register
from sweep.base.errors import UserError
from sweep.models.closed_form import RESNETS, VGGS, VITS, Step, mlp_shape, scaled, trace, vgg_plan
from sweep.models.timm_tags import tags

_FILE = Path(__file__).with_name("catalogue.json")
MORE = Path(__file__).with_name("catalogue_more.json")  # of the shipped studies' other networks


@dataclass(frozen=True)
class LayerFact:
    """A probed layer: module path, embedding width after pooling, and what kind of output it has."""

    name: str
    width: int
    kind: str  # "conv", "tokens" or "vector"


@dataclass(frozen=True)
class Architecture:
    """An architecture by its facts (protocol §3).

    Attributes
    ----------
    stem : kernel side of the first convolution, or patch side; None of an MLP, which sees the whole image at once.
    depth : as in the names of [H24]: probed convolutions + 1, or transformer blocks.
    spatial_reduction : φ, output side / input side of the first stage; 1.0 for ViT by convention.
    multiple_of : the resolution must be a multiple of this.
    native_resolution : resolution the weights were made for; None if any.
    scalable : whether a width multiplier applies.
    weights : names that ``pretraining`` may have, the default first.
    points : what ``layers`` is by default: "conv", "blocks" or "stages"; None for a plug-in, which says it itself.
    refused : why nothing is probed by default, so that a config must say which layers; None if something is.
    first_rule : whether version 0.1 took and pooled the same layers: embeddings that stores hold keep their keys.
    """

    name: str
    source: Literal["built-in", "timm", "plug-in"]
    family: str  # "CNN", "ViT" or "MLP"; a plug-in may have another
    stem: int | None
    depth: int
    spatial_reduction: float
    multiple_of: int
    min_resolution: int
    native_resolution: int | None
    scalable: bool
    weights: tuple[str, ...]
    points: str | None
    first_rule: bool = True
    refused: str | None = None


def _own(name: str, family: Literal["CNN", "ViT", "MLP"], **facts: Any) -> Architecture:
    common: dict[str, Any] = {"native_resolution": None, "scalable": True, "weights": (), "multiple_of": 1}
    common["points"] = {"CNN": "conv", "ViT": "blocks", "MLP": None}[family]
    return Architecture(name=name, source="built-in", family=family, **(common | facts))


_BUILT_IN: Mapping[str, Architecture] = {
    "vggm11": _own("vggm11", "CNN", stem=3, depth=11, spatial_reduction=0.5, min_resolution=32),
    "vggm17": _own("vggm17", "CNN", stem=3, depth=17, spatial_reduction=0.5, min_resolution=32),
    "vggm11_dagger": _own("vggm11_dagger", "CNN", stem=3, depth=11, spatial_reduction=1.0, min_resolution=8),
    "vggm17_dagger": _own("vggm17_dagger", "CNN", stem=3, depth=17, spatial_reduction=1.0, min_resolution=8),
    "resnet18": _own("resnet18", "CNN", stem=7, depth=18, spatial_reduction=0.25, min_resolution=32),
    "resnet34": _own("resnet34", "CNN", stem=7, depth=34, spatial_reduction=0.25, min_resolution=32),
    "vit_tiny_patch8": _own(
        "vit_tiny_patch8", "ViT", stem=8, depth=12, spatial_reduction=1.0, min_resolution=16, multiple_of=8
    ),
    "vit_tiny_plus_patch8": _own(
        "vit_tiny_plus_patch8", "ViT", stem=8, depth=18, spatial_reduction=1.0, min_resolution=16, multiple_of=8
    ),
}


@functools.cache
def _built_in(name: str) -> Architecture | None:
    """Facts of one of our own networks: those of [H24], plain CNNs of other depths, and MLPs ([M23])."""
    if name in _BUILT_IN:
        return _BUILT_IN[name]
    if plan := vgg_plan(name):
        facts = {"depth": 1 + sum(map(bool, plan)), "spatial_reduction": 1.0 if "dagger" in name else 0.5}
        return _own(name, "CNN", stem=3, min_resolution=2 ** plan.count(0), **facts)
    if shape := mlp_shape(name):
        return _own(name, "MLP", stem=None, depth=shape[0], spatial_reduction=1.0, min_resolution=1)
    return None


@functools.cache
def _stored() -> dict[str, Any]:
    return json.loads(_FILE.read_text(encoding="utf-8"))


def timm_names() -> tuple[str, ...]:
    """Every name that timm builds."""
    return tuple(_stored()["timm_names"])


def names() -> tuple[str, ...]:
    """Every architecture name that is valid: registered ones, the built-ins, then timm's."""
    return tuple(dict.fromkeys((*register.plugin_names("model"), *_BUILT_IN, *_stored()["timm_names"])))


def _described() -> Any:
    """Descriptions from building a network without memory; imports torch."""
    return importlib.import_module("sweep.models.describe")


@functools.cache
def _more() -> dict[str, Any]:
    return json.loads(MORE.read_text(encoding="utf-8"))["described"]


@functools.cache
def _timm_entry(name: str) -> dict[str, Any]:
    """Stored facts of a timm model; one that has none is built without memory and described now."""
    stored = _stored()
    if name in stored["described"]:
        return stored["described"][name]
    if name not in stored["timm_names"]:
        raise KeyError(name)
    return _more().get(name) or _described().describe(name)


def architecture(name: str) -> Architecture:
    """Facts of an architecture; KeyError if neither built in nor registered nor timm's."""
    if plugin := register.find_plugin("model", name):
        return Architecture(**_described().facts(plugin))
    if own := _built_in(name):
        described = _stored()["described"].get(name)
        return own if described is None else Architecture(**(vars(own) | {"weights": tags(name)}))
    entry = _timm_entry(name)
    return Architecture(
        name=name,
        source="timm",
        family=entry["family"],
        stem=entry["stem"],
        depth=entry["depth"],
        spatial_reduction=entry["spatial_reduction"],
        multiple_of=entry["multiple_of"],
        min_resolution=entry["min_resolution"],
        native_resolution=entry["native_resolution"],
        scalable=False,
        weights=tags(name),
        points=entry["points"],
        first_rule=entry["first_rule"],
        refused=entry.get("refused"),
    )


def layers(
    name: str,
    *,
    width: float = 1.0,
    resolution: int = 224,
    layers: str | None = None,
    pooling: str = "default",
    norm: str = "none",
) -> tuple[LayerFact, ...]:
    """Probed layers in the order they run; the last is the penultimate layer.

    Embedding widths depend on the resolution, because a map that is already 2×2 or smaller is only flattened.

    Parameters
    ----------
    layers, pooling, norm : what a config says of them, see :func:`sweep.models.probed_layers`; what is not the default
        is asked of the network, built without memory.
    """
    plain = (layers, pooling, norm) == (None, "default", "none") or (mlp_shape(name) and layers == layers_pattern(name))
    if not plain or (pooling, norm) != ("default", "none"):
        asked = _described().asked(name, resolution, width, layers, pooling, norm)
        return tuple(LayerFact(*fact) for fact in asked)
    if plugin := register.find_plugin("model", name):
        return tuple(LayerFact(*fact) for fact in _described().layers(plugin, width=width, resolution=resolution))
    if _built_in(name):
        probed = [step for step in trace(name, width=width, resolution=resolution) if step.probed]
        return tuple(LayerFact(s.name, _pooled(s.outputs, s.side, s.kind), s.kind) for s in probed)
    entry = _timm_entry(name)
    if "refused" in entry:
        raise UserError(f"{name}: {entry['refused']}")
    return tuple(
        LayerFact(path, _pooled(channels, -(-resolution // stride), kind), kind)
        for path, channels, stride, kind in entry["layers"]
    )


def first_rule(name: str, *, layers: str | None, width: float, resolution: int) -> bool:
    """Whether version 0.1 of the program embedded the same layers alike, so that keys stay what they were.

    Parameters
    ----------
    layers : a regular expression, or None for the default; only our own networks' default is known without torch.
    """
    plugin = register.find_plugin("model", name)
    if plugin is None and (layers is None or (mlp_shape(name) and layers == layers_pattern(name))):
        return architecture(name).first_rule
    return _described().first_rule(name, plugin, layers, width, resolution)


def layers_pattern(name: str) -> str | None:
    """Which modules a registered model, or an MLP, wants probed; None leaves it to the rule for all networks."""
    plugin = register.find_plugin("model", name)
    if plugin:
        return plugin.facts["layers"]
    return r"hidden\.\d+" if mlp_shape(name) else None


def _pooled(channels: int, side: int, kind: str) -> int:
    return channels if kind == "tokens" else channels * min(side, 2) ** 2


def parameters(name: str, *, classes: int, width: float = 1.0, resolution: int | None = None) -> int:
    """Trainable parameters with a linear head of so many classes; MLPs and registered models heed the resolution."""
    if plugin := register.find_plugin("model", name):
        return _described().parameters(plugin, classes=classes, width=width, resolution=resolution)
    if own := _built_in(name):
        steps = trace(name, width=width, resolution=(mlp_shape(name) and resolution) or max(32, own.min_resolution))
        features = steps[-1].outputs
        return sum(step.parameters for step in steps) + (features + 1) * classes
    entry = _timm_entry(name)
    return entry["parameters"] + (entry["features"] + 1) * classes


def forward_flops(name: str, *, resolution: int, width: float = 1.0) -> float:
    """Operations (two per multiply-add) of one image's forward pass, without norms and activations.

    For timm models scaled by area from the native resolution: an estimate where attention is quadratic.
    """
    if plugin := register.find_plugin("model", name):
        return _described().flops(plugin, width=width, resolution=resolution)
    if _built_in(name):
        return sum(step.flops for step in trace(name, width=width, resolution=resolution))
    entry = _timm_entry(name)
    return entry["flops"] * (resolution / entry["flops_resolution"]) ** 2


def width_problem(name: str, width: float) -> str | None:
    """Why a width multiplier is impossible for an architecture; None if it is fine."""
    if width == 1.0:
        return None
    if plugin := register.find_plugin("model", name):
        return None if plugin.facts["ranges"]["scalable"] else "it is registered with scalable=False: one width, 1"
    if not _built_in(name):
        return "timm models have one width, 1"
    if name in VITS and (scaled(192, width) % 12 or scaled(192, width) != 192 * width):
        return (
            "192 × width must be a multiple of 12 (3 heads, 4 parts of the position embedding): 0.0625, 0.125, 0.25, …"
        )
    return None


__all__ = [
    "RESNETS",
    "VGGS",
    "VITS",
    "Architecture",
    "LayerFact",
    "Step",
    "architecture",
    "first_rule",
    "forward_flops",
    "layers",
    "layers_pattern",
    "names",
    "parameters",
    "scaled",
    "timm_names",
    "width_problem",
]
