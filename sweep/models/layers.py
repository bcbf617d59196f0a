"""Which layers are probed, and how their outputs become embeddings ([H24] A.4, protocol §2 and §5).

Shapes: B batch, C channels or token width, H and W map sides, T tokens, D embedding width.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from timm.models.convnext import ConvNeXt
from torch import Tensor, nn
from torch.nn import functional as F

from sweep.base.errors import UserError

Kind = Literal["conv", "tokens", "vector"]
_SHORTCUTS = {"downsample", "shortcut"}  # names that timm and torchvision give to projections around a block
_GATES = {"se", "attn"}  # squeeze-and-excite and attention: they weigh features, they are none


@dataclass(frozen=True)
class ProbedLayer:
    """A layer whose pooled output is probed.

    Attributes
    ----------
    name : module path in the network.
    kind : "conv" (a map, channels first), "tokens" (channels last) or "vector" (neither: a dense layer).
    width : numbers in the embedding, at the resolution it was asked for.
    prefix_tokens : leading tokens that are no patches (class token, registers).
    side : of the map, px; 0 for tokens and vectors.
    """

    name: str
    kind: Kind
    width: int
    prefix_tokens: int = 0
    side: int = 0

    @property
    def channels(self) -> int:
        """Of the map; of tokens and vectors the width."""
        return self.width // min(self.side, 2) ** 2 if self.side else self.width


def pool(output: Tensor, kind: Kind, *, prefix_tokens: int = 0) -> Tensor:
    """Output of a layer as an embedding (B, D).

    A map is averaged to 2×2 and flattened, 4C numbers; one that is 2×2 or smaller is only flattened. Of tokens
    (B, T, C) or (B, H, W, C) the mean is taken, without the prefix. A vector (B, D) stays what it is.
    """
    if kind == "vector":
        return output
    if kind == "tokens":
        return output[:, prefix_tokens:].flatten(1, -2).mean(1)
    if output.shape[2] <= 2 and output.shape[3] <= 2:
        return output.flatten(1)
    if output.device.type != "cpu" or not output.is_contiguous():
        return F.adaptive_avg_pool2d(output, 2).flatten(1)
    with torch.autocast("cpu", enabled=False):  # of a map channels first, a matmul: two to twelve times faster
        return (output.flatten(2) @ _averages(*output.shape[2:]).to(output.dtype)).flatten(1)


@lru_cache(maxsize=256)
@torch.inference_mode(mode=False)
def _averages(height: int, width: int) -> Tensor:
    """(H W, 4): the shares that each place of a map has in its 2×2 averages, as ``adaptive_avg_pool2d`` shares them."""
    rows_H2, columns_W2 = (F.adaptive_avg_pool1d(torch.eye(side)[None], 2)[0] for side in (height, width))
    return torch.einsum("ha,wb->hwab", rows_H2, columns_W2).reshape(height * width, 4)


def candidates(model: nn.Module) -> dict[str, Kind]:
    """Paths of the layers that the rule names.

    Every transformer block if there are any; ConvNeXt's stem and depthwise convolutions; else every Conv2d that
    is neither a 1×1 shortcut nor part of a gate.
    """
    blocks = {name: module for name, module in model.named_modules() if hasattr(module, "attn") and name}
    if blocks:
        return dict.fromkeys(blocks, "tokens")
    if isinstance(model, ConvNeXt):
        stem = next(name for name, module in model.named_modules() if isinstance(module, nn.Conv2d))
        return dict.fromkeys([stem, *(n for n, _ in model.named_modules() if n.endswith("conv_dw"))], "conv")
    return {name: "conv" for name, module in _convolutions(model) if not _is_aside(name, module)}


def _convolutions(model: nn.Module) -> Iterator[tuple[str, nn.Conv2d]]:
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            yield name, module


def _is_aside(name: str, module: nn.Conv2d) -> bool:
    parts = set(name.split("."))
    return bool(parts & _GATES) or (bool(parts & _SHORTCUTS) and module.kernel_size == (1, 1))


def _matching(model: nn.Module, pattern: str) -> dict[str, Kind]:
    """Modules whose whole path matches; what is not a vector is tokens if the network has transformer blocks."""
    paths = [name for name, _ in model.named_modules() if name]
    found = [name for name in paths if re.fullmatch(pattern, name)]
    if not found:
        rule = list(candidates(model))
        raise UserError(
            f"layers pattern {pattern!r} matches no module; the rule takes {', '.join(rule[:6])} …; "
            f"the network's first modules are {', '.join(paths[:12])}"
        )
    has_tokens = "tokens" in candidates(model).values()
    return dict.fromkeys(found, "tokens" if has_tokens else "conv")


def probed_layers(model: nn.Module, *, resolution: int, pattern: str | None = None) -> list[ProbedLayer]:
    """Layers to probe in the order they run, with the widths they have at a resolution.

    Parameters
    ----------
    model : any network that takes (B, 3, resolution, resolution); one image of zeros is sent through it.
    pattern : regular expression on whole module paths, instead of the rule of :func:`candidates`.

    Raises
    ------
    UserError
        If nothing is there to probe, or a module's output cannot be pooled.
    """
    chosen = candidates(model) if pattern is None else _matching(model, pattern)
    if not chosen:
        raise UserError("no layer to probe: neither transformer blocks nor convolutions; name layers by a pattern")
    prefix = int(getattr(model, "num_prefix_tokens", 0))
    found: dict[str, ProbedLayer] = {}

    def watch(name: str, kind: Kind) -> Callable[[nn.Module, object, object], None]:
        """A hook that notes one layer."""

        def note(_module: nn.Module, _inputs: object, output: object) -> None:
            """Keep its shape the first time it runs."""
            if not isinstance(output, Tensor) or output.dim() < 2:
                shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
                raise UserError(f"layer {name}: its output ({shape}) is no map, no sequence of tokens and no vector")
            shown: Kind = "vector" if output.dim() == 2 else kind
            tokens = prefix if output.dim() == 3 else 0
            width = pool(output, shown, prefix_tokens=tokens).shape[1]
            side = output.shape[2] if shown == "conv" else 0
            found.setdefault(name, ProbedLayer(name, shown, width, tokens, side))

        return note

    modules = dict(model.named_modules())
    handles = [modules[name].register_forward_hook(watch(name, kind)) for name, kind in chosen.items()]
    training, example = model.training, next(model.parameters())
    try:
        with torch.inference_mode():
            model.eval()(torch.zeros(1, 3, resolution, resolution, device=example.device, dtype=example.dtype))
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return list(found.values())
