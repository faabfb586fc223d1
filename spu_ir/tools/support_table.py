"""Which ONNX operators compile, as a page made from the table of lowerings."""

from __future__ import annotations

from collections.abc import Iterable

from spu_ir.dialects.onnx import VERSIONS, newest
from spu_ir.transforms.expand_quantised import PRODUCTS
from spu_ir.transforms.lowering import AT_COMPILE_TIME, FAMILIES

LIMITS = {
    "Attention": "no past keys or values, softcap or windows; head sizes up to 256",
    "AveragePool": "one or two spatial axes",
    "BatchNormalization": "inference; folded into the convolution before it where there is one",
    "ConstantOfShape": "its shape must follow from the inputs' shapes",
    "Conv": "one or two spatial axes of known size, constant weight",
    "ConvInteger": "as Conv",
    "ConvTranspose": "as Conv; no output_shape or auto_pad",
    "DequantizeLinear": "per tensor or per axis, 8-bit or int32",
    "Dropout": "inference, without its mask",
    "Expand": "its shape must follow from the inputs' shapes",
    "CumSum": "axis must be constant",
    "Gather": "an index outside its operand fails the run",
    "GatherElements": "as Gather",
    "GatherND": "as Gather",
    "InstanceNormalization": "the image's size must be known",
    "GroupNormalization": "the image's size must be known",
    "MatMulInteger": "see the forms of quantised models",
    "MaxPool": "one or two spatial axes, without Indices",
    "Mod": "integers",
    "Pad": "pads must be constant; reflect, edge and wrap need a known extent",
    "QLinearConv": "as Conv",
    "QuantizeLinear": "per tensor or per axis, to 8 bits",
    "Range": "integers; its ends must follow from the inputs' shapes, delta is constant",
    "Reshape": "its shape must follow from the inputs' shapes",
    "Resize": "nearest and linear, known extents, no antialiasing",
    "Slice": "its bounds must follow from the inputs' shapes; steps are constant",
    "Split": "sizes must be constant",
    "Tile": "repeats must follow from the inputs' shapes",
    "Trilu": "its diagonal must be constant",
}
"""What an operator's lowering does not take; reductions share one remark below."""

HEAD = """# ONNX support

Made by `python -m spu_ir.tools.reference docs` from the code; do not edit.

Every operator of ONNX's default domain, at every version, can be imported and printed by
`spu-opt`, and is raised to its newest version. Those below also compile. Where an operator takes
constants only, what constant folding makes constant is enough. Another operator is an error that
names the node.

Activations are `float32`, `int32`, `int64`, `int8`, `uint8` or `bool`; computations inside a model
that are in `float16`, `bfloat16` or `float64` run in `float32`, inputs and outputs of these types
are an error. Reductions, products and normalisations are of floats.
"""

QUANTISED = """## Forms of quantised models

- **QDQ**: `QuantizeLinear` and `DequantizeLinear` around float operators, as ONNX Runtime's
  static quantisation and most exporters write it. A weight is a constant `int8` or `uint8` under
  `DequantizeLinear`, with one scale or one an output channel; a bias is `int32` under one. A
  weight whose values less their zero point do not fit `int8` runs in float.
- **QOperator**: the same model with `QLinearConv` and `QLinearMatMul`.
- **Dynamic**: `DynamicQuantizeLinear`, then `MatMulInteger` or `ConvInteger`, then `Cast` and
  `Mul` by the scales.

All three become QDQ form (`expand-quantised`), and integer products of that (`fold-qdq`).
"""

EXPORTS = """## Models that PyTorch exports

`torch.onnx.export` writes the same network in many ways. BERT, ALBERT and RoBERTa for question
answering from transformers 5 are compiled and compared with ONNX Runtime by `make test-export`:
with `dynamo=True` and `dynamo=False`, the attention implementations `sdpa` and `eager`, opsets 14
to 20, with inputs for mask and token types or without, batch and sequence as run-time extents.
Every layer becomes one `spu.attention` and six products with everything else in their epilogues,
as in the models of `spu_ir.zoo`.

Indices and masks that follow from the extents alone cost nothing at run time: buffers of positions
that are sliced or gathered are slices of the table, comparisons that the bounds of the extents
prove are left out, and a mask that differs along the keys only is one `[batch, 1, 1, seq]` tensor.
For this the bounds must be right: a table of 512 positions needs `seq` bounded by 512.

So are transformers' ResNet-50, which becomes 53 convolutions with normalisations, activations and
residual sums inside and one transpose, of the image; and Conformers, the zoo's with
`nn.MultiheadAttention` (batch or sequence first) and transformers' Wav2Vec2-Conformer. The packed
projections of Q, K and V and the halves of gated linear units are products of their own, pointwise
convolutions of a line are products, depthwise ones have an instruction; transposes between a layer
and its residual cancel. Rotary positions are a few element-wise ops before `spu.attention`;
relative ones a product whose scores are its mask. Not fused: `nn.MultiheadAttention` with
`need_weights=True`, which computes on batch and heads as one axis. Not compiled: encoders that
compute sines at run time, as transformers' Parakeet does for each sample of a batch.
"""


def _rows(names: Iterable[str]) -> list[str]:
    rows = ["| operator | newest version | limits |", "| --- | --- | --- |"]
    rows += [
        f"| {name} | {newest(name).since_version} | {LIMITS.get(name, '')} |".replace("|  |", "| |")
        for name in sorted(names)
    ]
    return [*rows, ""]


def page() -> str:
    """The whole of docs/onnx-support.md."""
    lines = [HEAD]
    families = {name: set(table) for name, table in FAMILIES.items()}
    families["Quantisation"] |= PRODUCTS.keys()
    families["Shape arithmetic, at compile time"] = set(AT_COMPILE_TIME) | {"Constant"}
    for family, names in families.items():
        lines += [f"## {family}", "", *_rows(names)]
    count = len(set[str]().union(*families.values()))
    lines += [f"{count} of the {len(VERSIONS)} operators of the default domain.", ""]
    lines += [QUANTISED, EXPORTS]
    return "\n".join(lines).rstrip() + "\n"
