"""VGGm of [H24] A.2: VGG convolutions with batch norm, global average pooling and one linear head.

Shapes: B batch, C channels, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

from timm.layers import SelectAdaptivePool2d
from torch import Tensor, nn


class VGGm(nn.Module):
    """A stack of 3×3 convolutions and 2×2 max-pools.

    Parameters
    ----------
    plan : channels of each convolution in order; 0 stands for a max-pool.
    classes : outputs of the head.

    Notes
    -----
    Convolutions carry a bias, as torchvision's ``vgg*_bn`` do. Weights start as PyTorch's layers do.
    """

    def __init__(self, plan: Sequence[int], classes: int) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        channels = 3
        for width in plan:
            if width == 0:
                parts.append(nn.MaxPool2d(2))
                continue
            parts += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            channels = width
        self.features = nn.Sequential(*parts)
        self.pool = SelectAdaptivePool2d(flatten=True)
        self.head = nn.Linear(channels, classes)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits (B, classes)."""
        return self.head(self.pool(self.features(images_BCHW)))
