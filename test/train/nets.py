"""Small networks for the tests of training; a module of its own since it imports PyTorch."""

from __future__ import annotations

from torch import Tensor, nn


class SmallCNN(nn.Module):
    """Images [N, 3, 8, 8] to 10 classes; every kind of layer that stays dense is in it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 64, 3, padding=1)
        self.norm = nn.BatchNorm2d(64)
        self.act = nn.ReLU()
        self.depthwise = nn.Conv2d(64, 64, 3, padding=1, groups=64)
        self.conv = nn.Conv2d(64, 80, 3, stride=4, padding=1)
        self.hidden = nn.Linear(80 * 4, 64)
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.norm(self.first(x)))
        y = self.act(self.conv(self.depthwise(y)))
        return self.head(self.act(self.hidden(y.flatten(1))))


def mlp(width: int = 128) -> nn.Sequential:
    """[N, 64] to 10 classes."""
    return nn.Sequential(
        nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
    )
