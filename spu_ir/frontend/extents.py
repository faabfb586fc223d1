"""
Extents: the dims of a model's inputs that stay run-time values, and what the user says of them.

`shapes` maps an extent's name (ONNX's `dim_param`) to an int, which fixes it, or to a bound
(min, max); or an input's name to a list of dims, each an int, an extent's name or a bound. Every
extent that stays needs a bound. Names are reduced to letters, digits and underscores, because
they are printed and parsed again; a dim without a name is called `<input>_dim<axis>`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from onnx import ValueInfoProto

from spu_ir.errors import SpuError

Dim: TypeAlias = int | str | tuple[int, int]
Shapes: TypeAlias = Mapping[str, int | tuple[int, int] | Sequence[Dim]]
"""What a user says of a model's shapes."""

Dims: TypeAlias = tuple[int | str, ...]
"""The dims of a value: a number, or the name of an extent (an empty name for an unknown one)."""

MAX_EXTENT = (1 << 31) - 1


def clean_name(name: str) -> str:
    """`name` in letters, digits and underscores, not starting with a digit."""
    cleaned = re.sub(r"[^A-Za-z0-9_]", "_", name) or "_"
    return "_" + cleaned if cleaned[0].isdigit() else cleaned


def parse_shapes(text: str) -> dict[str, int | tuple[int, int] | list[Dim]]:
    """
    Parse `batch=1:64,seq=128,image=[1,3,h,1:224]` as command lines spell shapes.

    Raises SpuError for anything else.
    """
    result: dict[str, int | tuple[int, int] | list[Dim]] = {}
    for item in re.split(r",(?![^\[]*\])", text):
        name, equals, value = (part.strip() for part in item.partition("="))
        if not item.strip():
            continue
        if not name or not equals:
            raise SpuError(f"shapes: {item!r} is not name=value", remedy="as in batch=1:64")
        if value.startswith("[") and value.endswith("]"):
            inner = [part.strip() for part in value[1:-1].split(",") if part.strip()]
            result[name] = [_parse_dim(part, named=True) for part in inner]
        else:
            dim = _parse_dim(value, named=False)
            assert not isinstance(dim, str)
            result[name] = dim
    return result


def _parse_dim(text: str, *, named: bool) -> Dim:
    if re.fullmatch(r"\d+", text):
        return int(text)
    if match := re.fullmatch(r"(\d+):(\d+)", text):
        return int(match[1]), int(match[2])
    if named:
        return text
    raise SpuError(
        f"shapes: {text!r} is neither a number nor a bound",
        remedy="write 8 for a fixed extent or 1:64 for any value from 1 to 64",
    )


class Extents:
    """The extents of one model, collected while the dims of its inputs are resolved."""

    def __init__(self, shapes: Shapes | None):
        self.bounds: dict[str, tuple[int, int]] = {}
        """Extents that stay, in order of appearance: name -> (min, max)."""
        self._shapes = dict(shapes or {})
        self._used: set[str] = set()
        self._names: dict[str, str] = {}
        self._fixed: dict[str, int] = {}

    def resolve(self, value: ValueInfoProto) -> Dims:
        """The dims of an input, and its extents collected. Raises SpuError naming both."""
        said = self._shapes.get(value.name)
        if isinstance(said, Sequence) and not _is_bound(said):
            self._used.add(value.name)
            return self._resolve_said(value, said)
        if not value.type.tensor_type.HasField("shape"):
            raise SpuError(
                f"input {value.name!r} has no shape",
                remedy=f"give it as shapes={{{value.name!r}: [...]}}",
            )
        return tuple(
            dim.dim_value
            if dim.HasField("dim_value") and dim.dim_value >= 0
            else self._named(value.name, axis, dim.dim_param)
            for axis, dim in enumerate(value.type.tensor_type.shape.dim)
        )

    def _resolve_said(self, value: ValueInfoProto, said: Sequence[Dim]) -> Dims:
        shape = value.type.tensor_type.shape
        if value.type.tensor_type.HasField("shape") and len(shape.dim) != len(said):
            raise SpuError(
                f"shapes gives input {value.name!r} {len(said)} dims, it has {len(shape.dim)}"
            )
        dims: list[int | str] = []
        for axis, dim in enumerate(said):
            param = shape.dim[axis].dim_param if axis < len(shape.dim) else ""
            if isinstance(dim, int):
                if dim < 0:
                    raise SpuError(f"shapes gives input {value.name!r} the dim {dim}")
                dims.append(dim)
            elif isinstance(dim, str):
                dims.append(self._named(value.name, axis, dim))
            else:
                name = self._clean(param or f"{clean_name(value.name)}_dim{axis}")
                self._bind(name, dim)
                dims.append(name)
        return tuple(dims)

    def _named(self, source: str, axis: int, param: str) -> int | str:
        name = self._clean(param or f"{clean_name(source)}_dim{axis}")
        key = param if param in self._shapes else name
        said = self._shapes.get(key)
        if said is None:
            if name in self.bounds:
                return name
            shown = repr(param or name)
            raise SpuError(
                f"input {source!r} has the run-time extent {shown} without a bound",
                remedy=f"give one as shapes={{{shown}: (1, 64)}}, or fix it with a number",
            )
        self._used.add(key)
        if isinstance(said, int):
            if not 0 < said <= MAX_EXTENT:
                raise SpuError(f"shapes fixes the extent {key!r} to {said}, it must be positive")
            self._fixed[param or name] = said
            return said
        if not _is_bound(said):
            raise SpuError(f"shapes gives the extent {key!r} the value {said!r}, not (min, max)")
        self._bind(name, said)
        return name

    def _bind(self, name: str, bound: Sequence[Dim]) -> None:
        low, high = bound
        if not (isinstance(low, int) and isinstance(high, int) and 0 < low <= high <= MAX_EXTENT):
            raise SpuError(
                f"the extent {name!r} has the bound {low!r} to {high!r}",
                remedy=f"give whole numbers with 1 <= min <= max <= {MAX_EXTENT}",
            )
        if self.bounds.setdefault(name, (low, high)) != (low, high):
            raise SpuError(f"the extent {name!r} has two bounds", remedy="give it only one")

    def _clean(self, param: str) -> str:
        """A clean name of its own for every name in the file."""
        if param not in self._names:
            cleaned = name = clean_name(param)
            count = 1
            while name in self._names.values():
                count += 1
                name = f"{cleaned}_{count}"
            self._names[param] = name
        return self._names[param]

    def known(self, param: str) -> str:
        """The clean name of an extent that an input has; empty for any other name."""
        name = self._names.get(param, "")
        return name if name in self.bounds else ""

    def check_used(self, inputs: Iterable[str]) -> None:
        """Raise SpuError when the user named something that the model does not have."""
        for name in self._shapes:
            if name not in self._used:
                extents = ", ".join(sorted(self._names)) or "none"
                raise SpuError(
                    f"shapes names {name!r}, which is no extent or input of the model",
                    remedy=f"extents: {extents}; inputs: {', '.join(inputs)}",
                )


def _is_bound(said: Sequence[Dim]) -> bool:
    return isinstance(said, tuple) and len(said) == 2 and all(isinstance(d, int) for d in said)
