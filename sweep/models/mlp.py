"""The multilayer perceptron of [M23]: dense layers with ReLU on the flattened image, and a linear head.

Shapes: B batch, C channels, H and W pixels, D units of a layer.
"""

from __future__ import annotations

from torch import Tensor, nn


class MLP(nn.Module):
    """Hidden layers of one width, without normalisation or skips.

    Parameters
    ----------
    resolution : side of the images, which the first layer is made for.
    depth, width : hidden layers, and units of each.
    classes : outputs of the head.

    Notes
    -----
    A layer's output is taken before its activation, as that of a convolution. Weights start as PyTorch's layers do.
    """

    def __init__(self, *, resolution: int, depth: int, width: int, classes: int) -> None:
        super().__init__()
        inputs = [3 * resolution**2, *[width] * (depth - 1)]
        self.hidden = nn.ModuleList(nn.Linear(given, width) for given in inputs)
        self.head = nn.Linear(width, classes)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits (B, classes)."""
        x_BD = images_BCHW.flatten(1)
        for layer in self.hidden:
            x_BD = layer(x_BD).relu()
        return self.head(x_BD)
