"""Networks without memory, quickly: where only shapes are asked for, what keeps or fills a tensor is not worked out.

On the meta device torch takes a normalisation apart into some fifteen operators of Python, and random initial weights
into five, all of which end with the shape that they began with: half of the time of a network's two passes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_FILL = frozenset(
    (Tensor.uniform_, Tensor.normal_, Tensor.erfinv_, Tensor.clamp_, Tensor.mul_, Tensor.add_, Tensor.fill_)
)


def _of_channels(shape: torch.Size, running_mean: Tensor | None = None, *_: object, **__: object) -> bool:
    return running_mean is None or (len(shape) > 1 and len(running_mean) == shape[1])


def _of_last(shape: torch.Size, normalized_shape: Any, *_: object, **__: object) -> bool:
    return tuple(shape[-len(normalized_shape) :]) == tuple(normalized_shape)


def _of_groups(shape: torch.Size, num_groups: int, *_: object, **__: object) -> bool:
    return len(shape) > 1 and shape[1] % num_groups == 0


# whether a tensor of some shape goes in, by the arguments behind it; where it does not, torch says so in its own words
_KEEP: Mapping[Any, Callable[..., bool]] = {
    F.batch_norm: _of_channels,
    F.instance_norm: _of_channels,
    F.layer_norm: _of_last,
    F.group_norm: _of_groups,
}


class Shapes(TorchFunctionMode):
    """Normalisation of a tensor without memory gives another of its shape; numbers that fill it give it back."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if args and isinstance(args[0], Tensor) and args[0].is_meta:
            if func in _FILL and not any(isinstance(other, Tensor) for other in (*args[1:], *kwargs.values())):
                return args[0]
            if func in _KEEP and _KEEP[func](args[0].shape, *args[1:], **kwargs):
                return torch.empty_like(args[0])
        return func(*args, **kwargs)
