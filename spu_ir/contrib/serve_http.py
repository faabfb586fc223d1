"""The HTTP server in front of the application: one process, which ends without losing requests."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING

import uvicorn

from spu_ir.contrib.serve_app import Limits, application
from spu_ir.errors import SpuError

if TYPE_CHECKING:
    from spu_ir.runtime.model import CompiledModel

STOP_SECONDS = 30
"""How long requests that are being answered may take when the server is told to stop."""
CONNECTIONS = 512
"""Connections at once; more get 503."""


def serve(
    models: Mapping[str, CompiledModel],
    limits: Limits | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
) -> None:
    """
    Serve `models` until SIGTERM or SIGINT; then no connection is accepted any more, and requests
    that have arrived are answered.

    Prints one line with its address when it listens; port 0 is any free one. Raises SpuError where
    the address cannot be listened on, and as `application`.
    """
    app = application(models, limits)
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    with listen(host, port) as listening:
        shown = f"[{host}]" if ":" in host else host
        print(
            f"serving {', '.join(models)} on http://{shown}:{listening.getsockname()[1]}/v2",
            flush=True,
        )
        # uvicorn raises the signal again after its shutdown.
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run([listening])


def listen(host: str, port: int) -> socket.socket:
    """A TCP socket that listens. Raises SpuError where the address cannot be listened on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With its protocol named, asyncio sets TCP_NODELAY: else answers wait 40 ms for a late ACK.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise SpuError(
            f"cannot listen on {host} port {port}: {error.strerror or error}",
            remedy="choose another --port or --host",
        ) from error
    return listening
