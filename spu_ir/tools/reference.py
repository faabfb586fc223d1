"""
The pages of docs/ that are made from the code: passes, dialects and ONNX operators.

    python -m spu_ir.tools.reference docs
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from xdsl.dialects.utils import EnumAttribute
from xdsl.ir import Attribute, Operation
from xdsl.irdl import (
    AttrConstraint,
    IRDLOperation,
    OpDef,
    OptionalDef,
    PropertyDef,
    RangeConstraint,
    RangeLengthConstraint,
    RangeOf,
    VariadicDef,
)
from xdsl.passes import ModulePass

from spu_ir.dialects.onnx import VERSIONS
from spu_ir.tools import support_table, verify_passes
from spu_ir.transforms.pipelines import PIPELINES
from spu_ir.universe import DIALECTS, PASSES, SPU_UNIVERSE, load_pass

MADE = "Made by `python -m spu_ir.tools.reference docs` from the code; do not edit."

KINDS = {
    "Attribute": "any attribute",
    "DenseArrayBase": "array",
    "FloatAttr": "float",
    "IndexType": "index",
    "IntegerAttr": "integer",
    "MemRefType": "memref",
    "TensorType": "tensor",
}
"""Words for the classes that constrain operands, results and attributes."""


def _doc(thing: object) -> str:
    """A class's or module's own docstring, not one that it inherits."""
    return inspect.cleandoc(getattr(thing, "__doc__", None) or "").strip()


def _first(text: str) -> str:
    return " ".join(text.partition("\n\n")[0].split())


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [_row(*row) for row in rows]
    return [_row(*head), _row(*("---" for _ in head)), *lines, ""] if lines else []


# ---- passes


def _options(made: type[ModulePass]) -> list[str]:
    rows: list[tuple[str, str, str]] = []
    for field in dataclasses.fields(made):
        needed = field.default is dataclasses.MISSING
        kind = field.type if isinstance(field.type, str) else field.type.__name__
        rows.append(
            (f"`{field.name}`", f"`{kind}`", "required" if needed else f"`{field.default}`")
        )
    return _table(("option", "type", "default"), rows)


def passes_page() -> str:
    """The whole of docs/passes.md."""
    lines = ["# Passes", "", MADE, ""]
    lines += [
        "In the order of a compilation. `spu-opt -p 'name{option=value},other'` runs them one by",
        "one, and xDSL's own (`canonicalize`, `cse`, `dce`) between them.",
        "",
    ]
    for name in PASSES:
        made = load_pass(name)
        lines += [f"## {name}", "", _first(_doc(made)), ""]
        lines += [f"Preserves: `{getattr(made, 'preserves', 'exact')}`.", ""]
        lines += _options(made)
    lines += ["## Pipelines", "", "`spu-opt -p graph,lower` runs the passes of both.", ""]
    pipelines = (
        (f"`{name}`", ", ".join(f"`{each.spec()}`" for each in passes))
        for name, passes in PIPELINES.items()
    )
    lines += _table(("pipeline", "passes"), pipelines)
    lines += ["## Verification", "", _doc(verify_passes)]
    return "\n".join(lines).rstrip() + "\n"


# ---- dialects


def _kind(constraint: AttrConstraint[Any]) -> str:
    """What a constraint allows, in words."""
    bases = constraint.get_bases()
    if bases is None:
        return "any attribute"
    names = (KINDS.get(base.__name__, f"`#{base.name}`") for base in bases)
    return " or ".join(sorted(set(names), reverse=True))


def _ports(definition: OpDef) -> list[str]:
    rows: list[tuple[str, str, str, str]] = []
    for role, ports in (("operand", definition.operands), ("result", definition.results)):
        for name, port in ports:
            kind = _port_kind(port.constr)
            if isinstance(port, OptionalDef):
                kind += ", optional"
            elif isinstance(port, VariadicDef):
                kind += ", any number"
            rows.append((role, f"`{name}`", kind, ""))
    for name, attribute in (definition.properties | definition.attributes).items():
        if name.endswith("SegmentSizes"):
            continue
        default = attribute.default_value if isinstance(attribute, PropertyDef) else None
        optional = ", optional" if isinstance(attribute, OptionalDef) else ""
        shown = f"`{default}`" if default is not None else ""
        rows.append(("attribute", f"`{name}`", _kind(attribute.constr) + optional, shown))
    return [line.replace("|  |", "| |") for line in _table(("", "name", "kind", "default"), rows)]


def _port_kind(constraint: RangeConstraint[Any]) -> str:
    """What each value of an operand or result may be; xDSL wraps a single one in its length."""
    while isinstance(constraint, RangeLengthConstraint):
        constraint = constraint.constraint
    return _kind(constraint.constr) if isinstance(constraint, RangeOf) else "any type"


def _op(made: type[Operation]) -> list[str]:
    lines = [f"### {made.name}", "", _doc(made), ""]
    for base in made.__mro__[1:]:
        # What several ops of a dialect share is said once in the code, and with each of them here.
        if base.__module__ == made.__module__ and _doc(base) and base is not Operation:
            lines += [_doc(base), ""]
    if issubclass(made, IRDLOperation):
        lines += _ports(made.get_irdl_definition())
    return lines


def _attribute(made: type[Attribute]) -> list[str]:
    lines = [f"### #{made.name}", ""]
    if issubclass(made, EnumAttribute):
        cases = ", ".join(f"`{case}`" for case in made.enum_type)
        lines += [_doc(made.enum_type), "", f"One of {cases}.", ""]
    else:
        lines += [_doc(made), ""]
    return lines


def dialects_page() -> str:
    """The whole of docs/dialects.md."""
    lines = ["# Dialects", "", MADE, ""]
    for name, path in DIALECTS.items():
        dialect = SPU_UNIVERSE.all_dialects[name]()
        module = sys.modules[path.partition(":")[0]]
        lines += [f"## {name}", "", _doc(module), ""]
        if name == "onnx":
            count = sum(len(versions) for versions in VERSIONS.values())
            lines += [
                f"{count} ops, for {len(VERSIONS)} operators: `onnx.<Operator>` is the newest",
                "version, `onnx.<Operator>V<opset>` an older one. What they compute is in",
                "[ONNX's own reference](https://onnx.ai/onnx/operators/), which of them compile in",
                "[onnx-support.md](onnx-support.md).",
                "",
            ]
            continue
        for made in sorted(dialect.operations, key=lambda each: each.name):
            lines += _op(made)
        for attribute in sorted(dialect.attributes, key=lambda each: each.name):
            lines += _attribute(attribute)
    return "\n".join(lines).rstrip() + "\n"


PAGES: dict[str, Callable[[], str]] = {
    "dialects.md": dialects_page,
    "onnx-support.md": support_table.page,
    "passes.md": passes_page,
}
"""The pages by the name of their file in docs/."""


def main(arguments: Sequence[str]) -> None:
    """Write every page to the folder that is given."""
    (folder,) = arguments
    for name, page in PAGES.items():
        (Path(folder) / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
