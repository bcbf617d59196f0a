"""The CIFAR-10 ResNets of He et al. (2016), §4.2, that published checkpoints of 20 to 56 layers fit."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DEPTHS = (20, 32, 44, 56)


class Block(nn.Module):
    """Two 3×3 convolutions; a shortcut that halves the side pads the channels with zeros (option A)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self._stride, self._pad = stride, (outputs - inputs) // 2

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x_BCHW)))))
        short_BCHW = x_BCHW[:, :, :: self._stride, :: self._stride]
        return F.relu(y_BCHW + F.pad(short_BCHW, (0, 0, 0, 0, self._pad, self._pad)))


class CifarResNet(nn.Module):
    """6n + 2 layers."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(Block(16, 16, 1) for _ in range(blocks)))
        self.layer2 = nn.Sequential(*(Block(16 if n == 0 else 32, 32, 2 if n == 0 else 1) for n in range(blocks)))
        self.layer3 = nn.Sequential(*(Block(32 if n == 0 else 64, 64, 2 if n == 0 else 1) for n in range(blocks)))
        self.linear = nn.Linear(64, 10)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = F.relu(self.bn1(self.conv1(x_BCHW)))
        return self.linear(self.layer3(self.layer2(self.layer1(x_BCHW))).mean((2, 3)))


def published(directory: Path, depth: int) -> CifarResNet:
    """The checkpoint of a depth (akamaster/pytorch_resnet_cifar10)."""
    (file,) = directory.glob(f"resnet{depth}-*.th")
    state = torch.load(file, map_location="cpu", weights_only=True)["state_dict"]
    model = CifarResNet(depth)
    model.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
    return model.eval()
