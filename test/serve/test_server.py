"""The server, with a client that was not written for it: Triton's."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from tritonclient import http as triton
from tritonclient.utils import InferenceServerException

import spu_ir

WORDS = 40


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`spu-serve` on a free port: the process, and its address without http://."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "spu_ir.tools.spu_serve", "--port=0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        try:
            assert line.endswith("/v2\n"), process.stderr.read()
            yield process, line.rpartition("http://")[2].removesuffix("/v2\n")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        assert process.stderr.read() == ""
        assert process.returncode == -signal.SIGTERM


@pytest.fixture(scope="module")
def address(words: Path, pictures: Path) -> Iterator[str]:
    """A server with two models, which waits long enough for requests to meet."""
    options = ("--max-delay-ms=100", "--max-request-mib=1", "--threads=1")
    with serving(str(words), f"photos={pictures}", *options) as (_, address):
        yield address


@pytest.fixture
def client(address: str) -> Iterator[Any]:
    client = triton.InferenceServerClient(address, concurrency=8)
    yield client
    client.close()


def input_of(ids: NDArray[Any], *, binary: bool) -> Any:
    tensor = triton.InferInput("ids", list(ids.shape), "INT64")
    tensor.set_data_from_numpy(ids, binary_data=binary)
    return tensor


def test_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("words")
    assert client.is_model_ready("photos", "1")
    assert not client.is_model_ready("nothing")
    assert client.get_server_metadata() == {
        "name": "spu-ir",
        "version": spu_ir.__version__,
        "extensions": ["binary_tensor_data"],
    }
    assert client.get_model_metadata("words") == {
        "name": "words",
        "versions": ["1"],
        "platform": "spu_ir",
        "inputs": [{"name": "ids", "datatype": "INT64", "shape": [-1, -1]}],
        "outputs": [
            {"name": "logits", "datatype": "FP32", "shape": [-1, 8]},
            {"name": "peak", "datatype": "FP32", "shape": [-1]},
        ],
    }


def test_eight_at_once_get_the_bits_of_one_by_one(client: Any, words: Path) -> None:
    rng = np.random.default_rng(0)
    # Of two lengths, which never share a run, and some of several rows.
    asked = [rng.integers(0, WORDS, (1 + (n % 5 == 0), (6, 11)[n % 2])) for n in range(64)]
    pending = [
        client.async_infer(
            "words",
            [input_of(ids, binary=number % 3 == 0)],
            request_id=str(number),
            outputs=[
                triton.InferRequestedOutput("peak", binary_data=number % 2 == 0),
                triton.InferRequestedOutput("logits", binary_data=number % 4 == 0),
            ],
        )
        for number, ids in enumerate(asked)
    ]
    model = spu_ir.load(words, threads=1)
    shared: list[int] = []
    for number, (ids, one) in enumerate(zip(asked, pending, strict=True)):
        result = one.get_result(timeout=60)
        assert result.get_response()["id"] == str(number)
        shared.append(result.get_response()["parameters"]["batch_rows"])
        alone = model.run({"ids": ids})
        for name, array in alone.items():
            np.testing.assert_array_equal(result.as_numpy(name), array)
    assert 1 < max(shared) <= 8


def test_a_picture_in_bytes(client: Any, pictures: Path) -> None:
    model = spu_ir.load(pictures, threads=1)
    images = spu_ir.ImageInput.of(model)
    feeds = images.feeds([np.random.default_rng(0).integers(0, 256, (50, 40, 3), np.uint8)])
    tensors: list[Any] = []
    for port in model.inputs:
        kind = {"uint8": "UINT8", "int32": "INT32"}[port.dtype]
        tensor = triton.InferInput(port.name, list(feeds[port.name].shape), kind)
        tensor.set_data_from_numpy(feeds[port.name])
        tensors.append(tensor)
    result = client.infer("photos", tensors)
    for name, array in model.run(feeds).items():
        np.testing.assert_array_equal(result.as_numpy(name), array)


def test_the_client_hears_what_is_wrong(client: Any) -> None:
    with pytest.raises(InferenceServerException, match="allowed are 1 to 16") as caught:
        client.infer("words", [input_of(np.zeros((1, 17), np.int64), binary=True)])
    assert caught.value.status() == "400"


def body(**changes: Any) -> dict[str, Any]:
    """A good request's input, changed."""
    tensor = {"name": "ids", "datatype": "INT64", "shape": [1, 3], "data": [1, 2, 3]}
    return {"inputs": [tensor | changes]}


@pytest.mark.parametrize(
    ("path", "content", "status", "cause"),
    [
        ("words", body(name="idz"), 400, "there is no input 'idz'"),
        ("words", {"inputs": []}, 400, "the input 'ids' is missing"),
        ("words", body(datatype="FP32"), 400, "expected INT64"),
        ("words", body(shape=[3]), 400, "has 1 axes"),
        ("words", body(name="x" * 5000), 400, "xxxxx..."),
        ("words", body(shape=[1, 4]), 400, "says that it is [1, 4]"),
        ("words", body(shape=[9, 1], data=[1] * 9), 400, "allowed are 1 to 8"),
        ("words", body(data=[1, 2, WORDS]), 400, "an index among the inputs is outside"),
        ("words", body(data=[1, 2, 2.5]), 400, "values that are no INT64"),
        ("words", body(data=[1, 2, 2**70]), 400, "values that are no INT64"),
        ("words", body(data=None, parameters={"binary_data_size": 24}), 400, "has both data and"),
        ("words", body() | {"outputs": [{"name": "x"}]}, 400, "there is no output 'x'"),
        ("words", [], 400, "is no JSON object"),
        ("nothing", body(), 404, "there is no model 'nothing'"),
        ("words/versions/2", body(), 404, "has no version '2'"),
    ],
)
def test_bad_requests(address: str, path: str, content: Any, status: int, cause: str) -> None:
    done = httpx.post(f"http://{address}/v2/models/{path}/infer", json=content)
    assert (done.status_code, list(done.json())) == (status, ["error"])
    assert cause in done.json()["error"]


def test_bad_bodies(address: str) -> None:
    url = f"http://{address}/v2/models/words/infer"
    for content in (b"", b"hello", b"[" * 100_000, b'{"inputs": NaN}', b"\xff\xfe"):
        done = httpx.post(url, content=content)
        assert done.status_code == 400
        assert "the request is not JSON" in done.json()["error"]
    done = httpx.post(url, content=b"x" * 2_000_000)
    assert done.status_code == 413
    assert done.json()["error"] == "a request may have 1048576 bytes at most"
    done = httpx.post(url, content=b"x", headers={"Content-Encoding": "gzip"})
    assert done.status_code == 415
    assert httpx.get(url).status_code == 405
    assert httpx.get(f"http://{address}/v3").status_code == 404
    length = {"Inference-Header-Content-Length": "1000"}
    done = httpx.post(url, json=body(), headers=length)
    assert done.status_code == 400
    assert "Inference-Header-Content-Length" in done.json()["error"]


def test_a_bad_request_does_not_disturb_those_beside_it(client: Any, words: Path) -> None:
    ids = np.random.default_rng(1).integers(0, WORDS, (7, 1, 5))
    ids[3, 0, 2] = 10**6
    pending = [client.async_infer("words", [input_of(one, binary=True)]) for one in ids]
    model = spu_ir.load(words, threads=1)
    for number, (one, waiting) in enumerate(zip(ids, pending, strict=True)):
        if number == 3:
            with pytest.raises(InferenceServerException, match="an index among the inputs"):
                waiting.get_result(timeout=60)
        else:
            result = waiting.get_result(timeout=60)
            np.testing.assert_array_equal(
                result.as_numpy("logits"), model.run({"ids": one})["logits"]
            )


def test_a_stopping_server_answers_what_has_arrived(words: Path) -> None:
    answers: list[httpx.Response] = []
    with serving(str(words), "--max-delay-ms=3000", "--threads=1") as (process, address):
        url = f"http://{address}/v2/models/words/infer"
        thread = threading.Thread(
            target=lambda: answers.append(httpx.post(url, json=body(), timeout=60))
        )
        thread.start()
        # Its request waits for others for a while; a second one shows that the first has come.
        ready = httpx.get(f"http://{address}/v2/health/ready")
        assert ready.json() == {"ready": True}
        threading.Event().wait(1.5)
        assert answers == []
        process.send_signal(signal.SIGTERM)
        thread.join(60)
        process.wait(60)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://{address}/v2/health/live")
    (answer,) = answers
    assert answer.status_code == 200
    outputs = {each["name"]: each["data"] for each in answer.json()["outputs"]}
    alone = spu_ir.load(words, threads=1).run({"ids": np.array([[1, 2, 3]])})
    assert outputs["logits"] == alone["logits"][0].tolist()


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (["{words}", "words={words}"], "two models have the name 'words'"),
        (["{words}/lib"], "cannot read"),
        (["{words}", "--port=70000"], "is no port"),
        (["{words}", "--max-batch=0"], "holds no request"),
        (["{words}", "--max-request-mib=0"], "a request may be 1 byte or more"),
        (["{words}", "--host=203.0.113.1"], "cannot listen on 203.0.113.1"),
        (["={words}"], "cannot be a model's name"),
    ],
)
def test_what_the_command_refuses(arguments: list[str], cause: str, words: Path) -> None:
    command = [sys.executable, "-m", "spu_ir.tools.spu_serve", "--port=0"]
    done = subprocess.run(
        [*command, *(each.format(words=words) for each in arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert cause in done.stderr
    assert json.dumps(done.stderr).count("error: ") == 1
