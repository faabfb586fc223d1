"""Which weights of a PyTorch model are pruned, and how the compiler reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, cast

from torch import nn
from torch.nn.utils.parametrize import ParametrizationList

from spu_ir.errors import SpuError
from spu_ir.packing.prune import RATIOS

from .banks import BankedRows, conv_rows, linear_rows

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)
ATTENTION_WEIGHTS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
"""Of nn.MultiheadAttention, products without a module of their own."""


@dataclass(frozen=True)
class TrainedLayer:
    """One weight of a model that is a product's or a convolution's."""

    name: str
    """The module's name, with the parameter's where that is not `weight`."""
    module: nn.Module
    parameter: str
    rows: BankedRows

    @property
    def op(self) -> str:
        """The module's class, as PyTorch names it."""
        mro = type(self.module).__mro__
        return next(c.__name__ for c in mro if c.__module__.startswith("torch.nn.modules"))

    @property
    def weight(self) -> nn.Parameter:
        """The parameter itself, whether or not it is masked."""
        inner = getattr(self.module, "parametrizations", {})
        if self.parameter in inner:
            return inner[self.parameter].original
        return getattr(self.module, self.parameter)


def modules_of(model: nn.Module, *, again: bool = False) -> list[tuple[str, nn.Module]]:
    """Every module of a model with its name; with `again` once for each of its places."""
    return list(cast("Any", model).named_modules(remove_duplicate=not again))


def layers_of(model: nn.Module) -> list[TrainedLayer]:
    """The weights of linear layers, attention and convolutions, in the order of the modules."""
    return [
        TrainedLayer(name, module, parameter, rows)
        for path, module in modules_of(model)
        for name, parameter, rows in _weights_of(path, module)
    ]


def _weights_of(path: str, module: nn.Module) -> Iterator[tuple[str, str, BankedRows]]:
    if isinstance(module, nn.Linear):
        yield path, "weight", linear_rows(tuple(module.weight.shape))
    elif isinstance(module, nn.MultiheadAttention):
        for parameter in ATTENTION_WEIGHTS:
            weight = getattr(module, parameter)
            if weight is not None:
                name = f"{path}.{parameter}" if path else parameter
                yield name, parameter, linear_rows(tuple(weight.shape))
    elif isinstance(module, CONVOLUTIONS):
        rows = conv_rows(
            tuple(module.weight.shape),
            groups=module.groups,
            dilation=module.dilation[-1],
            transpose=isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d),
        )
        yield path, "weight", rows


def strangers(model: nn.Module, layers: Sequence[TrainedLayer]) -> dict[int, str]:
    """
    The parameters, by id, that something else than `layers` uses too, as tied embeddings are,
    and the name of that.
    """
    known = {(id(layer.module), layer.parameter) for layer in layers}
    return {
        id(parameter): f"{path}.{name}"
        for path, module in modules_of(model)
        if not isinstance(module, ParametrizationList)
        for name, parameter in module.named_parameters(recurse=False)
        if (id(module), name) not in known
    }


def ratios_of(
    layers: Sequence[TrainedLayer], ratio: int | Mapping[str, int], keep: Sequence[str]
) -> list[int]:
    """
    The ratio of every layer: that of the first glob that matches its name, 1 if it is to be
    kept or nothing matches.

    Raises SpuError for a ratio that the format does not have, and a glob that matches nothing.
    """
    by_glob = ratio if isinstance(ratio, Mapping) else {"*": ratio}
    for one in by_glob.values():
        if one not in RATIOS:
            raise SpuError(
                f"ratio {one} is not one of the sparse format's",
                remedy=f"use one of {', '.join(map(str, RATIOS))}",
            )
    for glob in (*keep, *by_glob):
        if not any(fnmatchcase(layer.name, glob) for layer in layers):
            some = ", ".join(repr(layer.name) for layer in layers[:4])
            raise SpuError(
                f"{glob!r} is the name of no layer",
                remedy=f"globs match the names of modules: {some or 'there are none to prune'}",
            )
    return [
        1
        if any(fnmatchcase(layer.name, glob) for glob in keep)
        else next((r for glob, r in by_glob.items() if fnmatchcase(layer.name, glob)), 1)
        for layer in layers
    ]
