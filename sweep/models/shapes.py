"""Networks without memory, quickly: where only shapes are asked for, what is known of them is not worked out.

On the meta device torch takes a normalisation apart into some fifteen operators of Python, a linear layer into six and
random initial weights into five: three quarters of the time that operators take in a network's two passes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn import init
from torch.overrides import TorchFunctionMode

_FILL = frozenset(
    (Tensor.uniform_, Tensor.normal_, Tensor.erfinv_, Tensor.clamp_, Tensor.mul_, Tensor.add_, Tensor.fill_)
)
_DRAW = frozenset((init.normal_, init.uniform_))  # these name what they fill; others look at its shape
_ELEMENTWISE = (F.relu, F.relu6, F.gelu, F.silu, F.hardswish, F.hardsigmoid, F.hardtanh, F.leaky_relu, F.dropout)
_ARITHMETIC = (Tensor.add, Tensor.sub, Tensor.mul, Tensor.div, torch.add, torch.sub, torch.mul, torch.div)


def _always(_x: Tensor, *_: object, **__: object) -> bool:
    return True


def _of_channels(x: Tensor, running_mean: Tensor | None = None, *_: object, **__: object) -> bool:
    return running_mean is None or (x.ndim > 1 and len(running_mean) == x.shape[1])


def _of_last(x: Tensor, normalized_shape: Any, *_: object, **__: object) -> bool:
    return tuple(x.shape[-len(normalized_shape) :]) == tuple(normalized_shape)


def _of_groups(x: Tensor, num_groups: int, *_: object, **__: object) -> bool:
    return x.ndim > 1 and x.shape[1] % num_groups == 0


def _along(x: Tensor, p: float = 2.0, dim: Any = 1, *_: object, out: Tensor | None = None, **__: object) -> bool:
    return out is None and isinstance(dim, int) and -x.ndim <= dim < x.ndim


def _spreads(x: Tensor, other: Any = None, *more: object, **named: object) -> bool:
    """A number, or a tensor that lies over the first one without making it larger or laying it out anew."""
    if more or named:
        return False
    if not isinstance(other, Tensor):
        return isinstance(other, int | float)
    if other.dtype != x.dtype or not other.is_meta or other.ndim > x.ndim:
        return False
    if other.shape == x.shape:
        return other.stride() == x.stride()
    return all(n in (1, of) for n, of in zip(reversed(other.shape), reversed(x.shape), strict=False))


# whether a tensor goes in and keeps its shape, by all arguments; where not, torch works it out or says what is wrong
_KEEP: Mapping[Any, Callable[..., bool]] = {
    F.batch_norm: _of_channels,
    F.instance_norm: _of_channels,
    F.layer_norm: _of_last,
    F.group_norm: _of_groups,
    F.normalize: _along,
    **dict.fromkeys(_ELEMENTWISE, _always),
    **dict.fromkeys(_ARITHMETIC, _spreads),
}


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[int, ...] | None:
    rows, alike = tuple(weight.shape[:1]), weight.is_meta and weight.dtype == x.dtype
    fits = alike and x.ndim > 0 and weight.ndim == 2 and x.shape[-1] == weight.shape[1]
    return (*x.shape[:-1], *rows) if fits and (bias is None or bias.shape == rows) else None


def _attention(query: Tensor, key: Any = None, value: Any = None, *more: Any, **named: Any) -> tuple[int, ...] | None:
    """Of as many heads in all three, without a mask, which can fail to fit; a dropout is none here."""
    mask = named.get("attn_mask", more[0] if more else None)
    parts = (key, value)
    if mask is not None or named.get("enable_gqa") or not all(isinstance(x, Tensor) and x.is_meta for x in parts):
        return None
    alike = query.dtype == key.dtype == value.dtype and query.shape[:-2] == key.shape[:-2] == value.shape[:-2]
    fits = alike and query.ndim > 2 and query.shape[-1] == key.shape[-1] and key.shape[-2] == value.shape[-2]
    return (*query.shape[:-1], value.shape[-1]) if fits else None


# the shape of what comes out, or None: torch works it out
_MAKE: Mapping[Any, Callable[..., tuple[int, ...] | None]] = {
    F.linear: _linear,
    F.scaled_dot_product_attention: _attention,
}


def _like(x: Tensor) -> Tensor:
    """``torch.empty_like``, which works out in Python what is plain where no place is left out."""
    whole = x.is_contiguous() or (x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last))
    return x.new_empty_strided(x.shape, x.stride()) if whole else torch.empty_like(x)


class Shapes(TorchFunctionMode):
    """What gives a tensor without memory a shape that is known gives one of that shape; what fills it gives it back."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _DRAW and isinstance(filled := kwargs.get("tensor"), Tensor) and filled.is_meta:
            return filled
        if args and isinstance(x := args[0], Tensor) and x.is_meta:
            if func in _FILL and not any(isinstance(other, Tensor) for other in (*args[1:], *kwargs.values())):
                return x
            if x.is_floating_point():
                if func in _KEEP and _KEEP[func](*args, **kwargs):
                    return _like(x)
                if func in _MAKE and (shape := _MAKE[func](*args, **kwargs)) is not None:
                    return x.new_empty(shape)
        return func(*args, **kwargs)
