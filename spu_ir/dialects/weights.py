"""
Weights in the IR: handles into a content-addressed store, and the sparse encoding.

`#spu.weights<"sha256:...", tensor<768x768xi8>>` names the bytes of a tensor by their SHA-256.
The bytes live in a `WeightStore` that belongs to the xDSL context, so a printed ResNet-50 is a
readable file and equal weights are kept once. Constants of up to `INLINE_ELEMENTS` elements
print inline, as `dense<...>`.

`#spu.banked<bank = 64, slots = 4, share = 1>` is the encoding of a weight's tensor type (or the
layout of its memref): in every row and every bank of 64 bytes at most `slots` elements are not
zero. It plays the part of MLIR's `#sparse_tensor.encoding`
(https://mlir.llvm.org/docs/Dialects/SparseTensorOps/).
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Any, cast

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import (
    AnyFloat,
    DenseIntOrFPElementsAttr,
    IntAttr,
    IntegerType,
    MemRefLayoutAttr,
    RankedStructure,
    StringAttr,
    TensorType,
)
from xdsl.ir import Attribute, ParametrizedAttribute
from xdsl.ir.affine import AffineMap
from xdsl.irdl import irdl_attr_definition
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException

from .types import Array, element_type, numpy_dtype, static_size

BANK_BYTES = 64
"""Bytes of one bank: the reach of the operand crossbar and one host vector register."""

INLINE_ELEMENTS = 16
"""Constants of up to this many elements print inline."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@irdl_attr_definition
class WeightsAttr(ParametrizedAttribute):
    """A handle to the bytes of a constant tensor: SHA-256 of its row-major bytes, and its type."""

    name = "spu.weights"

    digest: StringAttr
    type: TensorType[Attribute]

    def verify(self) -> None:
        if not _DIGEST.fullmatch(self.digest.data):
            raise VerifyException(
                f'digest must be "sha256:" and 64 hexadecimal digits, got "{self.digest.data}"'
            )
        if static_size(self.type.get_shape()) is None:
            raise VerifyException(f"weights need a static shape, got {self.type}")

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        with parser.in_angle_brackets():
            digest = parser.parse_str_literal()
            parser.parse_punctuation(",")
            kind = parser.parse_type()
        return [StringAttr(digest), kind]

    def print_parameters(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_string_literal(self.digest.data)
            printer.print_string(", ")
            printer.print_attribute(self.type)


@irdl_attr_definition
class BankedAttr(MemRefLayoutAttr, ParametrizedAttribute):
    """
    The banked sparse encoding of a weight whose last axes are the reduction.

    `bank` is in elements (64 of i8, 32 of bf16: 64 bytes), `slots` the non-zeros kept in each row
    and bank, 0 for a ragged (lossless) list as long as the weight needs it, and `share` how many
    lane groups of 16 rows use one index vector.
    """

    name = "spu.banked"

    bank: IntAttr
    slots: IntAttr
    share: IntAttr

    @staticmethod
    def get(bank: int, slots: int, share: int = 1) -> BankedAttr:
        return BankedAttr(IntAttr(bank), IntAttr(slots), IntAttr(share))

    def verify(self) -> None:
        bank, slots, share = self.bank.data, self.slots.data, self.share.data
        if bank not in (32, 64):
            raise VerifyException(
                f"bank must be 64 (i8) or 32 (bf16) elements, which are 64 bytes, got {bank}"
            )
        if slots and (slots > bank // 2 or slots & (slots - 1)):
            raise VerifyException(
                f"slots must be 0 (ragged) or a power of two up to {bank // 2}, got {slots}"
            )
        if share not in (1, 2, 4):
            raise VerifyException(f"share must be 1, 2 or 4 lane groups, got {share}")

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        numbers: list[Attribute] = []
        with parser.in_angle_brackets():
            for field in ("bank", "slots", "share"):
                if numbers:
                    parser.parse_punctuation(",")
                parser.parse_keyword(field)
                parser.parse_punctuation("=")
                numbers.append(IntAttr(parser.parse_integer()))
        return numbers

    def print_parameters(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_string(
                f"bank = {self.bank.data}, slots = {self.slots.data}, share = {self.share.data}"
            )

    def get_affine_map(self) -> AffineMap:
        raise VerifyException("a banked weight has no affine layout")


class MissingWeights(Exception):
    """A digest that a store does not hold."""


class WeightStore:
    """
    Bytes of constants, each kept once under its SHA-256; in memory, over an optional folder.

    The folder holds one file per constant, `<64 hex digits>.bin`, its raw row-major bytes.
    """

    def __init__(self, folder: Path | None = None):
        self._bytes: dict[str, Array] = {}
        self.folder = folder

    def __len__(self) -> int:
        return len(self._bytes)

    def __iter__(self) -> Iterator[str]:
        return iter(self._bytes)

    def put(self, array: Array) -> WeightsAttr:
        """Keep `array` (any shape, a dtype of `types`) and return its handle."""
        kind = TensorType(element_type(array.dtype), array.shape)
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        digest = "sha256:" + hashlib.sha256(flat.data).hexdigest()
        if digest not in self._bytes:
            # A caller's array may change later, and then it would no longer fit its digest.
            kept = flat.copy() if array.flags.writeable else flat
            kept.flags.writeable = False
            self._bytes[digest] = kept
        return WeightsAttr(StringAttr(digest), kind)

    def get(self, handle: WeightsAttr) -> Array:
        """
        The read-only array of a handle.

        Raises `MissingWeights` when neither memory nor the folder has it, or when the folder's
        bytes do not have this digest or length.
        """
        digest = handle.digest.data
        if digest not in self._bytes:
            self._bytes[digest] = self._read(digest)
        dtype = numpy_dtype(handle.type.get_element_type())
        shape = handle.type.get_shape()
        data = self._bytes[digest]
        if data.nbytes != prod(shape) * dtype.itemsize:
            raise MissingWeights(f"weights {digest} have {data.nbytes} bytes, not a {handle.type}")
        return data.view(dtype).reshape(shape)

    def _read(self, digest: str) -> Array:
        if self.folder is None:
            raise MissingWeights(f"weights {digest} are not in the store")
        path = self.folder / f"{digest.removeprefix('sha256:')}.bin"
        try:
            data = np.fromfile(path, dtype=np.uint8)
        except OSError as error:
            raise MissingWeights(f"weights {digest} are not in {self.folder}") from error
        if hashlib.sha256(data.data).hexdigest() != digest.removeprefix("sha256:"):
            raise MissingWeights(f"the bytes in {path} do not have the digest in their name")
        data.flags.writeable = False
        return data

    def save(self, folder: Path) -> None:
        """Write every constant in memory to `folder`; files that exist already are kept."""
        folder.mkdir(parents=True, exist_ok=True)
        for digest, data in self._bytes.items():
            path = folder / f"{digest.removeprefix('sha256:')}.bin"
            if not path.exists():
                part = path.with_suffix(f".part{os.getpid()}")
                try:
                    # tofile() would not see that the disk is full when its buffer is flushed.
                    part.write_bytes(data.data)
                    part.replace(path)
                finally:
                    part.unlink(missing_ok=True)


def store_of(ctx: Context) -> WeightStore:
    """The store that belongs to a context; made at first use."""
    found = vars(ctx).get("spu_ir_weights")
    if not isinstance(found, WeightStore):
        found = WeightStore()
        use_store(ctx, found)
    return found


def use_store(ctx: Context, store: WeightStore) -> None:
    """Make `store` the one that belongs to `ctx`."""
    vars(ctx)["spu_ir_weights"] = store


def constant_attr(store: WeightStore, array: Array) -> Attribute:
    """`array` as an attribute: inline where it is small and builtin `dense` can hold it."""
    if array.size > INLINE_ELEMENTS or array.dtype.name == "bfloat16":
        return store.put(array)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        # xDSL prints an infinity as its bits, and reads them back as a number of that size.
        return store.put(array)
    kind = TensorType(element_type(array.dtype), array.shape)
    values: list[Any] = array.reshape(-1).tolist()
    return DenseIntOrFPElementsAttr.from_list(cast("RankedStructure[Any]", kind), values)


def constant_array(store: WeightStore, value: Attribute) -> Array:
    """
    The array of a constant's attribute, `#spu.weights` or `dense`.

    Raises TypeError for any other attribute, `MissingWeights` as `WeightStore.get` does.
    """
    if isinstance(value, WeightsAttr):
        return store.get(value)
    dense = _dense(value)
    kind = constant_type(value)
    dtype = numpy_dtype(kind.get_element_type())
    return np.array(dense.get_values(), dtype=dtype).reshape(kind.get_shape())


def constant_type(value: Attribute) -> TensorType[Attribute]:
    """The tensor type of a constant's attribute. Raises TypeError as `constant_array` does."""
    if isinstance(value, WeightsAttr):
        return value.type
    return cast("TensorType[Attribute]", _dense(value).type)


def _dense(value: Attribute) -> DenseIntOrFPElementsAttr[IntegerType | AnyFloat]:
    if not isinstance(value, DenseIntOrFPElementsAttr):
        raise TypeError(f"expected #spu.weights or dense, got {value}")
    return cast("DenseIntOrFPElementsAttr[IntegerType | AnyFloat]", value)
