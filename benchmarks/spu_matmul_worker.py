"""
A dense INT8 product of another library, in a process of its own: other engines of compare_worker.

Inputs and outputs stay where they are, and the weight is constant, so that a run is the product and
the call of it.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from .compare_worker import Array, Feeds, Order, Plain, main, module


class Torch(Plain):
    """oneDNN's product of s8 and s8, with sums in s32, as PyTorch calls it."""

    def load(self, order: Order, feeds: Feeds) -> dict[str, Any]:
        torch = module("torch")
        torch.set_num_threads(1)
        weight = torch.from_numpy(feeds["w"])
        if order["form"] == "[N, K]":
            weight = weight.t().contiguous().t()
        self.x, self.w = torch.from_numpy(feeds["x"]), weight
        self.out = torch.empty((len(feeds["x"]), weight.shape[1]), dtype=torch.int32)
        self.answer = {"y": self.out.numpy()}
        self.product = torch.ops.aten._int_mm.out
        # PyTorch's wheel has oneDNN inside, under its former name.
        found = re.search(r"MKL-DNN v([\d.]+)", torch.__config__.show())
        return {"version": found.group(1) if found else f"of torch {torch.__version__}"}

    def run(self) -> dict[str, Array]:
        self.product(self.x, self.w, out=self.out)
        return self.answer


class OnnxRuntime(Plain):
    """An ONNX file of one product; it packs a constant weight when it loads it."""

    def load(self, order: Order, feeds: Feeds) -> dict[str, Any]:
        runtime = module("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = runtime.InferenceSession(
            order["model"], options, providers=["CPUExecutionProvider"]
        )
        self.x, out = feeds["x"], np.zeros(order["shape"], order["type"])
        self.binding = self.session.io_binding()
        for name, array, bind in (
            ("x", self.x, self.binding.bind_input),
            ("y", out, self.binding.bind_output),
        ):
            bind(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        self.answer = {"y": out}
        return {}

    def run(self) -> dict[str, Array]:
        self.session.run_with_iobinding(self.binding)
        return self.answer


class OpenVino(Plain):
    """An ONNX file of one product, quantised on both sides, which it runs in INT8."""

    def load(self, order: Order, feeds: Feeds) -> dict[str, Any]:
        openvino = module("openvino")
        core = openvino.Core()
        config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1}
        model = core.compile_model(order["model"], "CPU", config)
        self.x, out = feeds["x"], np.zeros(order["shape"], order["type"])
        self.request = model.create_infer_request()
        self.request.set_input_tensor(openvino.Tensor(self.x, shared_memory=True))
        self.request.set_output_tensor(openvino.Tensor(out, shared_memory=True))
        self.answer = {"y": out}
        return {}

    def run(self) -> dict[str, Array]:
        self.request.infer()
        return self.answer


if __name__ == "__main__":
    main({"torch": Torch, "onnxruntime": OnnxRuntime, "openvino": OpenVino})
