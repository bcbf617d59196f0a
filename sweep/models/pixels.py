"""Pixels as a network wants them: normalised, and in the memory layout that its layers are fast with.

Shapes: N images, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sweep.models.layers import ProbedLayer

_SMALL_MAPS = 600_000  # less than so many numbers in all maps of an image


_MANY_CHANNELS = 384  # of the widest layer, from which on convolutions of small maps are faster with channels first


def normalize(images_NHWC: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 (N, H, W, 3) images in [0, 255] to standardised float (N, 3, H, W), on the images' device."""
    shape = images_NHWC.shape
    mean_W3, std_W3 = (torch.tensor(each, device=images_NHWC.device).repeat(shape[2]) for each in (mean, std))
    rows_NHW3 = images_NHWC.reshape(*shape[:2], -1).float() / 255  # rows of pixels: loops over three channels are slow
    return rows_NHW3.sub_(mean_W3).div_(std_W3).view(shape).permute(0, 3, 1, 2)


def memory_layout(layers: Sequence[ProbedLayer], device: torch.device) -> torch.memory_format:
    """Channels last, as images are stored; on CPU channels first for small maps of many channels: a rule of layers."""
    widest = max((layer.channels for layer in layers if layer.side), default=0)
    if device.type == "cuda" or not small_maps(layers) or widest < _MANY_CHANNELS:
        return torch.channels_last
    return torch.contiguous_format


def small_maps(layers: Sequence[ProbedLayer]) -> bool:
    """Whether all probed maps of an image together are small: then a CPU takes more images at a time."""
    return 0 < sum(layer.channels * layer.side**2 for layer in layers) < _SMALL_MAPS
