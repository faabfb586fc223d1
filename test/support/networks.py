"""Two small networks in f32, of convolutions and of products, and what tests do with networks."""

from __future__ import annotations

import numpy as np
from support.nets import Net
from xdsl.dialects.builtin import ModuleOp

from spu_ir.dialects.spu import EpilogueOp
from spu_ir.dialects.types import DYNAMIC, Array
from spu_ir.dialects.vpu import BinaryFn, UnaryFn
from spu_ir.interpreters import interpret
from spu_ir.transforms.fuse_epilogue import FuseEpiloguePass


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def weights(*shape: int, seed: int = 0) -> Array:
    return normal(*shape, seed=seed) / np.float32(np.sqrt(np.prod(shape[1:])))


def cnn() -> Net:
    """A stem with a max-pool, a residual block with a projection, one without, and a head."""
    net = Net((DYNAMIC, 16, 16, 3))
    add, relu = BinaryFn.ADD, UnaryFn.RELU
    y = net.conv(net.inputs[0], weights(16, 7, 7, 3), "stem", stride=2, pad=3)
    y = net.max_pool(net.unary(relu, net.binary(add, y, normal(16))), 3, 2, 1)
    z = net.unary(relu, net.conv(y, weights(16, 3, 3, 16, seed=1), "a", pad=1))
    z = net.binary(add, net.conv(z, weights(32, 1, 1, 16, seed=2), "b"), normal(32, seed=1))
    y = net.unary(relu, net.binary(add, z, net.conv(y, weights(32, 1, 1, 16, seed=3), "c")))
    z = net.unary(relu, net.conv(y, weights(32, 3, 3, 8, seed=4), "d", pad=1, groups=4))
    y = net.unary(relu, net.binary(add, net.conv(z, weights(32, 1, 1, 32, seed=5), "e"), y))
    y = net.binary(add, net.matmul(net.mean(y, (1, 2)), weights(10, 32, seed=6), "fc"), normal(10))
    net.module = net.finish(y)
    FuseEpiloguePass().apply(net.ctx, net.module)
    return net


def transformer() -> Net:
    """Products of one input, an activation, a residual and a feed-forward block."""
    net = Net((DYNAMIC, 5, 96))
    (x,) = net.inputs
    add = BinaryFn.ADD
    q, k, v = (net.matmul(x, weights(96, 96, seed=seed), name) for seed, name in enumerate("qkv"))
    h = net.unary(UnaryFn.TANH, net.binary(add, net.binary(BinaryFn.MUL, q, k), v))
    h = net.binary(add, net.binary(add, net.matmul(h, weights(96, 96, seed=3), "o"), normal(96)), x)
    m = net.binary(add, net.matmul(h, weights(192, 96, seed=4), "up"), normal(192))
    m = net.matmul(net.unary(UnaryFn.GELU, m), weights(96, 192, seed=5), "down")
    net.module = net.finish(net.binary(add, m, h))
    FuseEpiloguePass().apply(net.ctx, net.module)
    return net


def run(net: Net, x: Array) -> Array:
    net.module.verify()
    return interpret(net.module, net.ctx, {"x0": x})["y0"]


def products(module: ModuleOp) -> list[EpilogueOp]:
    return [op for op in module.walk() if isinstance(op, EpilogueOp)]


def error(a: Array, b: Array) -> float:
    """Relative L2 error of a."""
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))
