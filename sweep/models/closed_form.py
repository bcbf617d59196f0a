"""The study's own architectures step by step, in closed form: module paths, channels, map sides, parameters, FLOPs.

Nothing is imported but the standard library; tests hold every number against the real networks.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

# Channels of each 3×3 convolution, 0 a 2×2 max-pool ([H24] A.2; VGG-13 and VGG-19 with one head)
_VGG11 = (64, 64, 0, 128, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0)
_VGG17 = (64, 64, 0, 128, 128, 0, *(256,) * 4, 0, *(512,) * 4, 0, *(512,) * 4, 0)


def _without_first_pools(plan: tuple[int, ...]) -> tuple[int, ...]:
    first, second = [i for i, channels in enumerate(plan) if channels == 0][:2]
    return tuple(channels for i, channels in enumerate(plan) if i not in (first, second))


VGGS: Mapping[str, tuple[int, ...]] = {
    "vggm11": _VGG11,
    "vggm17": _VGG17,
    "vggm11_dagger": _without_first_pools(_VGG11),
    "vggm17_dagger": _without_first_pools(_VGG17),
}
_STAGES = (64, 128, 256, 512, 512)  # channels of VGG's, each ends in a max-pool
VGG_NAME, MLP_NAME = r"vggm(\d{1,3})(_dagger)?", r"mlp(\d{1,3})x(\d{1,5})"


@functools.cache
def vgg_plan(name: str) -> tuple[int, ...] | None:
    """Channels of a plain CNN ``vggm{depth}`` or ``vggm{depth}_dagger``, as :data:`VGGS` has them; None if it is none.

    ``depth`` counts convolutions and the head, as in [H24], from 6. Convolutions are spread over VGG's five stages, the
    deeper ones first, two at most in the first two: 11 and 17 are those of [H24], 9 and 14 VGG-11's and VGG-16's.
    """
    if name in VGGS:
        return VGGS[name]
    found = re.fullmatch(VGG_NAME, name)
    convolutions = int(found[1]) - 1 if found else 0
    if found is None or found[1].startswith("0") or convolutions < len(_STAGES):
        return None
    counts = _spread(convolutions, len(_STAGES))
    if counts[0] > 2:
        counts = [2, 2, *_spread(convolutions - 4, 3)]
    plan = tuple(c for channels, count in zip(_STAGES, counts, strict=True) for c in (*(channels,) * count, 0))
    return _without_first_pools(plan) if found[2] else plan


def _spread(number: int, places: int) -> list[int]:
    """A number as equal parts; what is left goes to the last ones."""
    part, more = divmod(number, places)
    return [part + (place >= places - more) for place in range(places)]


def mlp_shape(name: str) -> tuple[int, int] | None:
    """Hidden layers and their width of an MLP ``mlp{depth}x{width}`` ([M23]); None if it is none."""
    found = re.fullmatch(MLP_NAME, name)
    if found is None or found[1].startswith("0") or found[2].startswith("0"):
        return None
    return int(found[1]), int(found[2])


RESNETS: Mapping[str, tuple[int, ...]] = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}
VITS: Mapping[str, int] = {"vit_tiny_patch8": 12, "vit_tiny_plus_patch8": 18}
_VIT_WIDTH, _PATCH, _MLP_RATIO = 192, 8, 4


@dataclass(frozen=True)
class Step:
    """One operation of a forward pass.

    Attributes
    ----------
    name : module path.
    outputs : channels or token width.
    side : of the map, or tokens per side.
    parameters : of the step with its batch or layer norm.
    flops : two per multiply-add, one image.
    probed : whether the step's output is probed.
    """

    name: str
    outputs: int
    side: int
    parameters: int
    flops: float
    probed: bool
    kind: str = "conv"


def scaled(channels: int, width: float) -> int:
    """Channels under a width multiplier: rounded, at least one."""
    return max(1, round(channels * width))


@functools.lru_cache(maxsize=4096)
def trace(name: str, *, width: float, resolution: int) -> tuple[Step, ...]:
    """All steps of a built-in architecture but its head; the last step feeds the head."""
    if plan := vgg_plan(name):
        return tuple(_vgg(plan, width, resolution))
    if shape := mlp_shape(name):
        return tuple(_mlp(*shape, width, resolution))
    if name in RESNETS:
        return tuple(_resnet(RESNETS[name], width, resolution))
    return tuple(_vit(VITS[name], width, resolution))


def _convolution(name: str, inputs: int, outputs: int, kernel: int, side: int, *, bias: bool, probed: bool) -> Step:
    weights = inputs * outputs * kernel**2
    parameters = weights + (outputs if bias else 0) + 2 * outputs  # with the batch norm that follows
    return Step(name, outputs, side, parameters, 2.0 * weights * side**2, probed)


def _vgg(plan: tuple[int, ...], width: float, side: int) -> Iterator[Step]:
    module, inputs = 0, 3
    for channels in plan:
        if channels == 0:
            side //= 2
            module += 1
            continue
        outputs = scaled(channels, width)
        yield _convolution(f"features.{module}", inputs, outputs, 3, side, bias=True, probed=True)
        inputs, module = outputs, module + 3


def _mlp(depth: int, units: int, width: float, side: int) -> Iterator[Step]:
    inputs, outputs = 3 * side**2, scaled(units, width)
    for layer in range(depth):
        parameters = (inputs + 1) * outputs
        yield Step(f"hidden.{layer}", outputs, 1, parameters, 2.0 * inputs * outputs, True, "vector")
        inputs = outputs


def _resnet(blocks: tuple[int, ...], width: float, side: int) -> Iterator[Step]:
    inputs, side = scaled(64, width), -(-side // 2)
    yield _convolution("conv1", 3, inputs, 7, side, bias=False, probed=True)
    side = -(-side // 2)  # max-pool
    for stage, count in enumerate(blocks, start=1):
        outputs = scaled(64 * 2 ** (stage - 1), width)
        for block in range(count):
            path = f"layer{stage}.{block}"
            halves = stage > 1 and block == 0
            side = -(-side // 2) if halves else side
            if halves or inputs != outputs:
                yield _convolution(f"{path}.downsample.0", inputs, outputs, 1, side, bias=False, probed=False)
            yield _convolution(f"{path}.conv1", inputs, outputs, 3, side, bias=False, probed=True)
            yield _convolution(f"{path}.conv2", outputs, outputs, 3, side, bias=False, probed=True)
            inputs = outputs


def _vit(depth: int, width: float, resolution: int) -> Iterator[Step]:
    d, side = scaled(_VIT_WIDTH, width), resolution // _PATCH
    tokens, patch = side**2, 3 * _PATCH**2
    yield Step("patch_embed.proj", d, side, (patch + 1) * d, 2.0 * patch * d * tokens, False, "tokens")
    linear = 4 * d**2 + 2 * _MLP_RATIO * d**2  # qkv and projection, both halves of the MLP
    biases = 3 * d + d + _MLP_RATIO * d + d
    flops = 2.0 * linear * tokens + 2 * 2.0 * tokens**2 * d
    for block in range(depth):
        yield Step(f"blocks.{block}", d, side, linear + biases + 4 * d, flops, True, "tokens")
    yield Step("fc_norm", d, side, 2 * d, 0.0, False, "tokens")
