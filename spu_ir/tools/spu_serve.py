"""
`spu-serve`: compiled models behind HTTP, in the Open Inference Protocol.

    spu-serve model.spu --port 8080
    spu-serve resnet50=models/a.spu bert=models/b.spu --max-batch 16 --max-delay-ms 5
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spu_ir.errors import SpuError
from spu_ir.tools.command import exit_code

if TYPE_CHECKING:
    from spu_ir.runtime.model import CompiledModel


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `spu-serve`; the exit code is 0, or 1 after one `error:` line for what the user gave."""
    options = _parser().parse_args(arguments)
    return exit_code(lambda: _serve(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="spu-serve",
        description="Serve compiled models over HTTP, in the Open Inference Protocol (KServe v2) "
        "with dynamic batching, until SIGTERM or Ctrl-C. There is neither encryption nor "
        "authentication. A package contains native code: serve only packages that you trust.",
    )
    parser.add_argument(
        "models",
        nargs="+",
        metavar="[NAME=]PACKAGE",
        help="a folder that spu-compile or save wrote; its model's name is by default the folder's",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="the address to listen on (default 127.0.0.1: this machine only)",
    )
    parser.add_argument("--port", type=int, default=8080, help="default 8080; 0: any free one")
    parser.add_argument(
        "--max-batch", type=int, metavar="N", help="most rows of a run (default: the model's)"
    )
    parser.add_argument(
        "--max-delay-ms",
        type=float,
        default=2.0,
        metavar="MS",
        help="how long a request waits for others to share a run (default 2)",
    )
    parser.add_argument(
        "--max-waiting", type=int, default=256, metavar="N", help="default 256 requests a model"
    )
    parser.add_argument(
        "--max-request-mib", type=int, default=64, metavar="N", help="largest body (default 64)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="most threads of a run")
    parser.add_argument(
        "--device", type=int, metavar="N", help="device index of the card (docs/devices.md)"
    )
    return parser


def _serve(options: argparse.Namespace) -> None:
    if not 0 <= options.port < 65536:
        raise SpuError(f"--port {options.port} is no port", remedy="use 0 to 65535")
    try:
        from spu_ir.contrib.serve_app import Limits
        from spu_ir.contrib.serve_http import serve
    except ImportError as error:
        raise SpuError(
            f"serving needs starlette and uvicorn: {error}", remedy="pip install 'spu-ir[serve]'"
        ) from error
    mib: int = options.max_request_mib
    limits = Limits(
        request_bytes=mib << 20,
        bodies_bytes=max(256, 4 * mib) << 20,
        waiting=options.max_waiting,
        batch=options.max_batch,
        delay=options.max_delay_ms / 1e3,
    )
    serve(_load(options), limits, host=options.host, port=options.port)


def _load(options: argparse.Namespace) -> dict[str, CompiledModel]:
    from spu_ir.runtime.model import load

    models: dict[str, CompiledModel] = {}
    given: list[str] = options.models
    for text in given:
        name, equals, path = text.partition("=")
        if not equals:
            name, path = Path(text).resolve().stem, text
        if not name or "/" in name:
            raise SpuError(f"{name!r} cannot be a model's name", remedy="use NAME=PACKAGE")
        if name in models:
            raise SpuError(f"two models have the name {name!r}", remedy="use NAME=PACKAGE")
        models[name] = load(path, threads=options.threads, device=options.device)
    return models


if __name__ == "__main__":
    sys.exit(main())
