"""
The Conformer encoder of the zoo, in PyTorch: the same structure and the same names of weights.

Gulati et al., "Conformer: Convolution-augmented Transformer for Speech Recognition" (2020), with
the layers and names of `torchaudio.models.Conformer`, behind two strided convolutions over an
image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class ConformerShape:
    """Sizes of a Conformer; an image gives `width / 4` frames."""

    d_model: int = 256
    heads: int = 4
    ffn: int = 1024
    layers: int = 12
    kernel: int = 31
    channels: int = 3
    height: int = 64
    width: int = 512


class Subsample(nn.Module):
    """[N, channels, height, width] -> [N, width / 4, d_model]."""

    def __init__(self, shape: ConformerShape, hidden: int = 64) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(shape.channels, hidden, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, stride=2, padding=1)
        self.out = nn.Linear(hidden * (shape.height // 4), shape.d_model)

    def forward(self, image: Tensor) -> Tensor:
        features = torch.relu(self.conv2(torch.relu(self.conv1(image))))
        return self.out(features.permute(0, 3, 1, 2).flatten(2))


class FeedForward(nn.Module):
    """[N, time, d_model] -> the same, to be added by half."""

    def __init__(self, shape: ConformerShape) -> None:
        super().__init__()
        self.sequential = nn.Sequential(
            nn.LayerNorm(shape.d_model),
            nn.Linear(shape.d_model, shape.ffn),
            nn.SiLU(),
            nn.Dropout(0.1),
            nn.Linear(shape.ffn, shape.d_model),
            nn.Dropout(0.1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.sequential(x)


class ConvolutionModule(nn.Module):
    """[N, time, d_model] -> the same, mixed along time by one kernel a channel."""

    def __init__(self, shape: ConformerShape) -> None:
        super().__init__()
        width = shape.d_model
        self.layer_norm = nn.LayerNorm(width)
        self.sequential = nn.Sequential(
            nn.Conv1d(width, 2 * width, 1),
            nn.GLU(dim=1),
            nn.Conv1d(width, width, shape.kernel, padding=shape.kernel // 2, groups=width),
            nn.BatchNorm1d(width),
            nn.SiLU(),
            nn.Conv1d(width, width, 1),
            nn.Dropout(0.1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.sequential(self.layer_norm(x).transpose(1, 2)).transpose(1, 2)


class ConformerLayer(nn.Module):
    """
    [N, time, d_model] -> the same; `padding` is [N, time], True where there is no frame.

    Without `batch_first` x is [time, N, d_model], as in torchaudio.
    """

    def __init__(self, shape: ConformerShape, batch_first: bool) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.ffn1 = FeedForward(shape)
        self.self_attn_layer_norm = nn.LayerNorm(shape.d_model)
        self.self_attn = nn.MultiheadAttention(shape.d_model, shape.heads, batch_first=batch_first)
        self.conv_module = ConvolutionModule(shape)
        self.ffn2 = FeedForward(shape)
        self.final_layer_norm = nn.LayerNorm(shape.d_model)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        x = x + 0.5 * self.ffn1(x)
        queries = self.self_attn_layer_norm(x)
        x = x + self.self_attn(queries, queries, queries, padding, need_weights=False)[0]
        x = x + (self.conv_module(x) if self.batch_first else self.mixed_along_time(x))
        x = x + 0.5 * self.ffn2(x)
        return self.final_layer_norm(x)

    def mixed_along_time(self, x: Tensor) -> Tensor:
        return self.conv_module(x.transpose(0, 1)).transpose(0, 1)


class Conformer(nn.Module):
    """`src` [N, channels, height, width], `src_pad_mask` bool [N, width / 4] -> `memory`."""

    def __init__(self, shape: ConformerShape, batch_first: bool = True) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.subsample = Subsample(shape)
        self.conformer_layers = nn.ModuleList(
            ConformerLayer(shape, batch_first) for _ in range(shape.layers)
        )

    def forward(self, src: Tensor, src_pad_mask: Tensor) -> Tensor:
        x = self.subsample(src)
        if not self.batch_first:
            x = x.transpose(0, 1)
        for layer in self.conformer_layers:
            x = layer(x, src_pad_mask)
        return x if self.batch_first else x.transpose(0, 1)
