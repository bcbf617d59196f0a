"""The memory layout that a network's layers are fast with: a rule, so that numbers do not depend on what else runs."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sweep.models.layers import ProbedLayer

_SMALL_MAPS = 600_000  # less than so many numbers in all maps of an image


_MANY_CHANNELS = 384  # of the widest layer, from which on convolutions of small maps are faster with channels first


def memory_layout(layers: Sequence[ProbedLayer], device: torch.device) -> torch.memory_format:
    """Channels last, as images are stored; on CPU channels first for small maps of many channels: a rule of layers."""
    widest = max((layer.channels for layer in layers if layer.side), default=0)
    if device.type == "cuda" or not small_maps(layers) or widest < _MANY_CHANNELS:
        return torch.channels_last
    return torch.contiguous_format


def small_maps(layers: Sequence[ProbedLayer]) -> bool:
    """Whether all probed maps of an image together are small: then a CPU takes more images at a time."""
    return 0 < sum(layer.channels * layer.side**2 for layer in layers) < _SMALL_MAPS
