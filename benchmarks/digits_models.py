"""Two small networks for images of 8 x 8, so wide that nearly all weights lie in banks of 64."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CLASSES = 10


class DigitsCNN(nn.Module):
    """Three convolutions with batch normalisation and two linear layers; `x` is `[N, 1, 8, 8]`."""

    def __init__(self, channels: int = 64):
        super().__init__()
        self.features = nn.Sequential(
            *_convolution(1, channels, stride=1),
            *_convolution(channels, channels, stride=2),
            *_convolution(channels, 2 * channels, stride=2),
        )
        self.hidden = nn.Sequential(nn.Linear(8 * channels, 2 * channels), nn.ReLU())
        self.head = nn.Linear(2 * channels, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.hidden(self.features(x).flatten(1)))


def _convolution(inputs: int, outputs: int, stride: int) -> tuple[nn.Module, ...]:
    filters = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return filters, nn.BatchNorm2d(outputs), nn.ReLU()


class DigitsTransformer(nn.Module):
    """Two encoder layers over the eight rows of pixels; `x` is `[N, 1, 8, 8]`."""

    def __init__(self, hidden: int = 128, layers: int = 2, heads: int = 4):
        super().__init__()
        self.embed = nn.Linear(8, hidden)
        self.position = nn.Parameter(torch.randn(8, hidden) * 0.1)
        self.layers = nn.Sequential(*(EncoderLayer(hidden, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(hidden)
        self.head = nn.Linear(hidden, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x.squeeze(1)) + self.position
        return self.head(self.norm(self.layers(tokens)).mean(1))


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward part of twice the width, each normalised first."""

    def __init__(self, hidden: int, heads: int):
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(hidden)
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden)
        self.value = nn.Linear(hidden, hidden)
        self.output = nn.Linear(hidden, hidden)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(hidden),
            nn.Linear(hidden, 2 * hidden),
            nn.GELU(),
            nn.Linear(2 * hidden, hidden),
        )

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, hidden = x.shape
        y = self.attention_norm(x)

        def heads(projected: Tensor) -> Tensor:
            return projected.reshape(batch, tokens, self.heads, -1).transpose(1, 2)

        query, key, value = heads(self.query(y)), heads(self.key(y)), heads(self.value(y))
        scores = query @ key.transpose(-1, -2) * (hidden // self.heads) ** -0.5
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).reshape(batch, tokens, hidden)
        x = x + self.output(mixed)
        return x + self.feed_forward(x)


MODELS: dict[str, type[DigitsCNN] | type[DigitsTransformer]] = {
    "cnn": DigitsCNN,
    "transformer": DigitsTransformer,
}
