"""Tables of work by hand: programs of a few steps whose figures can be checked on paper."""

from __future__ import annotations

from dataclasses import dataclass, field

from spu_ir.schedule.expressions import Expr, multiply
from spu_ir.schedule.work import BufferWork, OperandWork, StepWork, WorkTable

BATCH = "batch"


@dataclass
class Program:
    """A program in the making: an input of floats, steps in a row, an output."""

    steps: list[StepWork] = field(default_factory=list[StepWork])
    memory: list[BufferWork] = field(default_factory=list[BufferWork])
    last: int = -1
    """The buffer that the next step reads."""
    size: int = 0
    """Its bytes of a sample."""
    samples: str | int = BATCH
    """Of a pass: an extent, or a fixed number."""

    def batched(self, count: int) -> Expr:
        """`count` for every sample."""
        return multiply(self.samples, count)

    def buffer(self, kind: str, space: str, size: Expr, name: str = "") -> int:
        """A new buffer."""
        self.memory.append(BufferWork(kind, name, space, size))
        return len(self.memory) - 1

    def input(self, elements: int) -> Program:
        """The input `x` of so many floats a sample."""
        self.size = 4 * elements
        self.last = self.buffer("input", "ddr", self.batched(self.size), "x")
        return self

    def step(
        self,
        op: str,
        *,
        precision: str = "int8",
        macs: int = 0,
        vector: int = 0,
        special: int = 0,
        weights: int = 0,
        out: int = 1024,
        kind: str = "arena",
        instructions: int = 8,
        into: int | None = None,
        also: tuple[int, ...] = (),
    ) -> Program:
        """
        A step of so much work a sample, that reads the last buffer and writes `out` bytes.

        It writes `into` a buffer there is, or a new one of `kind`, and reads the buffers `also`.
        """
        space = "ddr" if kind == "output" else "sram"
        name = "y" if kind == "output" else ""
        write = self.buffer(kind, space, self.batched(out), name) if into is None else into
        read = self.memory[self.last].space
        operands = [
            OperandWork(self.last, read, False, self.batched(self.size), self.batched(self.size), 0)
        ]
        if weights:
            constant = self.buffer("constant", "weights", weights)
            moved = self.batched(weights)
            operands.append(OperandWork(constant, "weights", False, moved, weights, 1))
        operands.append(OperandWork(write, space, True, self.batched(out), self.batched(out), 2))
        operands += [OperandWork(n, "sram", False, 1, 1, 3 + i) for i, n in enumerate(also)]
        counts = (instructions, macs, 16 * macs, vector, special, self.size if macs else 0)
        self.steps.append(
            StepWork(
                layer=f"layer{len(self.steps)}",
                op=op,
                unit=op.split(".", maxsplit=1)[0].replace("antoum", "dma"),
                precision=precision,
                counts=tuple(map(self.batched, counts)),
                operands=tuple(operands),
            )
        )
        self.last, self.size = write, out
        return self

    def table(self) -> WorkTable:
        """The table of what there is so far."""
        extents = (self.samples,) if isinstance(self.samples, str) else ()
        return WorkTable(extents, tuple(self.steps), tuple(self.memory))


def network(layers: int = 4, *, macs: int = 4_000_000, weights: int = 40_000) -> WorkTable:
    """A quantised input, products with a normalisation after each, and attention at the end."""
    program = Program().input(50_000).step("vpu.quantise", vector=250_000, out=50_000)
    for _ in range(layers):
        program.step("spu.matmul", macs=macs, vector=400_000, weights=weights, out=50_000)
        program.step("vpu.layer_norm", precision="fp32", vector=350_000, special=100, out=50_000)
    program.step(
        "spu.attention", precision="fp32", macs=macs, vector=300_000, special=60_000, out=50_000
    )
    return program.step("vpu.cast", vector=1_000, out=4_000, kind="output").table()
