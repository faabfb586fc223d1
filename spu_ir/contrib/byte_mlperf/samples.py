"""The engine's samples as arrays: lists of lists, tensors and arrays, of whatever dtype."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from spu_ir.errors import SpuError
from spu_ir.runtime.program import Port

Array: TypeAlias = npt.NDArray[Any]
Feeds: TypeAlias = dict[str, Array]


class DataLoader(Protocol):
    """What is used of the engine's data sets."""

    def get_batch_count(self) -> int:
        """How many samples `get_samples` has, each a batch."""
        ...

    def get_samples(self, sample_id: int) -> Any:
        """The feeds of a batch, or a pair of feeds and labels."""
        ...

    def rebatch(self, new_bs: int, skip: bool = True) -> None:
        """Make batches of `new_bs` samples."""
        ...


def feeds_of(sample: Any) -> Mapping[str, Any]:
    """The feeds of what `get_samples` gives: alone, or before the labels."""
    return cast("Mapping[str, Any]", sample[0] if isinstance(sample, tuple | list) else sample)


def array_of(name: str, value: Any, dtype: npt.DTypeLike) -> Array:
    """
    `value`, a (nested) list, an array, or a tensor of PyTorch, as an array of `dtype`.

    Raises SpuError where it is no array of numbers, and where `dtype` cannot hold a number: for
    integers and bool, fractions and what is out of range; 64-bit floats are rounded to 32.
    """
    wanted: np.dtype[Any] = np.dtype(dtype)
    if hasattr(value, "detach"):
        tensor = value.detach().cpu()
        # numpy has no bfloat16.
        value = (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()
    try:
        array: Array = np.asarray(value)
    except ValueError as error:
        raise SpuError(
            f"the input {name!r} is no array: {error}", remedy="give rows of equal length"
        ) from error
    if array.dtype == wanted:
        return array
    if array.dtype.kind not in "biuf":
        raise SpuError(f"the input {name!r} has the dtype {array.dtype}", remedy=f"give {wanted}")
    with np.errstate(invalid="ignore", over="ignore"):
        result: Array = array.astype(wanted)
    if wanted.kind in "biu" and not np.array_equal(result, array):
        raise SpuError(
            f"the input {name!r} has {array.dtype} numbers that {wanted} cannot hold",
            remedy=f"give {wanted}",
        )
    return result


def match(feeds: Mapping[str, Any], ports: Sequence[Port]) -> Feeds:
    """
    The arrays of `ports` among `feeds`; what no port takes is left.

    Sizes are brought to the port's rank by axes of one only: data sets and models differ in
    whether a vector a sample is [batch, n] or [batch, 1, n]. Raises SpuError for an input that is
    missing, and as `array_of` does.
    """
    result: Feeds = {}
    for port in ports:
        if port.name not in feeds:
            raise SpuError(
                f"the input {port.name!r} is missing",
                remedy=f"the samples have {', '.join(map(repr, feeds)) or 'none'}",
            )
        array = array_of(port.name, feeds[port.name], port.numpy_dtype)
        result[port.name] = _of_rank(array, len(port.shape))
    return result


def _of_rank(array: Array, rank: int) -> Array:
    """`array` with axes of one dropped after the batch, or added, where that gives `rank`."""
    if array.ndim > rank:
        ones = [axis for axis in range(1, array.ndim) if array.shape[axis] == 1]
        if len(ones) >= array.ndim - rank:
            return np.squeeze(array, tuple(ones[: array.ndim - rank]))
    elif 0 < array.ndim < rank:
        ones_added = (1,) * (rank - array.ndim)
        return array.reshape(array.shape[0], *ones_added, *array.shape[1:])
    return array


def first_rows(
    loader: DataLoader, inputs: Mapping[str, npt.DTypeLike], count: int
) -> Iterator[Feeds]:
    """
    The first `count` samples of a data set, as feeds of one row of the named dtypes.

    Batches are taken as they are and cut: to make batches anew is slow for some data sets, and the
    engine's next step depends on how they are. Raises SpuError where the data set has none.
    """
    left = count
    for index in range(loader.get_batch_count()):
        given = feeds_of(loader.get_samples(index))
        missing = [name for name in inputs if name not in given]
        if missing:
            raise SpuError(
                f"the data set's samples have no {missing[0]!r}",
                remedy=f"they have {', '.join(map(repr, given))}",
            )
        columns = {name: given[name][:left] for name in inputs}
        arrays = {name: array_of(name, columns[name], dtype) for name, dtype in inputs.items()}
        for row in range(min(len(array) for array in arrays.values())):
            yield {name: array[row : row + 1] for name, array in arrays.items()}
            left -= 1
        if left <= 0:
            return
    if left == count:
        raise SpuError("the data set has no sample", remedy="look at its files")
