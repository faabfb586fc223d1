"""The application without a network: batches, limits, and faults of its own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import spu_ir
from spu_ir.contrib.serve_app import Limits, application
from spu_ir.contrib.serve_batcher import Batcher
from spu_ir.contrib.serve_http import listen
from spu_ir.errors import SpuError
from spu_ir.runtime.model import CompiledModel

URL = "/v2/models/words/infer"
REQUEST = {"inputs": [{"name": "ids", "datatype": "INT64", "shape": [1, 3], "data": [1, 2, 3]}]}


@pytest.fixture(scope="module")
def model(words: Path) -> CompiledModel:
    return spu_ir.load(words, threads=1)


def talk(
    model: CompiledModel, limits: Limits, talk_to: Callable[[httpx.AsyncClient], Awaitable[None]]
) -> None:
    """Start the application, talk to it, and stop it."""

    async def run() -> None:
        app = application({"words": model}, limits)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://words") as client,
        ):
            await talk_to(client)

    asyncio.run(run())


def test_more_than_may_wait_come_again_later(model: CompiledModel) -> None:
    async def talk_to(client: httpx.AsyncClient) -> None:
        done = await asyncio.gather(*(client.post(URL, json=REQUEST) for _ in range(6)))
        assert sorted(each.status_code for each in done) == [200] * 2 + [503] * 4
        for each in done:
            if each.status_code == 503:
                assert each.json() == {"error": "too many requests wait"}
                assert each.headers["Retry-After"] == "1"
            else:
                assert each.json()["parameters"] == {"batch_rows": 2}

    talk(model, Limits(waiting=2, delay=1.0), talk_to)


def test_bodies_have_a_limit_together(model: CompiledModel) -> None:
    async def slow() -> AsyncGenerator[bytes]:
        yield b" " * 900
        await asyncio.sleep(0.3)

    async def talk_to(client: httpx.AsyncClient) -> None:
        first = asyncio.create_task(client.post(URL, content=slow()))
        await asyncio.sleep(0.1)
        second = await client.post(URL, json=REQUEST)
        assert second.status_code == 503
        assert "too large together" in second.json()["error"]
        assert (await first).status_code == 400
        assert (await client.post(URL, json=REQUEST)).status_code == 200

    talk(model, Limits(request_bytes=950, bodies_bytes=950), talk_to)


def test_a_body_that_says_no_length_has_a_limit_too(model: CompiledModel) -> None:
    async def chunks() -> AsyncGenerator[bytes]:
        for _ in range(11):
            yield b" " * 100

    async def talk_to(client: httpx.AsyncClient) -> None:
        done = await client.post(URL, content=chunks())
        assert done.status_code == 413
        assert done.json() == {"error": "a request may have 1000 bytes at most"}

    talk(model, Limits(request_bytes=1000), talk_to)


def test_a_body_that_does_not_end_is_given_up(model: CompiledModel) -> None:
    async def endless() -> AsyncGenerator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.02)

    async def talk_to(client: httpx.AsyncClient) -> None:
        done = await client.post(URL, content=endless())
        assert done.status_code == 408
        assert done.json() == {"error": "the body took more than 0.1 s to arrive"}

    talk(model, Limits(body_seconds=0.1), talk_to)


def test_a_fault_of_ours_is_logged_and_not_told(
    model: CompiledModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(feeds: Any) -> Any:
        raise RuntimeError("the secret path /somewhere")

    async def talk_to(client: httpx.AsyncClient) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(model, "run", fail)
            done = await client.post(URL, json=REQUEST)
        assert done.status_code == 500
        assert done.json() == {"error": "the server failed; its log says why"}
        assert "the secret path" in caplog.text
        assert (await client.post(URL, json=REQUEST)).status_code == 200

    talk(model, Limits(), talk_to)


def test_values_that_json_does_not_have(
    model: CompiledModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = {"logits": np.full((1, 8), np.inf, np.float32), "peak": np.zeros(1, np.float32)}
    monkeypatch.setattr(model, "run", lambda feeds: outputs)  # pyright: ignore

    async def talk_to(client: httpx.AsyncClient) -> None:
        done = await client.post(URL, json=REQUEST)
        assert done.status_code == 400
        assert "ask for binary_data" in done.json()["error"]
        asked = REQUEST | {"parameters": {"binary_data_output": True}}
        done = await client.post(URL, json=asked)
        length = int(done.headers["Inference-Header-Content-Length"])
        assert done.content[length:] == outputs["logits"].tobytes() + outputs["peak"].tobytes()

    talk(model, Limits(), talk_to)


def test_batches_are_cut_where_they_are_full(model: CompiledModel) -> None:
    async def run() -> None:
        batcher = Batcher(model, maximum=5, delay=0.05)
        batcher.start()
        ids = np.random.default_rng(0).integers(0, 40, (12, 2, 4))
        answered = await asyncio.gather(*(batcher.submit({"ids": each}) for each in ids))
        assert [each.rows for each in answered] == [4] * 12
        for each, one in zip(ids, answered, strict=True):
            alone = model.run({"ids": each})
            for name, array in alone.items():
                np.testing.assert_array_equal(one.outputs[name], array)
        # More rows than a batch has, but no more than the model takes, run alone.
        (whole,) = await asyncio.gather(batcher.submit({"ids": np.zeros((8, 4), np.int64)}))
        assert whole.rows == 8
        with pytest.raises(SpuError, match="allowed are 1 to 8"):
            await batcher.submit({"ids": np.zeros((9, 4), np.int64)})
        await batcher.close()

    asyncio.run(run())


def test_what_is_cancelled_does_not_run(model: CompiledModel) -> None:
    async def run() -> None:
        batcher = Batcher(model, delay=0.2)
        batcher.start()
        ids = np.ones((1, 4), np.int64)
        gone = asyncio.create_task(batcher.submit({"ids": ids}))
        stays = asyncio.create_task(batcher.submit({"ids": ids}))
        await asyncio.sleep(0.05)
        gone.cancel()
        assert (await stays).rows == 1
        await batcher.close()

    asyncio.run(run())


def test_answers_are_sent_at_once() -> None:
    """asyncio switches Nagle's algorithm off only for sockets that say that they are TCP's."""
    with listen("127.0.0.1", 0) as listening:
        assert listening.proto == socket.IPPROTO_TCP
        address = listening.getsockname()[:2]

        async def run() -> None:
            found: list[int] = []
            connected = asyncio.Event()

            def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                accepted = writer.get_extra_info("socket")
                found.append(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
                writer.close()
                connected.set()

            async with await asyncio.start_server(accept, sock=listening):
                _, writer = await asyncio.open_connection(*address)
                await connected.wait()
                writer.close()
                await writer.wait_closed()
            assert found == [1]

        asyncio.run(run())


def test_a_port_that_is_taken() -> None:
    with (
        listen("127.0.0.1", 0) as listening,
        pytest.raises(SpuError, match="Address already in use"),
    ):
        listen("127.0.0.1", listening.getsockname()[1])
