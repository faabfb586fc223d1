"""The dense INT8 products of other libraries, each in a process of its own, beside our kernels."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .compare_engines import ENVIRONMENT
from .compare_process import ROOT, EngineError, Policy, Process
from .fidelity_cases import Array

Shape = tuple[int, int, int]
"""Rows, depth and lanes."""
TINY: Shape = (1, 64, 16)
"""A product that takes no time: what is left is the call."""


@dataclass(frozen=True)
class Peer:
    """One way to a dense INT8 product with a constant weight."""

    engine: str
    form: str
    library: str
    package: str

    @property
    def title(self) -> str:
        return f"{self.library} {self.form}"


PEERS = (
    Peer("torch", "[K, N]", "oneDNN", "torch"),
    Peer("torch", "[N, K]", "oneDNN", "torch"),
    Peer("onnxruntime", "MatMulInteger", "ONNX Runtime", "onnxruntime"),
    Peer("openvino", "MatMul", "OpenVINO", "openvino"),
)
ENGINES = tuple(dict.fromkeys(peer.engine for peer in PEERS))


def python_of(engine: str, given: Mapping[str, Path]) -> Path:
    """The Python that an engine runs in: `given`, that which `make` installs it for, or this."""
    if engine in given:
        return given[engine]
    folder = {"torch": ".venv-torch", "openvino": ".venv-bench"}.get(engine, ".")
    own = ROOT / folder / "bin" / "python"
    return own if own.exists() else Path(sys.executable)


class Gemm:
    """A peer in its process. Raises EngineError where it is missing or refuses a product."""

    def __init__(
        self,
        peer: Peer,
        python: Path,
        processor: int,
        policy: Policy,
        folder: Path,
        stack: ExitStack,
    ):
        self.peer, self.folder = peer, folder
        if not python.exists():
            raise EngineError(f"there is no {python}")
        process = Process(
            python, peer.engine, [processor], ENVIRONMENT, policy, worker="spu_matmul_worker"
        )
        self.process = stack.enter_context(process)
        self.version = self.load(TINY)
        self.overhead = self.least_seconds(0.02)

    def load(self, shape: Shape) -> str:
        """Prepare a product and check its answer; the library's version."""
        rows, depth, lanes = shape
        rng = np.random.default_rng(0)
        # All of these fit signed and unsigned bytes.
        x = rng.integers(0, 128, (rows, depth)).astype(np.uint8)
        w = rng.integers(-127, 128, (depth, lanes)).astype(np.int8)
        name = "-".join(map(str, shape))
        model, inputs = self.folder / f"{name}.onnx", self.folder / f"{name}.npz"
        signed = self.peer.engine == "torch"
        np.savez(inputs, allow_pickle=False, x=x.view(np.int8) if signed else x, w=w)
        # The sums of all columns have much the same spread: these are 5 of its deviations.
        scale = 5 * float(np.sqrt(depth / 3)) * 73
        quantised = self.peer.engine == "openvino"
        proto = quantised_product(rows, w, scale) if quantised else integer_product(rows, w)
        model.write_bytes(proto.SerializeToString())
        answer = self.process.ask(
            "load",
            feeds=str(inputs),
            model=str(model),
            form=self.peer.form,
            shape=[rows, lanes],
            type="uint8" if quantised else "int32",
        )
        sums = (x.astype(np.float64) @ w.astype(np.float64)).astype(np.int64)
        self.check(np.clip(np.rint(sums / scale) + 128, 0, 255) if quantised else sums, quantised)
        version = answer["settings"].get("version") or answer["versions"][self.peer.package]
        return str(version)

    def check(self, want: Array, quantised: bool) -> None:
        """Raise EngineError for other answers than these; a quantised one may round by 1."""
        outputs = self.folder / "outputs.npz"
        self.process.ask("run", outputs=str(outputs))
        with np.load(outputs) as archive:
            got: Array = archive["y"].astype(np.int64)
        most = int(np.abs(got - want).max())
        if most > int(quantised):
            raise EngineError(f"its answers are wrong by {most}")

    def least_seconds(self, seconds: float) -> float:
        """The fastest of the runs of so many seconds."""
        answer = self.process.ask("time", seconds=seconds, hint="latency")
        return min(answer["seconds"])


def integer_product(rows: int, weight: Array) -> onnx.ModelProto:
    """u8 `[rows, K]` by a constant s8 `[K, N]`, with sums in s32."""
    nodes = [helper.make_node("MatMulInteger", ["x", "w"], ["y"])]
    return _model(nodes, {"w": weight}, rows, TensorProto.INT32)


def quantised_product(rows: int, weight: Array, scale: float) -> onnx.ModelProto:
    """The same in the form with QuantizeLinear: u8 `y = clip(round(sum / scale) + 128)`."""
    constants = {
        "w": weight,
        "one": np.array(1, np.float32),
        "x_zero": np.array(0, np.uint8),
        "w_zero": np.array(0, np.int8),
        "y_scale": np.array(scale, np.float32),
        "y_zero": np.array(128, np.uint8),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "one", "x_zero"], ["a"]),
        helper.make_node("DequantizeLinear", ["w", "one", "w_zero"], ["b"]),
        helper.make_node("MatMul", ["a", "b"], ["sums"]),
        helper.make_node("QuantizeLinear", ["sums", "y_scale", "y_zero"], ["y"]),
    ]
    return _model(nodes, constants, rows, TensorProto.UINT8)


def _model(
    nodes: list[onnx.NodeProto], constants: Mapping[str, Array], rows: int, kind: int
) -> onnx.ModelProto:
    depth, lanes = constants["w"].shape
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [rows, depth])],
        [helper.make_tensor_value_info("y", kind, [rows, lanes])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opset = helper.make_opsetid("", 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=9)
