"""`spu-opt --verify-passes`: the passes keep their promises, and a planted wrong one is named."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from support.nets import Net
from xdsl.context import Context
from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, IntegerAttr, ModuleOp, StringAttr, i64
from xdsl.parser import Parser
from xdsl.passes import ModulePass, PassPipeline
from xdsl.transforms.canonicalize import CanonicalizePass
from xdsl.universe import Universe

from spu_ir.api import new_context
from spu_ir.dialects.spu import EpilogueOp
from spu_ir.dialects.types import DYNAMIC
from spu_ir.dialects.vpu import BinaryFn, BinaryFnAttr, BinaryOp, UnaryFn, UnaryFnAttr, UnaryOp
from spu_ir.dialects.weights import constant_array, constant_attr, store_of
from spu_ir.errors import SpuError
from spu_ir.frontend import import_model, parse_shapes
from spu_ir.interpreters import main_of
from spu_ir.tools import spu_opt
from spu_ir.tools.spu_opt import SpuOpt
from spu_ir.tools.verify_passes import PassVerifier, difference, generate, promise_of
from spu_ir.transforms.calibrate import calibrate
from spu_ir.transforms.convert_bf16 import ConvertBf16Pass
from spu_ir.transforms.fuse_epilogue import FuseEpiloguePass
from spu_ir.transforms.pipelines import GRAPH, LOWER, MEMORY, Precision, quantise, sparsify
from spu_ir.transforms.quantise import QuantisePass
from spu_ir.transforms.sparsify import SparsifyPass
from spu_ir.universe import SPU_UNIVERSE
from spu_ir.zoo.bert_model import BertConfig, bert, random_weights


def network() -> Net:
    """Two products with a GELU between them, on a run-time batch of 1 to 64."""
    random = np.random.default_rng(1)
    net = Net((DYNAMIC, 128))
    x = net.matmul(net.inputs[0], weight(random, 64, 128), "first")
    x = net.binary(BinaryFn.ADD, x, weight(random, 64))
    x = net.unary(UnaryFn.GELU, x)
    module = net.finish(net.matmul(x, weight(random, 20, 64), "second"))
    bound_batch(module, 64)
    return net


def bound_batch(module: ModuleOp, most: int) -> None:
    bound = ArrayAttr([IntegerAttr(1, i64), IntegerAttr(most, i64)])
    main_of(module).attributes["spu.extents"] = DictionaryAttr({"batch": bound})


def weight(random: np.random.Generator, *shape: int) -> np.ndarray:
    return (random.standard_normal(shape) / 8).astype(np.float32)


def verify(net: Net, *passes: ModulePass) -> None:
    def then(_: ModulePass | None, module: ModuleOp, __: ModulePass | None) -> None:
        module.verify()

    PassPipeline(passes, PassVerifier(net.ctx, then)).apply(net.ctx, net.module)


# ---- the passes of the project


@pytest.mark.parametrize(
    "passes",
    [
        "fuse-epilogue,bufferise,plan-memory,tile",
        'fuse-epilogue,sparsify{ratio=4 precision="bf16"},convert-bf16,encode,canonicalize,cse,'
        "bufferise,plan-memory,tile",
        "fuse-epilogue,sparsify{ratio=8},quantise,fold-qdq,prescale-outputs,encode,canonicalize,cse,dce,bufferise,"
        "plan-memory,tile",
    ],
    ids=["f32", "bf16", "int8"],
)
def test_every_pass_of_a_pipeline_keeps_its_promise(passes: str) -> None:
    net = network()
    known = Universe.get_multiverse().all_passes | SPU_UNIVERSE.all_passes
    verifier = PassVerifier(net.ctx)
    PassPipeline.parse_spec(known, passes, verifier).apply(net.ctx, net.module)
    assert verifier.expected["y0"].shape[1:] == (20,)


def images() -> Net:
    """Convolutions with a halo, a residual, groups, a dilation and a stride, and a pool."""
    random = np.random.default_rng(2)
    net = Net((DYNAMIC, 12, 12, 16))
    x = net.conv(net.inputs[0], weight(random, 32, 3, 3, 16), "first", pad=1)
    x = net.unary(UnaryFn.RELU, x)
    y = net.conv(x, weight(random, 32, 3, 3, 16), "grouped", pad=1, groups=2)
    y = net.unary(UnaryFn.RELU, net.binary(BinaryFn.ADD, y, x))
    y = net.conv(y, weight(random, 48, 3, 3, 32), "dilated", pad=2, dilation=2, stride=2)
    y = net.mean(net.max_pool(y, 3, 2, 1), [1, 2])
    bound_batch(net.finish(net.matmul(y, weight(random, 10, 48), "last")), 8)
    calibrate(net.module, net.ctx, [generate(net.module, seed) for seed in range(3)])
    return net


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_the_whole_compilation_of_a_cnn_keeps_its_promises(precision: Precision) -> None:
    net = images()
    ratio = None if precision == "fp32" else 4
    tensors = (FuseEpiloguePass(), *sparsify(ratio, precision), *quantise(precision))
    verify(net, *tensors, *MEMORY)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_the_whole_compilation_of_a_transformer_keeps_its_promises(precision: Precision) -> None:
    config = BertConfig(
        vocab_size=50,
        hidden_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=80,
        max_position_embeddings=32,
    )
    ctx = new_context()
    model = bert(config, random_weights(config, 0))
    module = import_model(model, ctx, shapes=parse_shapes("batch=1:4,seq=1:32"))
    ratio = None if precision == "fp32" else 4
    tensors = (*GRAPH, *LOWER, *sparsify(ratio, precision), *quantise(precision))
    verifier = PassVerifier(ctx)
    PassPipeline((*tensors, *MEMORY), verifier).apply(ctx, module)
    assert set(verifier.feeds["input_ids"].flat) <= set(range(50))


# ---- planted rewrites


@dataclass(frozen=True)
class SubtractPass(ModulePass):
    """Wrong: a sum becomes a difference."""

    name = "subtract"
    preserves: ClassVar[str] = "exact"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for each in op.walk():
            if isinstance(each, BinaryOp):
                each.properties["fn"] = BinaryFnAttr(BinaryFn.SUB)


@dataclass(frozen=True)
class ApproximatePass(ModulePass):
    """Another GELU, some 1e-4 away."""

    name = "approximate"
    preserves: ClassVar[str] = "tolerance(1e-5)"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for each in op.walk():
            if isinstance(each, UnaryOp):
                each.properties["fn"] = UnaryFnAttr(UnaryFn.GELU_TANH)


@dataclass(frozen=True)
class LoosePass(ApproximatePass):
    """The same, which says so."""

    name = "loose"
    preserves: ClassVar[str] = "tolerance(0.01)"


@dataclass(frozen=True)
class PruneTooMuchPass(SparsifyPass):
    """Wrong: prunes twice as much as its reference."""

    name = "prune-too-much"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        SparsifyPass(self.ratio * 2).apply(ctx, op)


@dataclass(frozen=True)
class WrongGridPass(QuantisePass):
    """Wrong: the weights' scales go to the wrong rows."""

    name = "wrong-grid"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        QuantisePass(self.mode).apply(ctx, op)
        for each in op.walk():
            if isinstance(each, EpilogueOp):
                scale = each.weight.owner.operands[1].owner
                right = constant_array(store_of(ctx), scale.properties["value"])
                wrong = constant_attr(store_of(ctx), right[::-1].copy())
                scale.properties["value"] = wrong


@dataclass(frozen=True)
class ForgetfulPass(ConvertBf16Pass):
    """Wrong: nothing is rounded at all."""

    name = "forgetful"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        return None


@pytest.mark.parametrize(
    ("planted", "promise"),
    [
        (SubtractPass(), "exact"),
        (ApproximatePass(), r"tolerance\(1e-05\)"),
        (PruneTooMuchPass(4), r"lossy\(1e-05\)"),
        (WrongGridPass(), r"lossy\(1e-05\)"),
        (ForgetfulPass(), r"lossy\(0.001\)"),
    ],
    ids=lambda value: value.name if isinstance(value, ModulePass) else "",
)
def test_a_wrong_rewrite_is_named_with_its_place(planted: ModulePass, promise: str) -> None:
    message = (
        rf"pass '{planted.name}' promises {promise}, but output 'y0' is not .*"
        r"at \[\d+, \d+\] expected -?\d.*, got -?\d"
    )
    with pytest.raises(SpuError, match=message):
        verify(network(), CanonicalizePass(), planted)


def test_what_a_pass_yields_is_the_baseline_of_the_next() -> None:
    verify(network(), LoosePass(), SparsifyPass(4), QuantisePass())


@dataclass(frozen=True)
class SilentPass(ModulePass):
    """Declares nothing."""

    name = "silent"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        return None


@dataclass(frozen=True)
class SomehowLossyPass(SilentPass):
    """Has no reference."""

    name = "somehow"
    preserves: ClassVar[str] = "lossy"


@dataclass(frozen=True)
class VaguePass(SilentPass):
    """A tolerance of how much?"""

    name = "vague"
    preserves: ClassVar[str] = "tolerance"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (SilentPass(), "pass 'silent' declares preserves = None"),
        (VaguePass(), "pass 'vague' declares preserves = 'tolerance'"),
        (SomehowLossyPass(), "pass 'somehow' is lossy; give it a method `reference`"),
    ],
)
def test_a_pass_must_promise_something(given: ModulePass, message: str) -> None:
    with pytest.raises(SpuError, match=message):
        promise_of(given)


@pytest.mark.parametrize("name", SPU_UNIVERSE.all_passes)
def test_every_pass_of_the_project_promises_something(name: str) -> None:
    kind = SPU_UNIVERSE.all_passes[name]()
    required = [f.name for f in fields(kind) if f.default is MISSING]
    promise = promise_of(kind(**dict.fromkeys(required, "")))
    assert promise.tolerance < 0.1


@dataclass(frozen=True)
class RenamePass(SilentPass):
    """Wrong: the output gets another name."""

    name = "rename"
    preserves: ClassVar[str] = "exact"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        names = DictionaryAttr({"onnx.name": StringAttr("other")})
        main_of(op).properties["res_attrs"] = ArrayAttr([names])


@dataclass(frozen=True)
class BreakPass(SilentPass):
    """Wrong: nothing is left to run."""

    name = "break"
    preserves: ClassVar[str] = "exact"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for each in op.walk():
            if isinstance(each, BinaryOp):
                each.properties["fn"] = BinaryFnAttr(BinaryFn.AND)


def test_a_lost_output_and_a_module_that_cannot_run_are_named() -> None:
    with pytest.raises(
        SpuError, match=r"pass 'rename' changes the outputs \['y0'\] to \['other'\]"
    ):
        verify(network(), RenamePass())
    net = network()
    with pytest.raises(SpuError, match="the module after pass 'break' cannot be executed"):
        PassPipeline((BreakPass(),), PassVerifier(net.ctx)).apply(net.ctx, net.module)


# ---- comparison and inputs


def test_exact_means_every_bit() -> None:
    a = np.array([[1.0, -0.0], [np.nan, np.inf]], np.float32)
    assert difference(a, a.copy(), 0) is None
    b = a.copy()
    b[0, 1] = 0.0
    found = difference(a, b, 0)
    assert found is not None
    assert (found.at, found.note) == ((0, 1), "1 of 4 differ")
    big = np.array([2**60], np.int64)
    assert difference(big, big + 1, 0) is not None
    assert difference(a, a.astype(np.float64), 0) is not None


def test_a_tolerance_bounds_the_norm_and_the_largest_element() -> None:
    a = np.full(1000, 10.0, np.float32)
    b = a.copy()
    b[7] += 0.01  # 1e-3 of the largest element, 3e-5 of the norm
    assert difference(a, b, 1.1e-3) is None
    found = difference(a, b, 1e-4)
    assert found is not None
    assert found.at == (7,)
    c = a + np.float32(1e-3)  # every element 1e-4 away
    assert difference(a, c, 1.1e-4) is None
    assert difference(a, c, 0.9e-4) is not None
    d = a.copy()
    d[3] = np.nan
    assert difference(a, d, 0.5) is not None


INPUTS = """
func.func @main(
    %ids: tensor<?x?xi64> {onnx.name = "ids", onnx.dim_params = "0:batch,1:seq"},
    %mask: tensor<?x?xi64> {onnx.name = "mask", onnx.dim_params = "0:batch,1:seq"},
    %x: tensor<4xf32> {onnx.name = "x"}, %q: tensor<64xui8> {onnx.name = "q"})
    -> (tensor<?x?x2xf32> {onnx.name = "y"})
    attributes {spu.extents = {batch = [2 : i64, 3 : i64], seq = [9 : i64, 512 : i64]}} {
  %table = "test.op"() : () -> tensor<5x2xf32>
  %init, %narrow = "test.op"() : () -> (tensor<?x?x2xf32>, tensor<?x?xi32>)
  %i = vpu.cast %ids into %narrow : tensor<?x?xi64>, tensor<?x?xi32> -> tensor<?x?xi32>
  %y = vpu.gather %table, %i into %init {axis = 0 : i64}
      : tensor<5x2xf32>, tensor<?x?xi32>, tensor<?x?x2xf32> -> tensor<?x?x2xf32>
  func.return %y : tensor<?x?x2xf32>
}
"""


def test_inputs_lie_within_bounds_tables_and_masks() -> None:
    ctx = Context()
    for name, load in (Universe.get_multiverse().all_dialects | SPU_UNIVERSE.all_dialects).items():
        ctx.register_dialect(name, load)
    module = Parser(ctx, INPUTS).parse_module()
    drawn = [generate(module, seed) for seed in range(20)]
    shapes = {feeds["ids"].shape for feeds in drawn}
    assert shapes == {(2, 9), (3, 9)}
    assert all(feeds["mask"].shape == feeds["ids"].shape for feeds in drawn)
    assert {int(v) for feeds in drawn for v in feeds["ids"].flat} == {0, 1, 2, 3, 4}
    assert {int(v) for feeds in drawn for v in feeds["mask"].flat} == {0, 1}
    assert max(int(feeds["q"].max()) for feeds in drawn) > 200
    again = generate(module, 0)
    assert all((again[name] == drawn[0][name]).all() for name in again)


# ---- the command line


class PlantedOpt(SpuOpt):
    """spu-opt with the wrong passes of this file."""

    def register_all_passes(self) -> None:
        super().register_all_passes()
        for planted in (SubtractPass, ApproximatePass, PruneTooMuchPass):
            self.register_pass(planted.name, lambda planted=planted: planted)


@pytest.mark.parametrize("planted", ["subtract", "approximate", "prune-too-much{ratio=4}"])
def test_the_command_exits_with_1_and_names_the_pass(
    planted: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    net = network()
    store_of(net.ctx).save(tmp_path / "weights")
    source = tmp_path / "net.mlir"
    source.write_text(str(net.module))
    monkeypatch.setattr(spu_opt, "SpuOpt", PlantedOpt)
    arguments = [str(source), "--verify-passes", "--weights", str(tmp_path / "weights"), "-p"]
    assert spu_opt.main([*arguments, "canonicalize,cse"]) == 0
    capsys.readouterr()
    assert spu_opt.main([*arguments, f"canonicalize,{planted},cse"]) == 1
    name = planted.partition("{")[0]
    assert capsys.readouterr().err.startswith(f"error: pass '{name}' promises ")
