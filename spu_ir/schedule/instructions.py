"""
What each instruction of the device does: one formula an op, of a tile's shape.

The same formulas give the counts at compile time, with expressions in the extents for a shape, and
those of the profiled C program, with its variables. docs/counters.md is the table in words.

- MACs are slots run: 16 lanes of a lane group, padding included, times the slots of the packed
  weight's lists. Dense MACs are `rows x channels x depth`, without any padding. A small product may
  run more slots than it has dense MACs.
- Vector operations are lane operations of the VPU or of an epilogue: an add, a multiplication, a
  comparison, a conversion or a move of one element.
- Special operations are those of the special function unit: exp, log, erf, tanh, sigmoid, square
  root, division, and a parabola of its tables.
- Bytes are those of an operand's tile, moved once an instruction: what the instruction's ports see.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from spu_ir.errors import SpuError
from spu_ir.schedule.expressions import (
    Expr,
    add,
    ceil_divide,
    floor_divide,
    minimum,
    multiply,
    product,
    subtract,
    total,
)

LANES = 16
"""Output channels of a lane group."""
MASK_OF_KEYS = "mask_of_keys"
"""The fact whether a mask has a number for every key, and not one for all."""
KEY_BLOCK = 64
"""Keys of one block of packed attention."""


@dataclass(frozen=True)
class Operand:
    """A tile of a buffer that an instruction reads or writes."""

    shape: tuple[Expr, ...]
    itemsize: int

    @property
    def elements(self) -> Expr:
        """How many there are."""
        return product(self.shape)


@dataclass(frozen=True)
class Packed:
    """The part of a packed weight that an instruction streams."""

    quads: Expr
    """Quads of its lane groups' lists; steps of a dense weight, taps of a depthwise one."""
    slots: int
    """Slots of a quad: multiply-accumulates for one row, unused slots and lanes included."""
    bytes: int
    """Bytes of a quad: values, indices and offsets."""


@dataclass(frozen=True)
class Instruction:
    """One tile op: its name, its operands by theirs, and what its attributes say."""

    op: str
    operands: Mapping[str, Operand]
    facts: Mapping[str, int | float | str | tuple[int, ...]]
    weight: Packed | None = None
    """Of `spu.matmul` and `spu.conv`."""

    def __getitem__(self, name: str) -> Operand:
        return self.operands[name]

    def has(self, name: str) -> bool:
        """Whether an optional operand is there."""
        return name in self.operands

    def fact(self, name: str) -> int:
        """An attribute that is a whole number."""
        value = self.facts[name]
        assert isinstance(value, int)
        return value


@dataclass(frozen=True)
class Cost:
    """What one instruction does, as expressions."""

    macs: Expr = 0
    dense_macs: Expr = 0
    vector_ops: Expr = 0
    special_ops: Expr = 0
    activations: Expr = 0
    """Elements of the activation that a product reads: each may be a zero that could be skipped."""
    bytes: Mapping[str, Expr] = field(default_factory=dict[str, Expr])
    """Of an operand that is not read just as its tile lies there."""

    def bytes_of(self, instruction: Instruction, name: str) -> Expr:
        """Bytes that the instruction moves of the operand `name`."""
        operand = instruction[name]
        return self.bytes.get(name, multiply(operand.elements, operand.itemsize))


Formula: TypeAlias = Callable[[Instruction], Cost]
PerElement: TypeAlias = tuple[int, int]
"""Vector and special operations for one element."""

UNARY: dict[str, PerElement] = {
    "abs": (1, 0),
    "neg": (1, 0),
    "exp": (0, 1),
    "log": (0, 1),
    "sqrt": (0, 1),
    "reciprocal": (0, 1),
    "erf": (0, 1),
    "tanh": (0, 1),
    "sigmoid": (0, 1),
    "relu": (1, 0),
    "gelu": (4, 1),  # (x * 0.5) * (1 + erf(x * 0.7))
    "gelu_tanh": (8, 1),  # (x * 0.5) * (1 + tanh(0.8 * (x + 0.04 * ((x * x) * x))))
    "silu": (1, 1),
    "softplus": (3, 2),  # max(x, 0) + log(1 + exp(-|x|))
    "floor": (1, 0),
    "ceil": (1, 0),
    "round": (1, 0),
    "sign": (1, 0),
    "not": (1, 0),
}
"""`vpu.unary` by its function; also the activations of an epilogue."""

BINARY: dict[str, PerElement] = {
    "add": (1, 0),
    "sub": (1, 0),
    "mul": (1, 0),
    "div": (0, 1),
    "pow": (1, 2),  # exp(b * log(a))
    "min": (1, 0),
    "max": (1, 0),
    "equal": (1, 0),
    "less": (1, 0),
    "less_or_equal": (1, 0),
    "greater": (1, 0),
    "greater_or_equal": (1, 0),
    "and": (1, 0),
    "or": (1, 0),
}
"""`vpu.binary` by its function."""

ACTIVATIONS: dict[str, PerElement] = {
    "none": (0, 0),
    "relu": UNARY["relu"],
    "gelu": UNARY["gelu"],
    "gelu_tanh": UNARY["gelu_tanh"],
    "tanh": UNARY["tanh"],
    "sigmoid": UNARY["sigmoid"],
    "silu": UNARY["silu"],
    # One parabola of the special function unit's tables.
    "sfu_gelu": (0, 1),
    "sfu_gelu_tanh": (0, 1),
    "sfu_silu": (0, 1),
    "sfu_sigmoid": (0, 1),
}
"""An epilogue's activation."""

QUANTISE = 5
"""To bytes: multiply, clamp below and above, round, add the zero point."""
QUANTISE_ROW = QUANTISE + 2
"""With the absolute value and the running maximum of a row with a scale of its own."""


def _elementwise(vector: int, special: int = 0) -> Formula:
    """So many operations for every element of the init."""

    def formula(i: Instruction) -> Cost:
        count = i["init"].elements
        return Cost(vector_ops=multiply(count, vector), special_ops=multiply(count, special))

    return formula


def _by_function(table: Mapping[str, PerElement]) -> Formula:
    def formula(i: Instruction) -> Cost:
        return _elementwise(*table[str(i.facts["fn"])])(i)

    return formula


def _rows(vector: int, special: int, special_a_row: int) -> Formula:
    """So many operations for every element of x, and some more for every row of its last axis."""

    def formula(i: Instruction) -> Cost:
        x = i["x"]
        return Cost(
            vector_ops=multiply(x.elements, vector),
            special_ops=add(
                multiply(x.elements, special), multiply(product(x.shape[:-1]), special_a_row)
            ),
        )

    return formula


def _layer_norm(i: Instruction) -> Cost:
    # Sum, less the mean, square, sum of squares, times 1 / deviation, gamma, beta.
    vector = 6 + i.has("beta") if i.fact("centre") else 4
    return _rows(vector, 0, 2)(i)


def _quantise_rows(i: Instruction) -> Cost:
    return _rows(QUANTISE_ROW + i.has("columns"), 0, 1)(i)


def _reduce(i: Instruction) -> Cost:
    fn = i.facts["fn"]
    return Cost(
        vector_ops=multiply(i["x"].elements, 2 if fn == "l2" else 1),
        special_ops=i["init"].elements if fn in ("mean", "l2") else 0,
    )


def _pool(i: Instruction) -> Cost:
    """Windows at the edge count in full."""
    kernel, out = i.facts["kernel"], i["init"].elements
    assert isinstance(kernel, tuple)
    return Cost(
        vector_ops=multiply(out, kernel[0] * kernel[1]),
        special_ops=0 if i.facts["fn"] == "max" else out,
    )


def _gather(i: Instruction) -> Cost:
    init = i["init"]
    return Cost(vector_ops=init.elements, bytes={"x": multiply(init.elements, init.itemsize)})


def _resize_taps(i: Instruction) -> Cost:
    """A weight: distance, filter, sum; a position: its centre and ends; a division a position."""
    positions, weights = i["init"].elements, i["weight_init"].elements
    return Cost(
        vector_ops=add(multiply(weights, 4), multiply(positions, 4)),
        special_ops=floor_divide(positions, 2),
    )


def _resize(i: Instruction) -> Cost:
    """
    Bilinear, as if every image filled the canvas and its rows were reduced as its columns are.

    A pixel of the result is made of 2 * W / OW narrowed rows, each of as many columns; each row
    of the canvas is narrowed once. A product is a conversion, a multiplication and an addition, a
    result a shift and two comparisons.
    """
    x, out = i["x"], i["init"]
    width, columns, channels = x.shape[2], out.shape[2], out.shape[3]
    rows = product([out.shape[0], out.shape[1]])
    narrowed = floor_divide(multiply(rows, width), columns)
    read = product([narrowed, width, channels])
    products = multiply(add(read, product([rows, width, channels])), 2)
    return Cost(vector_ops=add(multiply(products, 3), multiply(out.elements, 3)), bytes={"x": read})


def _row_offsets(i: Instruction) -> Cost:
    return Cost(vector_ops=i["x"].elements)


def _move(_: Instruction) -> Cost:
    """The DMA engine's bytes are all that it does."""
    return Cost()


def _epilogue(i: Instruction) -> tuple[int, int]:
    """Vector and special operations for one output of a product."""
    vector, special = ACTIVATIONS[str(i.facts["activation"])]
    vector += i["x"].itemsize == 1  # the sum to f32
    vector += sum(i.has(name) for name in ("scale", "row_scale", "bias", "residual"))
    if "residual_scale" in i.facts:
        vector += 2
    size = i["init"].itemsize
    return vector + (QUANTISE if size == 1 else size == 2), special


def _product(i: Instruction) -> Cost:
    init, weight = i["init"], i.weight
    assert weight is not None
    rows = product(init.shape[:-1])
    depth = product(i["weight"].shape[1:])
    vector, special = _epilogue(i)
    return Cost(
        macs=product([rows, weight.quads, weight.slots]),
        dense_macs=product([rows, init.shape[-1], depth]),
        vector_ops=multiply(init.elements, vector),
        special_ops=multiply(init.elements, special),
        activations=i["x"].elements,
        bytes={"weight": multiply(weight.quads, weight.bytes)},
    )


def _batch_matmul(i: Instruction) -> Cost:
    macs = multiply(i["init"].elements, i["a"].shape[-1])
    return Cost(
        macs=macs,
        dense_macs=macs,
        vector_ops=i["init"].elements,
        activations=i["a"].elements,
    )


def _seen(rows: Expr, keys: Expr, causal: bool, block: int) -> Expr:
    """
    (Query row, key) pairs that an instruction scores, keys in whole blocks of `block`.

    When causal, row r sees keys 0 to r: a causal instruction has all the rows of its sample.
    """
    blocks = ceil_divide(keys, block)
    if not causal:
        return product([rows, blocks, block])
    short = minimum(rows, keys)
    full = floor_divide(short, block)
    rest = subtract(short, multiply(full, block))
    # Rows of a block's first 1..block positions all score the blocks up to it.
    triangle = floor_divide(multiply(full, add(full, 1)), 2)
    ramp = add(multiply(triangle, block), multiply(rest, add(full, 1)))
    return multiply(add(ramp, multiply(subtract(rows, short), blocks)), block)


def _attention(i: Instruction) -> Cost:
    """
    Scores and weighted sums of f32; a softmax whose maximum runs over blocks of 64 keys.

    A score: scale, mask, maximum, less the maximum, sum; exp. A row and block: exp of the change of
    the maximum, which the sums of all channels are multiplied by. A row: one division.
    """
    q, k, v = i["q"], i["k"], i["v"]
    causal = bool(i.fact("causal"))
    rows, keys, size, channels = q.shape[1], k.shape[1], q.shape[2], v.shape[2]
    pairs = multiply(q.shape[0], _seen(rows, keys, causal, 1))
    blocks = multiply(q.shape[0], floor_divide(_seen(rows, keys, causal, KEY_BLOCK), KEY_BLOCK))
    every = multiply(q.shape[0], rows)
    macs = multiply(pairs, add(size, channels))
    return Cost(
        macs=macs,
        dense_macs=macs,
        vector_ops=total(
            [
                multiply(pairs, 4 + i.has("mask")),
                multiply(blocks, channels),
                multiply(every, channels),
            ]
        ),
        special_ops=total([pairs, blocks, every]),
        activations=q.elements,
    )


def _packed_attention(i: Instruction) -> Cost:
    """
    Scores and weighted sums of bytes, whole quads of channels and blocks of 64 keys.

    A score: to f32, times two scales, plus the addend, maximum, less the maximum, to a byte, times
    the inverse scale, sum; exp. A row and block: exp, and two operations a channel. A row: its
    query is quantised with one division, and its result multiplied after another one.
    """
    q, out, k_scale = i["q"], i["init"], i["k_scale"]
    causal = bool(i.fact("causal"))
    # With a mask of its own width the keys are as many as it has; else whole blocks.
    keys = multiply(k_scale.shape[2], KEY_BLOCK)
    if i.has("mask") and i.fact(MASK_OF_KEYS):
        keys = i["mask"].shape[3]
    rows, size, channels = q.shape[1], q.shape[2], out.shape[2]
    whole = multiply(q.shape[0], _seen(rows, keys, causal, KEY_BLOCK))
    blocks = floor_divide(whole, KEY_BLOCK)
    every = multiply(q.shape[0], rows)
    width = add(multiply(ceil_divide(size, 4), 4), multiply(ceil_divide(channels, LANES), LANES))
    return Cost(
        macs=multiply(whole, width),
        dense_macs=multiply(
            multiply(q.shape[0], _seen(rows, keys, causal, 1)), add(size, channels)
        ),
        vector_ops=total(
            [
                multiply(whole, 9),
                product([blocks, channels, 2]),
                product([every, size, QUANTISE_ROW]),
                multiply(every, channels),
            ]
        ),
        special_ops=total([whole, blocks, multiply(every, 2)]),
        activations=q.elements,
    )


FORMULAS: dict[str, Formula] = {
    "spu.matmul": _product,
    "spu.conv": _product,
    "spu.batch_matmul": _batch_matmul,
    "spu.attention": _attention,
    "spu.packed_attention": _packed_attention,
    # A division a row; of values the logarithm of the scale too.
    "spu.pack_keys": _rows(QUANTISE_ROW, 0, 1),
    "spu.pack_values": _rows(QUANTISE_ROW, 0, 2),
    "vpu.unary": _by_function(UNARY),
    "vpu.binary": _by_function(BINARY),
    "vpu.select": _elementwise(1),
    "vpu.cast": _elementwise(1),
    "vpu.quantise": _elementwise(QUANTISE),
    "vpu.quantise_product": _elementwise(1 + QUANTISE),
    "vpu.dequantise": _elementwise(2),
    "vpu.quantise_rows": _quantise_rows,
    "vpu.table": _elementwise(1),
    # Maximum, less it, exp, sum, then times the inverse of the sum (its logarithm off).
    "vpu.softmax": _rows(4, 1, 1),
    "vpu.cumsum": _rows(1, 0, 0),
    "vpu.layer_norm": _layer_norm,
    "vpu.layer_norm_rows": _rows(7 + QUANTISE_ROW, 0, 3),
    "vpu.reduce": _reduce,
    "vpu.pool": _pool,
    "vpu.gather": _gather,
    "vpu.expand": _elementwise(1),
    "vpu.transpose": _elementwise(1),
    "vpu.row_offsets": _row_offsets,
    "vpu.resize_taps": _resize_taps,
    "vpu.resize": _resize,
    "antoum.dma": _move,
    "antoum.fill": _move,
}
"""The formula of every op that tiling leaves."""


def cost_of(instruction: Instruction) -> Cost:
    """What an instruction does. Raises SpuError for an op without a formula."""
    formula = FORMULAS.get(instruction.op)
    if formula is None:
        raise SpuError(
            f"nothing says what work {instruction.op} is",
            op=instruction.op,
            remedy="add its formula to FORMULAS in spu_ir/schedule/instructions.py",
        )
    return formula(instruction)
