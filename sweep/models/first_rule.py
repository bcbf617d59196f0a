"""Whether version 0.1 of the program took and pooled the layers of a network as they are taken now.

Its rule went by names: modules with an attribute ``attn`` were blocks of tokens, and convolutions called ``se`` were
gates. Where that was right, embeddings that stores hold stay valid and keep their keys; nothing else reads this file.
"""

from __future__ import annotations

from collections.abc import Sequence

from timm.models.convnext import ConvNeXt
from torch import nn

from sweep.models.layers import ProbedLayer

_ASIDE, _GATES = {"downsample", "shortcut"}, {"se", "attn"}


def was_right(model: nn.Module, layers: Sequence[ProbedLayer], *, named: bool = False) -> bool:
    """Whether these layers, in the order they run, are what the first rule took, pooled alike.

    Parameters
    ----------
    named : whether a pattern chose the modules: then only their pooling was the rule's.
    """
    taken = _taken(model)
    tokens = any(hasattr(module, "attn") for name, module in model.named_modules() if name)
    if not named and {layer.name for layer in layers} != set(taken):
        return False
    prefix = int(getattr(model, "num_prefix_tokens", 0) or 0)
    return all(_alike(layer, tokens, prefix) for layer in layers)


def _taken(model: nn.Module) -> list[str]:
    blocks = [name for name, module in model.named_modules() if name and hasattr(module, "attn")]
    if blocks:
        return blocks
    convolutions = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    if isinstance(model, ConvNeXt):
        return [name for name, _ in convolutions[:1]] + [name for name, _ in convolutions if name.endswith("conv_dw")]
    return [name for name, module in convolutions if not _is_aside(name, module)]


def _is_aside(name: str, module: nn.Conv2d) -> bool:
    parts = set(name.split("."))
    return bool(parts & _GATES) or (bool(parts & _ASIDE) and module.kernel_size == (1, 1))


def _alike(layer: ProbedLayer, tokens: bool, prefix: int) -> bool:
    axes = layer.layout.axes
    if axes == "BC":
        return True
    if layer.layout.tensor or layer.input or layer.norm:
        return False
    if not tokens:
        return axes in ("BCHW", "BC11") and layer.pooling in ("2x2", "none")
    expected = {"BTC": prefix, "BHWC": 0}
    return axes in expected and layer.pooling == "mean" and layer.prefix_tokens == expected[axes]
