"""Compiled models as an ASGI application, in the Open Inference Protocol: docs/serving.md."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from spu_ir import __version__
from spu_ir.contrib import serve_protocol as protocol
from spu_ir.contrib.serve_batcher import Batcher, BusyError
from spu_ir.errors import SpuError

if TYPE_CHECKING:
    from spu_ir.runtime.model import CompiledModel
    from spu_ir.runtime.program import Json

P = ParamSpec("P")
T = TypeVar("T")
LOG = logging.getLogger("spu_ir.serve")


@dataclass(frozen=True)
class Limits:
    """What a server takes of clients that nobody vouches for, and how it batches."""

    request_bytes: int = 64 << 20
    """The largest body of a request."""
    bodies_bytes: int = 256 << 20
    """All bodies together that are being received or wait; more are told to come again."""
    body_seconds: float = 30.0
    """The longest that a request's body may take to arrive."""
    waiting: int = 256
    """The most requests that wait for a model."""
    batch: int | None = None
    """The most rows of a run; by default what the model was compiled for."""
    delay: float = 0.002
    """Seconds for which the first request of a batch waits for others."""


class Server:
    """
    The handlers of an application that serves models, by name.

    Errors are `{"error": cause}`: 400 for what the model or the protocol does not take, 404 for a
    name or a version that there is not, 408, 413 and 415 for bodies that take too long, are too
    large or compressed, 503 with Retry-After for too many requests and during the shutdown.
    Raises SpuError for limits that make no sense.
    """

    def __init__(self, models: Mapping[str, CompiledModel], limits: Limits | None = None):
        self.limits = limits or Limits()
        if not models:
            raise SpuError("there is no model to serve")
        if not 0 < self.limits.request_bytes <= self.limits.bodies_bytes:
            raise SpuError("a request may be 1 byte or more, and not more than all requests")
        self.batchers = {
            name: Batcher(
                model,
                maximum=self.limits.batch,
                delay=self.limits.delay,
                waiting=self.limits.waiting,
            )
            for name, model in models.items()
        }
        self.ready = False
        self._bodies = 0

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncGenerator[None]:
        """Batchers run while the application does; what waits at its end is answered first."""
        for batcher in self.batchers.values():
            batcher.start()
        self.ready = True
        yield
        self.ready = False
        await asyncio.gather(*(batcher.close() for batcher in self.batchers.values()))

    async def server_metadata(self, _: Request) -> Response:
        """GET /v2"""
        return JSONResponse(
            {"name": "spu-ir", "version": __version__, "extensions": [*protocol.EXTENSIONS]}
        )

    async def live(self, _: Request) -> Response:
        """GET /v2/health/live"""
        return JSONResponse({"live": True})

    async def server_ready(self, _: Request) -> Response:
        """GET /v2/health/ready"""
        return JSONResponse({"ready": self.ready}, 200 if self.ready else 503)

    async def model_ready(self, request: Request) -> Response:
        """GET /v2/models/NAME/ready"""
        name, _ = self._find(request)
        return JSONResponse({"name": name, "ready": self.ready}, 200 if self.ready else 503)

    async def model_metadata(self, request: Request) -> Response:
        """GET /v2/models/NAME"""
        name, batcher = self._find(request)
        return JSONResponse(
            {
                "name": name,
                "versions": [protocol.VERSION],
                "platform": "spu_ir",
                "inputs": [protocol.tensor_metadata(port) for port in batcher.model.inputs],
                "outputs": [protocol.tensor_metadata(port) for port in batcher.model.outputs],
            }
        )

    async def infer(self, request: Request) -> Response:
        """POST /v2/models/NAME/infer"""
        name, batcher = self._find(request)
        # What is declared too large is refused before anything is read.
        encoding = request.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            raise HTTPException(415, f"the body is compressed ({encoding[:100]})")
        declared = request.headers.get("Content-Length", "0")
        if not declared.isdigit() or int(declared) > self.limits.request_bytes:
            raise self._too_large()
        held = 0
        body = bytearray()
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                async for chunk in request.stream():
                    held += len(chunk)
                    self._bodies += len(chunk)
                    if held > self.limits.request_bytes:
                        raise self._too_large()
                    if self._bodies > self.limits.bodies_bytes:
                        raise BusyError("the requests that wait are too large together")
                    body += chunk
            parsed = await _apart(
                len(body),
                protocol.parse_request,
                bytes(body),
                request.headers.get(protocol.JSON_LENGTH),
                batcher.model.inputs,
                batcher.model.outputs,
            )
            body.clear()
            answered = await batcher.submit(parsed.feeds)
        except TimeoutError as error:
            seconds = self.limits.body_seconds
            raise HTTPException(408, f"the body took more than {seconds:g} s to arrive") from error
        finally:
            self._bodies -= held
        parameters: dict[str, Json] = {"batch_rows": answered.rows}
        size = sum(array.nbytes for array in answered.outputs.values())
        data, length = await _apart(
            size, protocol.response, name, parsed, answered.outputs, parameters
        )
        if length is None:
            return Response(data, media_type="application/json")
        headers = {protocol.JSON_LENGTH: str(length)}
        return Response(data, media_type="application/octet-stream", headers=headers)

    def _find(self, request: Request) -> tuple[str, Batcher]:
        name: str = request.path_params["name"]
        version: str = request.path_params.get("version", protocol.VERSION)
        if name not in self.batchers:
            known = ", ".join(self.batchers)
            raise HTTPException(404, f"there is no model {name[:100]!r}; there are {known}")
        if version != protocol.VERSION:
            raise HTTPException(404, f"{name!r} has no version {version[:100]!r}")
        return name, self.batchers[name]

    def _too_large(self) -> HTTPException:
        return HTTPException(413, f"a request may have {self.limits.request_bytes} bytes at most")


def application(models: Mapping[str, CompiledModel], limits: Limits | None = None) -> Starlette:
    """
    The ASGI application that serves `models`, for any ASGI server.

    Raises SpuError without a model, or for limits that make no sense.
    """
    server = Server(models, limits)
    routes = [
        Route("/v2", server.server_metadata),
        Route("/v2/health/live", server.live),
        Route("/v2/health/ready", server.server_ready),
    ]
    for base in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        routes += [
            Route(base, server.model_metadata),
            Route(f"{base}/ready", server.model_ready),
            Route(f"{base}/infer", server.infer, methods=["POST"]),
        ]
    return Starlette(
        routes=routes,
        lifespan=server.lifespan,
        exception_handlers={
            SpuError: _bad_request,
            BusyError: _busy,
            ClientDisconnect: _gone,
            HTTPException: _refused,
            Exception: _fault,
        },
    )


async def _apart(size: int, function: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
    """Call a function that goes through `size` bytes: in a thread, where others would wait."""
    if size < 1 << 16:
        return function(*args, **named)
    return await asyncio.to_thread(function, *args, **named)


async def _bad_request(_: Request, error: Exception) -> Response:
    # Some errors quote what they got, however long it is.
    text = str(error)
    return JSONResponse({"error": text if len(text) <= 1000 else f"{text[:1000]}..."}, 400)


async def _busy(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 503, {"Retry-After": "1"})


async def _gone(_: Request, error: Exception) -> Response:
    del error  # Nobody hears the answer.
    return Response(status_code=400)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _fault(_: Request, error: Exception) -> Response:
    # Its text may tell of the machine: it is for the log, not for the client.
    LOG.error("a request failed", exc_info=error)
    return JSONResponse({"error": "the server failed; its log says why"}, 500)
