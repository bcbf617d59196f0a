"""Which modules of a network are its convolutions, its blocks, its stages.

What a module is comes from its class, from what timm states of a network (``group_matcher``, ``feature_info``) and
from the shapes it was seen with; never from the name of an attribute.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from timm import layers as timm_layers
from timm.models.cait import LayerScaleBlockClassAttn
from timm.models.convnext import ConvNeXt, ConvNeXtBlock
from timm.models.crossvit import CrossAttentionBlock
from timm.models.volo import ClassBlock
from timm.models.xcit import ClassAttentionBlock
from torch import nn

from sweep.base.errors import UserError
from sweep.models.evidence import Evidence, Seen

# Blocks that renew class tokens only: their patches are gone, or go through as they came ([timm])
CLASS_BLOCKS = (LayerScaleBlockClassAttn, ClassAttentionBlock, ClassBlock, CrossAttentionBlock)
NORMS = (
    nn.modules.batchnorm._BatchNorm,
    nn.GroupNorm,
    nn.LayerNorm,
    timm_layers.RmsNorm,
    timm_layers.RmsNorm2d,
    timm_layers.SimpleNorm,
    *([nn.RMSNorm] if hasattr(nn, "RMSNorm") else []),
)
_SHORTCUTS = {"downsample", "shortcut"}  # what timm and torchvision call the projections around a block
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True)
class Point:
    """A module whose output is a layer; or its input, where that is a sum no module puts out (a residual)."""

    name: str
    part: str = "pattern"  # "conv", "block", "stage", or of `modules`: "norm 1", "attention", …
    input: bool = False


# ---------------------------------------------------------------------------------------------- convolutions


def convolutions(evidence: Evidence) -> list[str]:
    """Every Conv2d but 1×1 shortcuts and gates; of a ConvNeXt stem and depthwise convolutions ([H24] A.4)."""
    modules = dict(evidence.model.named_modules())
    ran = [name for name in evidence.one.seen if isinstance(modules[name], nn.Conv2d)]
    if isinstance(evidence.model, ConvNeXt):
        depthwise = {name for name in ran if _is_depthwise(modules, name)}
        return [name for name in ran if name == ran[0] or name in depthwise]
    return [name for name in _without_gates(evidence, ran) if not _is_shortcut(name, modules[name])]


def _is_depthwise(modules: dict[str, nn.Module], name: str) -> bool:
    module = modules[name]
    inside = isinstance(modules[name.rpartition(".")[0]], ConvNeXtBlock)
    return inside and isinstance(module, nn.Conv2d) and module.groups > 1


def _is_shortcut(name: str, module: nn.Module) -> bool:
    return bool(_SHORTCUTS & set(name.split("."))) and getattr(module, "kernel_size", None) == (1, 1)


def _without_gates(evidence: Evidence, names: list[str]) -> list[str]:
    """Without convolutions of a single place that are gates, or the classifier.

    A gate sees no map at any resolution though maps come after it: it weighs channels. A classifier is the last and
    has as many channels as the network has outputs.
    """
    seen = evidence.one.seen
    order = {name: i for i, name in enumerate(seen)}
    leaves = [n for n, module in evidence.model.named_modules() if n in seen and not list(module.children())]
    last = max((order[name] for name in leaves if _sees_map(evidence, name)), default=-1)
    kept = [name for name in names if _sees_map(evidence, name) or order[name] > last]
    outputs = [shape[-1] for shape in evidence.one.outputs if len(shape) == 2]
    if kept and order[kept[-1]] > last and seen[kept[-1]].outputs[0][1] in outputs:
        kept.pop()
    return kept


def _sees_map(evidence: Evidence, name: str) -> bool:
    """Whether a module is given a map of more than one place, at either resolution."""
    return any(
        len(shape) == 4 and max(shape[2:]) > 1
        for each in (evidence.one, evidence.two)
        for shape in each.seen.get(name, Seen()).inputs[:1]
    )


# ---------------------------------------------------------------------------------------------- blocks


def blocks(evidence: Evidence) -> list[str]:
    """Residual and transformer blocks, in the order they run.

    timm's statement (``group_matcher``) where its groups are blocks; where they are whole stages, or nothing is
    stated, the elements of chains: children of a sequence that hold several weights and keep the shape they are given.
    """
    modules = dict(evidence.model.named_modules())
    stated = {n for n in _grouped(evidence.model) if n in evidence.one.seen and _weights(modules[n]) > 1}
    found = set(_elements(evidence, modules))
    if stated:
        inside = {name for name in found if stated & set(_ancestors(name))}
        sequences = any(isinstance(modules[name], _CONTAINERS) for name in stated)
        found = inside if inside and (sequences or _one_number(evidence.model)) else stated
    found |= {name for name in evidence.one.seen if isinstance(modules[name], CLASS_BLOCKS)}
    return [name for name in evidence.one.seen if name in found]


def _patterns(model: nn.Module) -> list[str]:
    """Regular expressions that timm states for a network's blocks; expressions with a number stand for other parts."""
    matcher = getattr(model, "group_matcher", None)
    try:
        stated: Any = matcher(coarse=False) if matcher else None
    except (AttributeError, AssertionError, TypeError):  # a network that has none of its own
        return []
    given = stated.get("blocks") if isinstance(stated, dict) else None
    pairs = [(given, None)] if isinstance(given, str) else list(given or ())
    return [pattern.lstrip("^").rstrip("$") for pattern, number in pairs if number is None]


def _grouped(model: nn.Module) -> list[str]:
    patterns = [re.compile(pattern) for pattern in _patterns(model)]
    return [name for name, _ in model.named_modules() if any(pattern.fullmatch(name) for pattern in patterns)]


def _one_number(model: nn.Module) -> bool:
    """Whether timm counts the groups through with one number, so that a group may be a stage."""
    return all(re.compile(pattern).groups < 2 for pattern in _patterns(model))


def _elements(evidence: Evidence, modules: dict[str, nn.Module]) -> list[str]:
    """Elements of chains that hold no chain themselves."""
    places = [name for name in evidence.one.seen if _is_element(name, modules)]
    kept = {type(modules[name]) for name in places if _keeps_shape(evidence.one.seen[name])}
    chains = {_chain(name) for name in places if type(modules[name]) in kept}
    # a block that opens a stage changes the shape: its chain, or one like it, has others that keep it
    found = [name for name in places if type(modules[name]) in kept or _chain(name) in chains]
    outer = {ancestor for name in found for ancestor in _ancestors(name)}
    return [name for name in found if name not in outer]


def _is_element(name: str, modules: dict[str, nn.Module]) -> bool:
    parent, _, place = name.rpartition(".")
    module = modules[name]
    if not place.isdigit() or not isinstance(modules[parent], _CONTAINERS) or isinstance(module, _CONTAINERS):
        return False
    return _weights(module) > 1 and any(isinstance(each, NORMS) for each in module.modules())


def _weights(module: nn.Module) -> int:
    """Matrices and kernels of a module: a block has several."""
    return sum(1 for parameter in module.parameters() if parameter.dim() >= 2)


def _keeps_shape(seen: Seen) -> bool:
    return any(shape in seen.inputs for shape in seen.outputs)


def _chain(name: str) -> str:
    """Path of the sequence that an element stands in, without the numbers."""
    return re.sub(r"\d+", "*", name.rpartition(".")[0])


def _ancestors(name: str) -> Iterator[str]:
    while name := name.rpartition(".")[0]:
        yield name


# ---------------------------------------------------------------------------------------------- stages


def stages(evidence: Evidence) -> list[str]:
    """Modules that timm's ``feature_info`` states as the ends of stages."""
    names = [str(entry["module"]) for entry in feature_info(evidence.model)]
    ran = set(evidence.one.seen)
    if missing := [name for name in names if name not in ran]:
        raise UserError(f"layers: stages: timm states {', '.join(missing)} as a stage, which does not run by itself")
    return [name for name in evidence.one.seen if name in set(names)]


def feature_info(model: nn.Module) -> list[dict[str, Any]]:
    """What timm states of a network's stages: module, channels, reduction; nothing for others."""
    stated: Any = getattr(model, "feature_info", None) or []
    entries: Iterable[Any] = getattr(stated, "info", stated)
    return [dict(entry) for entry in entries if isinstance(entry, dict) and entry.get("module")]
