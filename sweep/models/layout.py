"""Which axis of an output is which, from its shapes in two passes; nothing is guessed from a name.

Letters of a layout: B batch, C channels, H and W places of a map, T tokens, 1 an axis of length one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from sweep.models.evidence import BATCHES, Seen, Shape

_MOST_PREFIX = 32  # class tokens and registers that a sequence may begin with


@dataclass(frozen=True)
class Layout:
    """Meaning of every axis of an output.

    Attributes
    ----------
    axes : a letter an axis, e.g. "BCHW", "BHWC", "BTC", "BC".
    channels : length of axis C.
    prefix_tokens : tokens at the front of axis T that are no patches.
    tensor : which of the tensors that the module puts out it is.
    """

    axes: str
    channels: int
    prefix_tokens: int = 0
    tensor: int = 0


@dataclass(frozen=True)
class Unclear:
    """Why a layout cannot be told."""

    why: str


@dataclass(frozen=True)
class Stated:
    """What classes and the network itself state, beside the shapes.

    Attributes
    ----------
    convolution : the module is a Conv2d: axis 1 is channels, 2 and 3 are places, says torch.
    prefix_tokens : class tokens and registers that the network says its sequences begin with; None: it says nothing.
    first : whether a class is known to keep such tokens in front although the network does not count them.
    """

    convolution: bool = False
    prefix_tokens: int | None = None
    first: bool = False


def layout(one: Seen | None, two: Seen | None, stated: Stated) -> Layout | Unclear:
    """The layout of an output that has shapes in two passes (:data:`sweep.models.evidence.BATCHES`, side doubled)."""
    if one is None:
        return Unclear("it does not run")
    if one.calls > 1:
        return Unclear(f"it runs {one.calls} times in one pass, so it has no one output")
    if two is None:
        return Unclear(f"{_shown(one.outputs)}, and it does not run a second time to compare with")
    tensor = _tensor(one, two)
    if isinstance(tensor, Unclear):
        return tensor
    found = _named(one.outputs[tensor], two.outputs[tensor], stated)
    return replace(found, tensor=tensor) if isinstance(found, Layout) else found


def _tensor(one: Seen, two: Seen) -> int | Unclear:
    """Which tensor is the only one that begins with the batch in both passes."""
    seen = f"{_shown(one.outputs)} of {BATCHES[0]} images, {_shown(two.outputs)} of {BATCHES[1]} the second time"
    if len(one.outputs) != len(two.outputs) or not one.outputs:
        return Unclear(f"{seen}: no tensor, or not the same number of them")
    pairs = enumerate(zip(one.outputs, two.outputs, strict=True))
    found = [i for i, (a, b) in pairs if (a[:1], b[:1]) == ((BATCHES[0],), (BATCHES[1],))]
    if not found:
        return Unclear(f"{seen}: its first axis is not the images alone")
    if len(found) > 1:  # a state beside the stream: one of them alone is shaped as what went in
        found = [i for i in found if one.outputs[i] in one.inputs and two.outputs[i] in two.inputs]
    if len(found) != 1:
        return Unclear(f"{seen}: several tensors, and nothing says which is the layer's output")
    return found[0]


def _shown(shapes: tuple[Shape, ...]) -> str:
    return ", ".join(str(shape) for shape in shapes) or "no tensor"


def _named(one: Shape, two: Shape, stated: Stated) -> Layout | Unclear:
    seen = f"{one} of {BATCHES[0]} images, {two} of {BATCHES[1]} the second time"
    if len(one) != len(two):
        return Unclear(f"{seen}: another number of axes")
    grown = [axis for axis in range(1, len(one)) if one[axis] != two[axis]]
    same = [axis for axis in range(1, len(one)) if axis not in grown and one[axis] != 1]
    if stated.convolution:
        same = [1] if 1 not in grown and not set(same) - {1} else [*same, 1]
    if len(same) != 1 or len(grown) > 2:
        return Unclear(f"{seen}: {len(same)} axes stay and {len(grown)} follow the side, so channels cannot be told")
    if any(not _follows(one[axis], two[axis], 1 if len(grown) == 2 else 2) for axis in grown):
        return Unclear(f"{seen}: no axis follows the side of the image as places or tokens do")
    letters = ["B", *"1" * (len(one) - 1)]
    letters[same[0]] = "C"
    for axis, letter in zip(grown, "HW" if len(grown) == 2 else "T", strict=False):
        letters[axis] = letter
    if len(grown) != 1:
        return Layout("".join(letters), one[same[0]])
    prefix = _prefix(one[grown[0]], two[grown[0]], stated)
    if isinstance(prefix, Unclear):
        return Unclear(f"{seen}: {prefix.why}")
    return Layout("".join(letters), one[same[0]], prefix)


def _follows(one: int, two: int, power: int) -> bool:
    """Whether a length grows as sides do (power 1: by two) or tokens (power 2: by two or four), up to borders."""
    if one <= 2:  # of so few any number may become, with a kernel as large as the map
        return two > one
    return 1.4 <= two / one <= 1.5 * 2.0**power


def _prefix(one: int, two: int, stated: Stated) -> int | Unclear:
    """Tokens in front of the patches: what is left of a sequence when the patches fill a square at both sides.

    197 and 785 tokens are 1 + 14² and 1 + 28². Where several numbers would do, the network's own statement decides.
    """
    possible = [
        prefix
        for prefix in range(min(_MOST_PREFIX, one))
        if (sides := (_root(one - prefix), _root(two - prefix))) != (0, 0) and _doubles(*sides)
    ]
    if stated.prefix_tokens in possible:
        possible = [stated.prefix_tokens or 0]
    if len(possible) != 1:
        said = "says nothing" if stated.prefix_tokens is None else f"says {stated.prefix_tokens}"
        return Unclear(f"class tokens and patches cannot be told apart (possible: {possible}; the network {said})")
    (prefix,) = possible
    if prefix > (stated.prefix_tokens or 0) and not stated.first:
        return Unclear(f"{prefix} of its tokens are no patches, and nothing says which")
    return prefix


def _root(number: int) -> int:
    """Exact square root, 0 if there is none."""
    root = math.isqrt(number)
    return root if root * root == number else 0


def _doubles(one: int, two: int) -> bool:
    return one > 0 and two > 0 and abs(two - 2 * one) <= 1
