"""Requests of the Open Inference Protocol to arrays and back; and which rows share a run."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from spu_ir.contrib.rows import Rows, run_together
from spu_ir.contrib.serve_protocol import (
    DATATYPES,
    Request,
    Wanted,
    parse_request,
    response,
    tensor_metadata,
)
from spu_ir.errors import SpuError
from spu_ir.runtime.program import DTYPES, Extent, Port
from spu_ir.tools.spu_serve import main as spu_serve

INPUTS = (
    Port("x", "float32", ("batch", 2)),
    Port("n", "int32", ("batch",)),
    Port("w", "uint8", ("batch", "a", "b", "c")),
)
OUTPUTS = (Port("y", "float32", ("batch", 2)), Port("z", "bfloat16", ("batch", "?")))


def tensor(name: str, datatype: str, shape: list[int], **rest: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, **rest}


X = tensor("x", "FP32", [2, 2], data=[1, 2.5, -3e10, 4])
W = tensor("w", "UINT8", [0, 1, 1, 1], data=[])
N = tensor("n", "INT32", [2], data=[-7, 7])


def parse(*inputs: Any, blobs: bytes = b"", binary: bool = False, **rest: Any) -> Request:
    head = json.dumps({"inputs": [*inputs], **rest}).encode()
    length = str(len(head)) if binary else None
    return parse_request(head + blobs, length, INPUTS, OUTPUTS)


def test_every_dtype_has_a_name_and_keeps_its_bits() -> None:
    assert DATATYPES.keys() == DTYPES.keys()
    for dtype, datatype in DATATYPES.items():
        array: NDArray[Any] = np.array([[0, 1], [1, 0]]).astype(DTYPES[dtype])
        port = Port("t", dtype, ("batch", 2))
        flat = tensor("t", datatype, [2, 2], data=array.astype(np.float32).astype(int).tolist())
        if dtype == "bool":
            flat["data"] = array.tolist()
        request = parse_request(json.dumps({"inputs": [flat]}).encode(), None, [port], [port])
        assert request.feeds["t"].dtype == DTYPES[dtype]
        np.testing.assert_array_equal(request.feeds["t"], array)
        # ... and in bytes, to a response and from it.
        asked = Request(request.feeds, (Wanted("t", True),), "7")
        body, length = response("model", asked, {"t": array}, {})
        assert length is not None
        head = json.loads(body[:length])
        assert (head["model_name"], head["model_version"], head["id"]) == ("model", "1", "7")
        again = json.dumps({"inputs": head["outputs"]}).encode()
        request = parse_request(again + body[length:], str(len(again)), [port], [port])
        np.testing.assert_array_equal(request.feeds["t"], array)


def test_nested_flat_and_binary_data_are_the_same() -> None:
    flat = parse(X, N)
    nested = parse(X | {"data": [[1, 2.5], [-3e10, 4]]}, N)
    blobs = flat.feeds["x"].tobytes() + flat.feeds["n"].tobytes()
    whole = parse(
        tensor("x", "FP32", [2, 2], parameters={"binary_data_size": 16}),
        tensor("n", "INT32", [2], parameters={"binary_data_size": 8}),
        blobs=blobs,
        binary=True,
    )
    for request in (nested, whole):
        for name, array in flat.feeds.items():
            np.testing.assert_array_equal(request.feeds[name], array)
    assert flat.outputs == (Wanted("y", False), Wanted("z", False))


def test_outputs_are_those_asked_for() -> None:
    asked = [{"name": "z", "parameters": {"binary_data": False}}, {"name": "y"}]
    request = parse(X, outputs=asked, parameters={"binary_data_output": True}, id="a")
    assert request.outputs == (Wanted("z", False), Wanted("y", True))
    z: NDArray[Any] = np.array([[0.5], [3]], ml_dtypes.bfloat16)
    y = np.ones((2, 2), np.float32)
    body, length = response("m", request, {"y": y, "z": z}, {"batch_rows": 2})
    head = json.loads(body[:length])
    assert head["outputs"][0] == tensor("z", "BF16", [2, 1], data=[0.5, 3.0])
    assert head["outputs"][1] == tensor("y", "FP32", [2, 2], parameters={"binary_data_size": 16})
    assert body[length:] == y.tobytes()


def test_no_elements() -> None:
    assert parse(W).feeds["w"].shape == (0, 1, 1, 1)
    none = W | {"parameters": {"binary_data_size": 0}}
    del none["data"]
    assert parse(none, binary=True).feeds["w"].shape == (0, 1, 1, 1)


def test_metadata() -> None:
    assert tensor_metadata(OUTPUTS[1]) == tensor("z", "BF16", [-1, -1])


@pytest.mark.parametrize(
    ("inputs", "rest", "cause"),
    [
        ([X, X], {}, "the input 'x' is there twice"),
        ([{"name": 3}], {}, "has no text 'name'"),
        (["x"], {}, "an entry of 'inputs' is no JSON object"),
        ([X | {"shape": [2, -2]}], {}, "has the extent -2"),
        ([X | {"shape": [True, 2]}], {}, "has the extent True"),
        ([X | {"shape": "2"}], {}, "is missing or no list"),
        ([X | {"shape": [1] * 40}], {}, "has 40 axes"),
        ([W | {"shape": [0] + [2**31 - 1] * 3}], {}, "has the impossible shape"),
        ([X | {"data": [[1, 2], [3]]}], {}, "lists that are no tensor"),
        ([X | {"data": ["1", "2", "3", "4"]}], {}, "values that are no FP32"),
        ([X | {"data": [1, 2, None, 4]}], {}, "values that are no FP32"),
        ([N | {"data": [1, 2**31]}], {}, "values outside -2147483648 to 2147483647"),
        ([N | {"data": [True, False]}], {}, "values that are no INT32"),
        ([tensor("x", "FP32", [1, 2])], {}, "is missing or no list"),
        ([X], {"id": 5}, "the field 'id' is no text"),
        ([X], {"outputs": [{"name": "y"}, {"name": "y"}]}, "asked for twice"),
        ([X], {"parameters": {"binary_data_output": 1}}, "neither true nor false"),
        (
            [X],
            {"outputs": [{"name": "y", "parameters": {"classification": 3}}]},
            "not spoken here",
        ),
    ],
)
def test_what_is_refused(inputs: list[Any], rest: Any, cause: str) -> None:
    with pytest.raises(SpuError, match=cause):
        parse(*inputs, **rest)


@pytest.mark.parametrize(
    ("size", "blob", "cause"),
    [
        (15, bytes(15), "has a binary_data_size of 15; its shape takes 16"),
        (16, bytes(12), "has 16 bytes, and 12 are left in the request"),
        (16, bytes(17), "1 bytes follow the last input's"),
    ],
)
def test_sizes_of_bytes(size: int, blob: bytes, cause: str) -> None:
    entry = tensor("x", "FP32", [2, 2], parameters={"binary_data_size": size})
    with pytest.raises(SpuError, match=cause):
        parse(entry, blobs=blob, binary=True)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "datatype", "shape", "data", "parameters", "outputs"]), inner
        )
    ),
    max_leaves=12,
)


@given(
    JSON | st.builds(lambda a, b, c: {"inputs": [X | {"data": a, "shape": b}], **c}, JSON, JSON,
                     st.dictionaries(st.sampled_from(["id", "outputs", "parameters"]), JSON)),
    st.binary(max_size=20),
    st.none() | st.text("0123456789-", max_size=5),
)  # fmt: skip
def test_anything_is_parsed_or_refused(value: Any, tail: bytes, length: str | None) -> None:
    try:
        request = parse_request(json.dumps(value).encode() + tail, length, INPUTS, OUTPUTS)
    except SpuError:
        return
    for name, array in request.feeds.items():
        assert array.dtype == {"x": np.float32, "n": np.int32, "w": np.uint8}[name]


@dataclass
class Doubler:
    """Stands for a model that doubles `x`, fails for values below 0, and counts its runs' rows."""

    inputs: tuple[Port, ...] = (Port("x", "float32", ("batch", "seq")),)
    outputs: tuple[Port, ...] = (Port("y", "float32", ("batch", "seq")),)
    extents: tuple[Extent, ...] = (Extent("batch", 3, 6), Extent("seq", 1, 9))
    runs: list[int] = field(default_factory=list[int])

    def run(self, feeds: dict[str, Any]) -> dict[str, Any]:
        self.runs.append(len(feeds["x"]))
        if (feeds["x"] < 0).any():
            raise SpuError("below 0")
        return {"y": 2 * feeds["x"]}


@pytest.mark.parametrize(
    ("x", "y", "rows"),
    [
        (("batch", "seq"), ("batch", "seq"), Rows(3, 6, True)),
        ((4, "seq"), (4, 2), Rows(4, 4, True)),
        ((4, "seq"), (5, 2), Rows(1, 1, False)),
        (("batch", "seq"), ("?", "seq"), Rows(1, 1, False)),
        (("batch", "seq"), (), Rows(1, 1, False)),
        (("batch", "batch"), ("batch", 2), Rows(1, 1, False)),
    ],
)
def test_the_batch_of_a_model(x: Any, y: Any, rows: Rows) -> None:
    model: Any = Doubler((Port("x", "float32", x),), (Port("y", "float32", y),))
    assert Rows.of(model) == rows


def test_rows_go_back_to_whom_they_belong() -> None:
    double = Doubler()
    model: Any = double
    requests = [{"x": np.full((count, 2), value, np.float32)} for value, count in ((1, 2), (5, 3))]
    answers = run_together(model, Rows.of(model), requests)
    for request, answer in zip(requests, answers, strict=True):
        assert isinstance(answer, dict)
        np.testing.assert_array_equal(answer["y"], 2 * request["x"])
        assert answer["y"].base is None
    (few,) = run_together(model, Rows.of(model), requests[:1])
    assert isinstance(few, dict)
    np.testing.assert_array_equal(few["y"], 2 * requests[0]["x"])
    assert double.runs == [5, 3]


def test_only_the_bad_one_of_a_run_fails() -> None:
    double = Doubler()
    model: Any = double
    requests = [{"x": np.full((1, 2), value, np.float32)} for value in (1, -1, 2)]
    answers = run_together(model, Rows.of(model), requests)
    assert [isinstance(answer, SpuError) for answer in answers] == [False, True, False]
    assert double.runs == [3, 3, 3, 3]


def test_an_application_without_its_extra_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "starlette.applications", None)
    for name in ("spu_ir.contrib.serve_app", "spu_ir.contrib.serve_http"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert spu_serve(["nothing.spu"]) == 1
    assert "pip install 'spu-ir[serve]'" in capsys.readouterr().err
