"""How the output of a layer becomes an embedding ([H24] A.4, protocol §5, and other ways that are used).

Shapes: B batch, C channels or token width, H and W map sides, T tokens, D embedding width.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from sweep.models.layout import Layout

_GEM_POWER = 3.0  # generalised mean, Radenović, Tolias, Chum, 2018


def usual(layout: Layout, *, renews_class_only: bool = False) -> str:
    """Pooling of a layer where none is asked for.

    "2x2" for maps channels first, "mean" of the patches for tokens and for maps channels last, as transformers have
    them; "class" for a block that renews class tokens only; "none" for a vector.
    """
    if renews_class_only and "T" in layout.axes:
        return "class"
    if "H" not in layout.axes and "T" not in layout.axes:
        return "none"
    return "2x2" if layout.axes == "BCHW" else "mean"


def problem(layout: Layout, pooling: str) -> str | None:
    """Why a layer cannot be pooled so; None if it can. A vector has nothing to pool and is taken as it is."""
    vector = "H" not in layout.axes and "T" not in layout.axes
    if pooling == "2x2" and "T" in layout.axes:
        return "2x2 is for maps, and this is a sequence of tokens"
    if "class" in pooling and not layout.prefix_tokens and not vector:
        return "it has no class token here"
    return None


def pool(output: Tensor, layout: Layout, pooling: str) -> Tensor:
    """Output of a layer as an embedding (B, D).

    Parameters
    ----------
    output : as the module gives it.
    layout : what its axes are; prefix tokens are no patches.
    pooling : "2x2": a map is averaged to 2×2 and flattened, 4C numbers, one that is 2×2 or smaller is only flattened.
        "mean", "max", "gem" (the cubic mean of what is positive) over the patches or places, C numbers. "class": the
        first prefix token. "class+mean": both, 2C numbers. "none": a vector as it is.

    Raises
    ------
    ValueError
        If the output has not the layout's axes.
    """
    if output.dim() != len(layout.axes) or output.shape[layout.axes.index("C")] != layout.channels:
        raise ValueError(f"its output is {tuple(output.shape)}, where {layout.axes} with C {layout.channels} was shown")
    if pooling == "2x2":
        return _quarters(channels_first(output, layout))
    rows_BTC = rows(output, layout)
    patches_BTC = rows_BTC[:, layout.prefix_tokens :]
    if pooling == "class":
        return rows_BTC[:, 0]
    if pooling == "class+mean":
        return torch.cat([rows_BTC[:, 0], patches_BTC.mean(1)], 1)
    if pooling == "max":
        return patches_BTC.amax(1)
    if pooling == "gem":
        return patches_BTC.clamp(min=1e-6).pow(_GEM_POWER).mean(1).pow(1 / _GEM_POWER)
    return patches_BTC.mean(1) if patches_BTC.shape[1] != 1 else patches_BTC[:, 0]


def channels_first(output: Tensor, layout: Layout) -> Tensor:
    """A map as (B, C, H, W)."""
    if layout.axes == "BCHW":
        return output
    places = [i for i, letter in enumerate(layout.axes) if letter not in "BC"]
    return output.permute(0, layout.axes.index("C"), *places)


def rows(output: Tensor, layout: Layout) -> Tensor:
    """Places or tokens of an output as (B, T, C), prefix tokens among them; a vector has one."""
    axes = layout.axes
    if axes[-1] == "C":
        return output.flatten(1, -2) if output.dim() > 2 else output[:, None]
    places = [i for i, letter in enumerate(axes) if letter not in "BC"]
    return output.permute(0, *places, axes.index("C")).flatten(1, -2)


def _quarters(map_BCHW: Tensor) -> Tensor:
    if map_BCHW.shape[2] <= 2 and map_BCHW.shape[3] <= 2:
        return map_BCHW.flatten(1)
    if map_BCHW.device.type != "cpu" or not map_BCHW.is_contiguous():
        return F.adaptive_avg_pool2d(map_BCHW, 2).flatten(1)
    with torch.autocast("cpu", enabled=False):  # of a map channels first, a matmul: two to twelve times faster
        return (map_BCHW.flatten(2) @ _averages(*map_BCHW.shape[2:]).to(map_BCHW.dtype)).flatten(1)


@lru_cache(maxsize=256)
@torch.inference_mode(mode=False)
def _averages(height: int, width: int) -> Tensor:
    """(H W, 4): the shares that each place of a map has in its 2×2 averages, as ``adaptive_avg_pool2d`` shares them."""
    rows_H2, columns_W2 = (F.adaptive_avg_pool1d(torch.eye(side)[None], 2)[0] for side in (height, width))
    return torch.einsum("ha,wb->hwab", rows_H2, columns_W2).reshape(height * width, 4)
