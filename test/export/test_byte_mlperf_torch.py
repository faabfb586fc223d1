"""The backend for ByteMLPerf on TorchScript models: exported in `pre_optimize`, then run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from support.byte_mlperf import (
    Images,
    Questions,
    backend_class,
    checkout,
    engine_folder,
    logits,
    run_task,
    spans,
)

from spu_ir import SpuError
from spu_ir.contrib.byte_mlperf.compile_side import ONNX_PATH, CompileSide
from spu_ir.contrib.byte_mlperf.from_torch import export_torchscript
from spu_ir.contrib.byte_mlperf.install import install
from spu_ir.contrib.byte_mlperf.settings import FILE

pytestmark = [
    pytest.mark.export,
    # The engine's models are TorchScript, whatever PyTorch says of it.
    pytest.mark.filterwarnings("ignore:`torch.jit.* is deprecated:DeprecationWarning"),
    # transformers under torch.jit.trace, which looks at every property.
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]

Array = NDArray[Any]
SEQ = 16
TEXT = ("input_ids.1", "attention_mask.1", "token_type_ids.1")


@pytest.fixture
def general(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """`general_perf` of a checkout with the backend in it, compiling to INT8, pruning nothing."""
    folder = checkout(tmp_path)
    install(folder)
    settings = {"*": {"precision": "int8", "sparsity": 1, "warm_up": 1}}
    (folder / "backends" / "SPU" / FILE).write_text(json.dumps(settings))
    with engine_folder(folder, monkeypatch):
        yield folder


def described(task: str, path: Path, outputs: str, **inputs: tuple[str, list[int]]) -> Any:
    """A model's description, and a workload of it."""
    names = [name.replace("_1", ".1") for name in inputs]
    info = {
        "model": task,
        "model_path": str(path),
        "framework": "Pytorch",
        "framework_version": "1.9.1",
        "model_format": "pt",
        "inputs": ",".join(names),
        "outputs": outputs,
        "input_shape": dict(zip(names, (shape for _, shape in inputs.values()), strict=True)),
        "input_type": ",".join(kind for kind, _ in inputs.values()),
        "max_batch_size": 4,
    }
    return info, {"model": task, "iterations": 2, "batch_sizes": [2, 3]}


def convolutions() -> Any:
    """A small network for images of 3x16x16, with 10 classes."""
    import torch

    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, stride=2, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(16, 64, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(64, 10),
    ).eval()


@pytest.mark.parametrize("way", ["script", "trace"])
def test_images(general: Path, way: str) -> None:
    import torch

    network = convolutions()
    jit: Any = torch.jit
    example = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    made = jit.script(network) if way == "script" else jit.trace(network, example)
    path = Path("general_perf") / "model_zoo" / "small.pt"
    made.save(str(path))
    images = np.random.default_rng(2).standard_normal((6, 3, 16, 16)).astype(np.float32)
    with torch.no_grad():
        want = network(torch.from_numpy(images)).numpy()
    info, workload = described(
        "small-torch-fp32", path, "softmax_tensor:0", input_1_1=("FLOAT32", [1, 3, 16, 16])
    )
    report = run_task(workload, info, Images("input.1.1", images, want.argmax(1).tolist()))
    assert report.json["File"] == "result-int8.json"
    got = np.concatenate([logits(answer, "Pytorch") for answer in report.answers])
    assert got.shape == (6, 11)
    assert np.linalg.norm(got[:, 1:] - want) < 0.1 * np.linalg.norm(want)


def bert(mapping: bool) -> Any:
    """A small BERT that returns a mapping, or a tuple with something more in it."""
    import torch
    from transformers import BertConfig, BertForQuestionAnswering

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=60,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=SEQ,
        initializer_range=0.1,
    )
    network = BertForQuestionAnswering(config)
    network.set_attn_implementation("eager")

    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, ids: Any, mask: Any, types: Any) -> Any:
            result = self.network(ids, attention_mask=mask, token_type_ids=types)
            start, end = result.start_logits, result.end_logits
            # Backwards: names count, not the order.
            return {"end_logits": end, "start_logits": start} if mapping else (start, end, ids)

    return Wrapped().eval()


@pytest.mark.parametrize("mapping", [False, True])
def test_questions(general: Path, mapping: bool) -> None:
    import torch

    network = bert(mapping)
    random = np.random.default_rng(3)
    mask = (np.arange(SEQ) < random.integers(4, SEQ + 1, (5, 1))).astype(np.int64)
    feeds = {
        TEXT[0]: random.integers(1, 60, (5, SEQ)) * mask,
        TEXT[1]: mask,
        TEXT[2]: mask * (np.arange(SEQ) > 6),
    }
    tensors = [torch.from_numpy(feeds[name]) for name in TEXT]
    example = tuple(tensor[:1] for tensor in tensors)
    path = Path("general_perf") / "model_zoo" / "small.pt"
    jit: Any = torch.jit
    jit.trace(network, example, strict=False, check_trace=False).save(str(path))
    with torch.no_grad():
        result = network(*tensors)
    want = result if mapping else {"start_logits": result[0], "end_logits": result[1]}
    kind = ("LONG", [1, SEQ])
    info, workload = described(
        "bert-torch-fp32",
        path,
        "start_logits,end_logits",
        input_ids_1=kind,
        attention_mask_1=kind,
        token_type_ids_1=kind,
    )
    report = run_task(workload, info, Questions(feeds))
    for answer in report.answers:
        assert list(answer) == ["start_logits", "end_logits"]
    sides = zip(*(spans(answer) for answer in report.answers), strict=True)
    for name, rows in zip(("start_logits", "end_logits"), sides, strict=True):
        expected = want[name].numpy()[:4]
        assert np.linalg.norm(np.concatenate(rows) - expected) < 0.1 * np.linalg.norm(expected)

    # A checker may hand tensors over as well.
    runtime = backend_class("runtime")()
    compiled = CompileSide(Path("general_perf/backends/SPU").resolve()).compile(
        {"workload": workload, "model_info": info}, Questions(feeds)
    )
    runtime.configs, runtime.workload, runtime.model_info = compiled, workload, info
    runtime.load(2)
    given = {name: tensor[:2] for name, tensor in zip(TEXT, tensors, strict=True)}
    again = runtime.predict(given)
    assert np.array_equal(again["start_logits"], report.answers[0]["start_logits"])
    halves = {TEXT[0]: given[TEXT[0]].bfloat16(), TEXT[1]: given[TEXT[1]], TEXT[2]: given[TEXT[2]]}
    assert np.array_equal(runtime.predict(halves)["start_logits"], again["start_logits"])


def test_the_export_is_at_the_published_interface(general: Path) -> None:
    import torch

    path = Path("general_perf") / "model_zoo" / "small.pt"
    jit: Any = torch.jit
    jit.script(convolutions()).save(str(path))
    info, workload = described("a", path, "out:0", x_1=("FLOAT32", [1, 3, 16, 16]))
    folder = general / "backends" / "SPU"
    before = {"workload": workload, "model_info": info, "interact_info": {}}
    after = CompileSide(folder).pre_optimize(before)
    assert {key: after[key] for key in before} == before
    graph = onnx.load(after[ONNX_PATH]).graph
    assert [value.name for value in graph.input] == ["x.1"]
    assert [value.name for value in graph.output] == ["out:0"]
    dims = graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["batch", 3, 16, 16]


def test_models_that_do_not_fit(tmp_path: Path) -> None:
    import torch

    jit: Any = torch.jit
    path, target = tmp_path / "small.pt", tmp_path / "small.onnx"
    shapes = {"x": [1, 3, 16, 16]}

    def export(kind: str = "FLOAT32", outputs: tuple[str, ...] = ("y",)) -> None:
        export_torchscript(path, target, inputs=["x"], outputs=outputs, shapes=shapes, types=[kind])

    path.write_bytes(b"not a model")
    with pytest.raises(SpuError, match=r"small.pt is no TorchScript file: .*; write it with"):
        export()
    jit.script(convolutions()).save(str(path))
    with pytest.raises(SpuError, match="the input type 'STRING' is not known"):
        export("STRING")
    with pytest.raises(SpuError, match="it returns 1 tensors, and 2 are declared; export it"):
        export(outputs=("y", "z"))
    shapes["x"] = [1, 4, 16, 16]
    with pytest.raises(SpuError, match=r"PyTorch cannot export .*small.pt: "):
        export()
    assert not target.exists()

    network = bert(mapping=True)
    ids = torch.ones(1, SEQ, dtype=torch.int64)
    jit.trace(network, (ids, ids, ids), strict=False, check_trace=False).save(str(path))
    names = ["a", "b", "c"]
    with pytest.raises(SpuError, match="it returns end_logits, start_logits, and no start"):
        export_torchscript(
            path,
            target,
            inputs=names,
            outputs=["start"],
            shapes={name: [1, SEQ] for name in names},
            types=["LONG"] * 3,
        )
