"""What a network shows of itself: the shapes that go into and come out of every module, without memory.

Two passes, at two resolutions and two batch sizes, tell batch, space and channels apart (:mod:`sweep.models.layout`).
They run on the meta device: shapes only, no weights, no arithmetic.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from sweep.models.shapes import Shapes

Shape = tuple[int, ...]
Make = Callable[[int], nn.Module]  # input side, px → the network for it, on the meta device
# Neither is twice the other or a usual side of a map: an axis that has the one and then the other is the batch
BATCHES = (7, 11)
_PRODUCTS = frozenset(
    {
        torch.matmul,
        torch.bmm,
        torch.baddbmm,
        torch.einsum,
        Tensor.matmul,
        Tensor.__matmul__,
        Tensor.bmm,
        F.scaled_dot_product_attention,
        F.multi_head_attention_forward,
    }
)


@dataclass
class Seen:
    """What one module did in a pass.

    Attributes
    ----------
    inputs, outputs : shapes of the tensors that went in and came out the first time, in order.
    calls : how often it ran.
    attends : whether activations were multiplied with activations in it.
    """

    inputs: tuple[Shape, ...] = ()
    outputs: tuple[Shape, ...] = ()
    calls: int = 0
    attends: bool = False


@dataclass(frozen=True)
class Pass:
    """A pass through a network: what was seen of every module, in the order they finished; ``error`` if it broke."""

    batch: int
    resolution: int
    seen: dict[str, Seen] = field(default_factory=dict)
    outputs: tuple[Shape, ...] = ()  # of the network
    error: str | None = None


@dataclass(frozen=True)
class Evidence:
    """A network on the meta device with its passes at a resolution and at twice that."""

    model: nn.Module
    one: Pass
    two: Pass


def gather(make: Make, resolution: int, *, asked: int | None = None) -> Evidence:
    """Two passes of a network, at a resolution and at its double.

    Twice, because what divides a side (patches, windows, strides) divides its double. A network that takes one
    resolution only is made again for the other; what cannot run at the other is seen once more at the first, with
    another batch, which shows the batch but no places.

    Parameters
    ----------
    asked : another resolution, for a network that does not take the first.
    """
    try:
        model = make(resolution)
        one = watch(model, BATCHES[0], resolution)
    except Exception:  # a constructor of any library
        if asked in (None, resolution):
            raise
        one = Pass(BATCHES[0], resolution, error="it cannot be built")
    if one.error is not None and asked is not None and asked != resolution:
        return gather(make, asked)
    two = watch(model, BATCHES[1], 2 * resolution)
    if two.error is not None or not _follows(one, two):
        try:
            again = watch(make(2 * resolution), BATCHES[1], 2 * resolution)
        except Exception as error:  # a constructor of any library
            again = Pass(BATCHES[1], 2 * resolution, error=_words(error))
        two = again if len(again.seen) > len(two.seen) or again.error is None else two
    if two.error is not None:
        two = replace(two, seen={**watch(model, BATCHES[1], resolution).seen, **two.seen})
    return Evidence(model, one, two)


def _follows(one: Pass, two: Pass) -> bool:
    """Whether anything in a network follows the side of its images; some shrink every image to one size."""
    return any(
        a[1:] != b[1:]
        for name, note in two.seen.items()
        for a, b in zip(one.seen[name].outputs, note.outputs, strict=False)
        if name in one.seen
    )


def watch(model: nn.Module, batch: int, resolution: int) -> Pass:
    """Send zeros through a network and note the shapes; what ran before an error is kept."""
    seen: dict[str, Seen] = {}
    example = next(model.parameters(), torch.empty(0))
    images = torch.zeros(batch, 3, resolution, resolution, device=example.device, dtype=example.dtype)
    training = model.training
    try:
        with Shapes(), _hooks(model, seen), torch.inference_mode():  # the hooks see every call
            outputs = tensors(model.eval()(images))
    except Exception as error:  # of any library: what could not run is said, not raised
        return Pass(batch, resolution, seen, error=_words(error))
    finally:
        model.train(training)
    return Pass(batch, resolution, seen, tuple(tuple(each.shape) for each in outputs))


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


@contextmanager
def _hooks(model: nn.Module, seen: dict[str, Seen]) -> Iterator[None]:
    running: list[str] = []
    notes = {name: Seen() for name, _ in model.named_modules() if name}
    handles = []
    for name, module in model.named_modules():
        if name:
            handles.append(module.register_forward_pre_hook(_enter(name, running)))
            handles.append(module.register_forward_hook(_leave(name, running, notes[name], seen), with_kwargs=True))
    try:
        with _Products(running, notes):
            yield
    finally:
        for handle in handles:
            handle.remove()


def _enter(name: str, running: list[str]) -> Callable[[nn.Module, Any], None]:
    return lambda _module, _inputs: running.append(name)


def _leave(name: str, running: list[str], note: Seen, seen: dict[str, Seen]) -> Callable[..., None]:
    def leave(_module: nn.Module, inputs: Any, named: Any, output: Any) -> None:
        """Keep the shapes of the first call."""
        running.pop()
        note.calls += 1
        if note.calls == 1:
            note.inputs = tuple(tuple(each.shape) for each in tensors([inputs, named]))
            note.outputs = tuple(tuple(each.shape) for each in tensors(output))
            seen[name] = note

    return leave


def tensors(value: Any) -> list[Tensor]:
    """The tensors in a value of nested tuples, lists and dictionaries, in order."""
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [found for part in parts for found in tensors(part)]


class _Products(TorchFunctionMode):
    """Marks the running modules where activations are multiplied with activations: attention, in any form.

    A product with a single row or column only weighs and adds up, as a gate's pooling does, and mixes no places.
    """

    def __init__(self, running: list[str], notes: dict[str, Seen]) -> None:
        super().__init__()
        self._running, self._notes = running, notes

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in _PRODUCTS and self._running and _mixes(tensors(list(args)), result):
            for name in self._running:
                self._notes[name].attends = True
        return result


def _mixes(operands: list[Tensor], result: Any) -> bool:
    if len(operands) < 2 or any(isinstance(each, nn.Parameter) for each in operands[:2]):
        return False
    shape = tensors(result)[0].shape
    return len(shape) >= 3 and min(shape[-2:]) > 1


def on_meta(model: nn.Module) -> nn.Module:
    """A copy of a network without memory."""
    known: dict[int, Any] = {}
    for parameter in model.parameters():
        known[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"), parameter.requires_grad)
    for buffer in model.buffers():
        known[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(model, known)
