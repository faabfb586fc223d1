"""
`spu-opt`: xDSL's modular driver with this project's dialects, passes and targets, and ONNX input.

    spu-opt model.onnx -p upgrade-opset,infer-shapes
    spu-opt model.onnx --shapes batch=1:64,seq=1:512 --weights weights > model.mlir
    spu-opt model.onnx --shapes batch=1:64 -p graph,lower,quantise-int8,memory -t c > model.c
    SPU_IR_DUMP=stages spu-opt model.mlir -p fold-constants,fuse-gelu
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import IO

from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import PassPipeline
from xdsl.utils.exceptions import (
    ArgSpecParseError,
    DiagnosticException,
    ParseError,
    UnregisteredConstructException,
)
from xdsl.xdsl_opt_main import xDSLOptMain

from spu_ir.dialects.weights import MissingWeights, WeightStore, store_of, use_store
from spu_ir.errors import SpuError
from spu_ir.tools.dump import DUMP_VARIABLE, dump_callback
from spu_ir.universe import PIPELINES, SPU_UNIVERSE


class SpuOpt(xDSLOptMain):
    """xDSL's driver with the dialects, passes, targets and the ONNX frontend of this project."""

    def register_all_dialects(self) -> None:
        super().register_all_dialects()
        # An installed package is found through its entry point; a bare checkout is not.
        known = set(self.ctx.registered_dialect_names)
        for name, loader in SPU_UNIVERSE.all_dialects.items():
            if name not in known:
                self.ctx.register_dialect(name, loader)

    def register_all_passes(self) -> None:
        super().register_all_passes()
        for name, loader in SPU_UNIVERSE.all_passes.items():
            self.register_pass(name, loader)

    def register_all_targets(self) -> None:
        super().register_all_targets()
        self.available_targets.update(SPU_UNIVERSE.all_targets)

    def register_all_frontends(self) -> None:
        super().register_all_frontends()
        self.available_frontends["onnx"] = self._parse_onnx

    def _parse_onnx(self, stream: IO[bytes]) -> ModuleOp:
        from spu_ir.frontend import import_model, parse_shapes

        shapes = parse_shapes(self.args.shapes)
        # A file is read by its path, because its external data lies beside it.
        source = Path(self.args.input_file) if self.args.input_file else stream.read()
        return import_model(source, self.ctx, shapes=shapes)

    def register_all_arguments(self, arg_parser: argparse.ArgumentParser) -> None:
        super().register_all_arguments(arg_parser)
        arg_parser.epilog = (
            "A pass list may also name pipelines, in the order of a compilation: "
            + ", ".join(PIPELINES)
        )
        arg_parser.add_argument(
            "--shapes",
            default="",
            help="of an .onnx input: extents as name=4 or name=1:64 (any value in the range at "
            "run time), inputs as name=[1,3,224,224]; separated by commas",
        )
        arg_parser.add_argument(
            "--weights",
            type=Path,
            metavar="DIR",
            help="folder with the bytes of #spu.weights: read from, and written to at the end",
        )
        arg_parser.add_argument(
            "--verify-passes",
            action="store_true",
            help="execute the module before and after every pass on generated inputs, and name "
            "the first pass that does not preserve what it declares",
        )

    def setup_pipeline(self) -> None:
        if self.args.weights is not None:
            use_store(self.ctx, WeightStore(self.args.weights))
        self.args.passes = expand_pipelines(self.args.passes)
        super().setup_pipeline()
        if self.args.verify_passes:
            from spu_ir.tools.verify_passes import PassVerifier

            verifier = PassVerifier(self.ctx, self.pipeline.callback)
            self.pipeline = PassPipeline(self.pipeline.passes, verifier)
        folder = os.environ.get(DUMP_VARIABLE)
        if folder:
            callback = dump_callback(Path(folder), self.pipeline.callback)
            self.pipeline = PassPipeline(self.pipeline.passes, callback)

    def prepare_output(self) -> IO[str]:
        # Kept in memory until all is well, so that an error leaves no empty or half a file.
        self.text = _Text()
        return sys.stdout if self.args.output_file is None else self.text

    def output_resulting_program(self, prog: ModuleOp) -> str:
        text = super().output_resulting_program(prog)
        folder: Path | None = self.args.weights
        if folder is not None:
            try:
                store_of(self.ctx).save(folder)
            except OSError as error:
                raise SpuError(
                    f"cannot write the weights to {str(folder)!r}: {error}",
                    remedy="choose a folder that can be written and has space",
                ) from error
        return text

    def run(self) -> None:
        super().run()
        if self.args.output_file is not None:
            from spu_ir.runtime.folders import new_file

            new_file(Path(self.args.output_file), "the output", self.text.getvalue())


class _Text(StringIO):
    """Text that can be read after xDSL has closed its output."""

    def close(self) -> None:
        pass


def expand_pipelines(passes: str) -> str:
    """
    `-p`'s text with each name of a pipeline, such as `graph`, replaced by its passes.

    A name stands alone between commas; what is in braces are a pass's own options.
    """
    names = re.split(r",(?![^{]*})", passes)
    if not any(name in PIPELINES for name in names):
        return passes
    from spu_ir.transforms.pipelines import PIPELINES as pipelines

    return ",".join(
        ",".join(str(each.spec()) for each in pipelines[name]) if name in pipelines else name
        for name in names
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `spu-opt`; the exit code is 0, or 1 after one `error:` line for what the user gave."""
    try:
        SpuOpt(args=arguments).run()
    except (
        ArgSpecParseError,
        DiagnosticException,
        MissingWeights,
        OSError,
        ParseError,
        SpuError,
        UnregisteredConstructException,
        ValueError,
    ) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
