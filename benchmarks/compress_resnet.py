"""A small residual network for images of 28×28 pixels, and its training."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kronmodel.data.dataset import Dataset
from kronmodel.training.config import TrainConfig
from kronmodel.training.loop import train

CHANNELS = (16, 32, 64)
TRAINED = 20_000  # images
CONFIG = TrainConfig(epochs=3, learning_rate=5e-3, shift=1, flip=True)


class Residual(nn.Module):
    """Two convolutions of 3×3 and a way around them."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.around = nn.Conv2d(before, after, 1, stride, bias=False) if before != after else nn.Identity()
        self.norms = nn.ModuleList(nn.BatchNorm2d(after) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norms[0](self.first(x)))
        return F.relu(self.norms[1](self.second(y)) + self.around(x))


class ResNet(nn.Module):
    """A convolution, six residual blocks and a linear layer, on flat images."""

    def __init__(self) -> None:
        super().__init__()
        blocks: list[nn.Module] = [nn.Conv2d(1, CHANNELS[0], 3, 2, 1), nn.ReLU()]
        before = CHANNELS[0]
        for width in CHANNELS:
            blocks += [Residual(before, width, 1 if width == before else 2), Residual(width, width, 1)]
            before = width
        self.blocks = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.blocks(x.unflatten(1, (1, 28, 28)))
        return y


def trained(data: Dataset) -> nn.Module:
    torch.manual_seed(0)
    network = ResNet()
    part = replace(data, x_train=data.x_train[:TRAINED], y_train=data.y_train[:TRAINED])
    train(network, part, CONFIG)
    return network.eval()
