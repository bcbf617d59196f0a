"""The ResNets for CIFAR-10 of He et al. 2016 (section 4.2) as plug-ins, with the names of the published weights.

``cifar.yaml`` beside this file probes the four networks of github.com/akamaster/pytorch_resnet_cifar10.

Shapes: N images, C channels, H and W pixels.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from timm.models.resnet import BasicBlock
from torch import Tensor, nn
from torch.nn import functional as F

from sweep.plugins import register_model


class Padded(nn.Module):
    """The shortcut without weights (option A): every other pixel, and zeros for the new channels."""

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Twice the channels at half the side."""
        added = x_NCHW.shape[1] // 2
        return F.pad(x_NCHW[:, :, ::2, ::2], (0, 0, 0, 0, added, added))


def cifar_resnet(blocks: int, classes: int) -> nn.Module:
    """Three stages of so many blocks, 16, 32 and 64 channels wide."""
    parts: OrderedDict[str, nn.Module] = OrderedDict(conv1=nn.Conv2d(3, 16, 3, padding=1, bias=False))
    parts |= {"bn1": nn.BatchNorm2d(16), "act1": nn.ReLU()}
    for number, (before, width) in enumerate(((16, 16), (16, 32), (32, 64)), start=1):
        first = BasicBlock(before, width, stride=width // before, downsample=None if number == 1 else Padded())
        parts[f"layer{number}"] = nn.Sequential(first, *(BasicBlock(width, width) for _ in range(blocks - 1)))
    parts |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "linear": nn.Linear(64, classes)}
    return nn.Sequential(parts)


def _of_depth(depth: int) -> Callable[..., nn.Module]:
    return lambda *, classes, resolution, width: cifar_resnet((depth - 2) // 6, classes)


for _depth in (20, 32, 44, 56):
    register_model(f"cifar_resnet{_depth}", family="CNN", depth=_depth, spatial_reduction=1.0, min_resolution=8)(
        _of_depth(_depth)
    )
