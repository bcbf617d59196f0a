"""The memory layout that a network's layers are fast with: a rule, so that numbers do not depend on what else runs."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sweep.models.layers import ProbedLayer

_SMALL_MAPS = 600_000  # less than so many numbers in all maps of an image


_MANY_CHANNELS = 384  # of the widest layer, from which on convolutions of small maps are faster with channels first


def memory_layout(
    layers: Sequence[ProbedLayer], device: torch.device, *, precision: str | None = None
) -> torch.memory_format:
    """Channels last, as images are stored, but where channels first was measured to be faster: a rule of layers.

    That is on CPU small maps of many channels, and on a GPU large maps where convolutions keep all bits of float32:
    tensor cores, which want channels last, do not work on these.
    """
    small, widest = small_maps(layers), max((layer.channels for layer in layers if layer.side), default=0)
    if device.type == "cuda":
        first = precision == "float32" and widest > 0 and not small
    else:
        first = small and widest >= _MANY_CHANNELS
    return torch.contiguous_format if first else torch.channels_last


def small_maps(layers: Sequence[ProbedLayer]) -> bool:
    """Whether all probed maps of an image together are small: then a CPU takes more images at a time."""
    return 0 < sum(layer.channels * layer.side**2 for layer in layers) < _SMALL_MAPS
