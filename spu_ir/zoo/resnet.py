"""ResNet-50 (v1.5: the stride is in the 3x3 convolution), with torchvision's key names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from spu_ir.sparsify import conv_rows, pruned_weight
from spu_ir.sparsify.magnitude import Structure

from .common import GraphBuilder
from .weights import Array, WeightSource, check_weights, read_weights

EXPANSION = 4
EPSILON = 1e-5


@dataclass(frozen=True)
class ResNetConfig:
    """
    Bottleneck blocks of the stages, channels of the first, side of the image, and classes.

    The defaults are ResNet-50; others are for tests.
    """

    blocks: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    image: int = 224
    classes: int = 1000

    @property
    def features(self) -> int:
        """Channels after the last stage."""
        return (self.width << len(self.blocks) - 1) * EXPANSION


RESNET50 = ResNetConfig()


@dataclass(frozen=True)
class _Conv:
    """One convolution and the batch normalisation that follows it, by their key prefixes."""

    conv: str
    norm: str
    out: int
    into: int
    kernel: int
    stride: int = 1


@dataclass(frozen=True)
class _Block:
    """A bottleneck: 1x1 to `width`, 3x3, 1x1 to four times `width`, beside the identity."""

    name: str
    convs: tuple[_Conv, _Conv, _Conv]
    downsample: _Conv | None


def _stem(config: ResNetConfig) -> _Conv:
    return _Conv("conv1", "bn1", config.width, 3, 7, 2)


def _blocks(config: ResNetConfig) -> list[_Block]:
    blocks: list[_Block] = []
    into = config.width
    for stage, count in enumerate(config.blocks, start=1):
        width = config.width << stage - 1
        out = width * EXPANSION
        for index in range(count):
            name = f"layer{stage}.{index}"
            stride = 2 if stage > 1 and index == 0 else 1
            convs = (
                _Conv(f"{name}.conv1", f"{name}.bn1", width, into, 1),
                _Conv(f"{name}.conv2", f"{name}.bn2", width, width, 3, stride),
                _Conv(f"{name}.conv3", f"{name}.bn3", out, width, 1),
            )
            side = _Conv(f"{name}.downsample.0", f"{name}.downsample.1", out, into, 1, stride)
            blocks.append(_Block(name, convs, None if index else side))
            into = out
    return blocks


def weight_shapes(config: ResNetConfig = RESNET50) -> dict[str, tuple[int, ...]]:
    """The torchvision key of every weight and its shape; a convolution's is `[O, I, kh, kw]`."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(layer: _Conv) -> None:
        shapes[f"{layer.conv}.weight"] = (layer.out, layer.into, layer.kernel, layer.kernel)
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{layer.norm}.{part}"] = (layer.out,)

    conv(_stem(config))
    for block in _blocks(config):
        for layer in block.convs:
            conv(layer)
        if block.downsample is not None:
            conv(block.downsample)
    shapes["fc.weight"] = (config.classes, config.features)
    shapes["fc.bias"] = (config.classes,)
    return shapes


class _Random:
    """
    He-initialised weights, with batch statistics measured as training would leave them.

    A batch of images (noise at several scales, smaller than the real ones) is sent through the
    network while it is made; each normalisation takes its `running_mean` and `running_var` from
    what it sees. So activations neither die nor explode.
    """

    def __init__(self, config: ResNetConfig, seed: int, ratio: float, structure: Structure):
        self.config = config
        self.random = np.random.default_rng(seed)
        self.ratio = ratio
        self.structure: Structure = structure
        self.weights: dict[str, Array] = {}

    def conv(self, layer: _Conv, value: Array, gain: float = 1.0) -> Array:
        """Make one layer and run it: f32 `[n, h, w, into]` to `[n, h', w', out]`."""
        fan_in = layer.into * layer.kernel**2
        shape = (layer.out, layer.into, layer.kernel, layer.kernel)
        weight = self.normal(shape, (2 / fan_in) ** 0.5)
        weight = pruned_weight(weight, conv_rows(shape), self.ratio, structure=self.structure)
        scale = np.float32(gain) * self.random.uniform(0.8, 1.2, layer.out).astype(np.float32)
        shift = self.normal((layer.out,), 0.1)
        result = _convolve(value, weight, layer.stride)
        mean, variance = result.mean((0, 1, 2)), result.var((0, 1, 2))
        self.weights |= {
            f"{layer.conv}.weight": weight,
            f"{layer.norm}.weight": scale,
            f"{layer.norm}.bias": shift,
            f"{layer.norm}.running_mean": mean,
            f"{layer.norm}.running_var": variance,
        }
        return (result - mean) / np.sqrt(variance + np.float32(EPSILON)) * scale + shift

    def normal(self, shape: tuple[int, ...], deviation: float) -> Array:
        return self.random.standard_normal(shape, np.float32) * np.float32(deviation)

    def build(self) -> dict[str, Array]:
        images = noise_images(self.random, 8, 96)
        value = _pool(_relu(self.conv(_stem(self.config), images)))
        for block in _blocks(self.config):
            first, second, third = block.convs
            branch = _relu(self.conv(second, _relu(self.conv(first, value))))
            # A trained network's branches are weaker than its identity.
            branch = self.conv(third, branch, gain=0.5)
            identity = value if block.downsample is None else self.conv(block.downsample, value)
            value = _relu(identity + branch)
        fan_in, classes = self.config.features, self.config.classes
        self.weights["fc.weight"] = self.normal((classes, fan_in), fan_in**-0.5)
        self.weights["fc.bias"] = self.normal((classes,), 0.1)
        return self.weights


def noise_images(random: np.random.Generator, count: int, side: int) -> Array:
    """
    Normal noise at four scales, of unit variance: f32 `[count, side, side, 3]`.

    Noise at one scale would look the same to a network everywhere and in every image.
    """
    total = np.zeros((count, side, side, 3), np.float32)
    for cell in (1, 4, 12, 48):
        cells = -(-side // cell)
        noise = random.standard_normal((count, cells, cells, 3), np.float32) * np.float32(0.5)
        total += noise.repeat(cell, 1).repeat(cell, 2)[:, :side, :side]
    return total


def _relu(value: Array) -> Array:
    return np.maximum(value, np.float32(0))


def _windows(value: Array, kernel: int, stride: int, fill: float) -> Array:
    """Every `kernel` x `kernel` window: `[n, h', w', channels, kernel, kernel]`, a view."""
    pad = kernel // 2
    padded = np.pad(value, ((0, 0), (pad, pad), (pad, pad), (0, 0)), constant_values=fill)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), (1, 2))
    return windows[:, ::stride, ::stride]


def _convolve(value: Array, weight: Array, stride: int) -> Array:
    windows = _windows(value, weight.shape[2], stride, 0.0)
    flat = windows.reshape(*windows.shape[:3], -1) @ weight.reshape(len(weight), -1).T
    return flat.astype(np.float32, copy=False)


def _pool(value: Array) -> Array:
    return _windows(value, 3, 2, -np.inf).max((4, 5))


def random_weights(
    seed: int,
    *,
    ratio: float = 1,
    structure: Structure = "banked",
    config: ResNetConfig = RESNET50,
) -> dict[str, Array]:
    """Weights of a whole network from `seed`, pruned as `magnitude` would; see `_Random`."""
    return _Random(config, seed, ratio, structure).build()


def resnet50(
    weights: WeightSource | None = None,
    *,
    seed: int = 0,
    ratio: float = 1,
    structure: Structure = "banked",
    batch: int | str = "batch",
    input_name: str = "input",
    output_name: str = "logits",
    config: ResNetConfig = RESNET50,
) -> onnx.ModelProto:
    """
    ResNet-50, convolutions and BatchNormalization as separate nodes.

    Input `input_name`, f32 `[batch, 3, 224, 224]` (normalised: about zero mean and unit variance);
    output `output_name`, f32 `[batch, 1000]`, logits. `weights` (see `WeightSource`) have
    torchvision's keys; None means random ones from `seed`, pruned as `magnitude` would at `ratio`
    and `structure` before their batch statistics are taken, as fine-tuning would leave them.
    `batch` is a number, or the name of a dynamic extent. Another `config` gives a smaller network
    of the same make.

    Raises SpuError for a weight that is missing or misshapen.
    """
    if weights is None:
        chosen = random_weights(seed, ratio=ratio, structure=structure, config=config)
    else:
        chosen = check_weights(read_weights(weights), weight_shapes(config))
    graph = GraphBuilder("resnet50")

    def constant(name: str) -> str:
        return graph.constant(name, chosen[name])

    def conv(layer: _Conv, value: str) -> str:
        pad = layer.kernel // 2
        value = graph.add(
            "Conv",
            value,
            constant(f"{layer.conv}.weight"),
            name=f"/{layer.conv}/Conv",
            kernel_shape=[layer.kernel] * 2,
            strides=[layer.stride] * 2,
            pads=[pad] * 4,
        )
        parts = ("weight", "bias", "running_mean", "running_var")
        return graph.add(
            "BatchNormalization",
            value,
            *(constant(f"{layer.norm}.{part}") for part in parts),
            name=f"/{layer.norm}/BatchNormalization",
            epsilon=EPSILON,
        )

    value = graph.input(input_name, TensorProto.FLOAT, [batch, 3, config.image, config.image])
    value = graph.add("Relu", conv(_stem(config), value), name="/relu/Relu")
    value = graph.add(
        "MaxPool",
        value,
        name="/maxpool/MaxPool",
        kernel_shape=[3, 3],
        strides=[2, 2],
        pads=[1, 1, 1, 1],
    )
    for block in _blocks(config):
        identity = value
        for index, layer in enumerate(block.convs):
            value = conv(layer, value)
            if index < 2:
                value = graph.add("Relu", value, name=f"/{block.name}/relu{index + 1}/Relu")
        if block.downsample is not None:
            identity = conv(block.downsample, identity)
        value = graph.add("Add", value, identity, name=f"/{block.name}/Add")
        value = graph.add("Relu", value, name=f"/{block.name}/relu3/Relu")
    value = graph.add("GlobalAveragePool", value, name="/avgpool/GlobalAveragePool")
    value = graph.add("Flatten", value, name="/Flatten", axis=1)
    graph.add(
        "Gemm",
        value,
        constant("fc.weight"),
        constant("fc.bias"),
        name="/fc/Gemm",
        output=output_name,
        transB=1,
    )
    return graph.output(output_name, TensorProto.FLOAT, [batch, config.classes]).model()
