"""A card as the device model sees it: what it has, how fast that is, and what it takes."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, cast, get_args, get_type_hints

from spu_ir.errors import SpuError
from spu_ir.targets.figures import Field, Figure, read_figure

_DATA = Path(__file__).parent
NAMES = ("s4", "s10", "s30")
"""The targets that come with the package."""

_NAME = re.compile(r"[A-Za-z0-9 ._-]{1,64}", re.ASCII)
_LIMIT = 1 << 20  # bytes of a target's file
_DEPTH = 8  # of files that extend each other


@dataclass(frozen=True)
class Count:
    """A whole number of things, at least one."""

    unit: str
    minimum: float = 1
    maximum: float = 1e6
    zero: bool = False
    whole: bool = True


@dataclass(frozen=True)
class Amount:
    """A quantity in `unit`, more than nothing, or, with `zero`, nothing too."""

    unit: str
    minimum: float = 0
    maximum: float = 1e18
    zero: bool = False
    whole: bool = False


@dataclass(frozen=True)
class Card:
    """The board: chips on one host link."""

    chips: Annotated[Figure, Count("chips")]
    host_link: Annotated[Figure, Amount("byte/s")]
    """Of the card's connector, each way, shared by its chips."""
    tdp: Annotated[Figure, Amount("W")]
    idle: Annotated[Figure, Amount("W", zero=True)]
    """What the card draws with no work, all its chips included."""


@dataclass(frozen=True)
class Chip:
    """One processor: cores on a network, each with a port to memory."""

    cores: Annotated[Figure, Count("cores")]
    clock: Annotated[Figure, Amount("Hz")]
    host_link: Annotated[Figure, Amount("byte/s")]
    """Of one chip's own link, each way."""
    noc: Annotated[Figure, Amount("byte/s")]
    """Between its cores, all together."""


@dataclass(frozen=True)
class Spu:
    """Sparse processing units of one core."""

    count: Annotated[Figure, Count("SPUs")]
    int8_macs: Annotated[Figure, Amount("MAC/cycle")]
    """Of one SPU: slots that hold a weight, whatever the sparsity."""
    bf16_macs: Annotated[Figure, Amount("MAC/cycle")]
    epilogue: Annotated[Figure, Amount("op/cycle")]
    """
    Of one SPU: operations on finished sums, each a scale, a bias, a residual, a clamp or a step of
    quantisation of one output, beside the multiply-accumulates of the next ones.
    """


@dataclass(frozen=True)
class Vpu:
    """The vector unit of one core."""

    int8_lanes: Annotated[Figure, Amount("op/cycle")]
    bf16_lanes: Annotated[Figure, Amount("op/cycle")]


@dataclass(frozen=True)
class Sfu:
    """The special-function unit of one core."""

    lanes: Annotated[Figure, Amount("op/cycle")]


@dataclass(frozen=True)
class Level:
    """One level of a chip's memory, all of its parts together."""

    size: Annotated[Figure, Amount("byte")]
    bandwidth: Annotated[Figure, Amount("byte/s")]


@dataclass(frozen=True)
class Local:
    """Memory that the model does not time: its size."""

    size: Annotated[Figure, Amount("byte")]


@dataclass(frozen=True)
class Codec:
    """Decoders of one chip."""

    video: Annotated[Figure, Amount("streams", zero=True)]
    """Of 1080p at 30 frames a second."""
    jpeg: Annotated[Figure, Amount("frame/s", zero=True)]
    """Of 1080p pictures."""


@dataclass(frozen=True)
class Energy:
    """What one elementary operation takes, over what the card draws when idle."""

    int8_mac: Annotated[Figure, Amount("pJ", zero=True)]
    bf16_mac: Annotated[Figure, Amount("pJ", zero=True)]
    vector_op: Annotated[Figure, Amount("pJ", zero=True)]
    special_op: Annotated[Figure, Amount("pJ", zero=True)]
    l2_byte: Annotated[Figure, Amount("pJ", zero=True)]
    ddr_byte: Annotated[Figure, Amount("pJ", zero=True)]
    host_byte: Annotated[Figure, Amount("pJ", zero=True)]


@dataclass(frozen=True)
class Control:
    """What it costs to hand work to the units."""

    launch: Annotated[Figure, Amount("s", zero=True)]
    """From one layer to the next on one unit: set-up, fill and drain."""


@dataclass(frozen=True)
class Target:
    """
    A card: figures with their sources, in the units that they are read in.

    `Target.load("s30")` or `Target.load("mine.toml")`; `replace` makes another with some figures
    changed. What a core does in a second of it is `spu_ir.schedule.rates.Rates`.
    """

    name: str
    card: Card
    chip: Chip
    spu: Spu
    vpu: Vpu
    sfu: Sfu
    l1: Local
    l2: Level
    ddr: Level
    codec: Codec
    energy: Energy
    control: Control

    @classmethod
    def load(cls, target: str | os.PathLike[str] | Target) -> Target:
        """
        A target by its name ("s4", "s10", "s30", in any case), from a TOML file, or as it is.

        Raises SpuError for a name that there is not, and, naming file and field, for a file
        that is not a target.
        """
        if isinstance(target, Target):
            return target
        name = os.fspath(target).lower()
        # Files are read each time, since they may change.
        return _named(name) if name in NAMES else cls.from_table(*_read(target))

    @classmethod
    def of_option(cls, option: object) -> Target:
        """The target that `target_option` made `option` of; "s4" where a package names none."""
        if isinstance(option, Mapping):
            return cls.from_table(cast(Mapping[str, Any], option), "the package's target")
        return cls.load(option if isinstance(option, str) else "s4")

    @classmethod
    def from_table(cls, table: Mapping[str, Any], where: str = "the target") -> Target:
        """
        The target of a table as `to_json` writes it; `where` is what errors call it.

        Raises SpuError for figures that are missing, unknown, or of the wrong kind.
        """
        name = table.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise SpuError(
                f"{where}: name = {name!r} is no target's name",
                remedy="use up to 64 letters, digits, spaces, dots, _ or -",
            )
        unknown = sorted(table.keys() - SECTIONS.keys() - {"name"})
        if unknown:
            raise SpuError(
                f"{where}: {unknown[0]!r} is not a part of a target",
                remedy=f"use {', '.join(SECTIONS)}",
            )
        parts = {key: _section(key, table.get(key), where) for key in SECTIONS}
        return cls(name, **parts)

    def figures(self) -> dict[str, Figure]:
        """All figures by their dotted names, `ddr.bandwidth`."""
        return {name: getattr(getattr(self, part), key) for name, (part, key) in _NAMES.items()}

    def replace(self, changes: Mapping[str, float] | None = None, /, **more: float) -> Target:
        """
        The same card with other values: `target.replace({"ddr.bandwidth": 164e9})`.

        Keywords name a figure with two underscores for the dot: `ddr__bandwidth=164e9`. Raises
        SpuError for a figure that there is not or a value that it cannot have.
        """
        wanted = {**(changes or {}), **{k.replace("__", ".", 1): v for k, v in more.items()}}
        parts: dict[str, Any] = {}
        for name, value in wanted.items():
            part, key = _NAMES.get(name) or _no_figure(name)
            figure = self.figures()[name].with_value(FIELDS[name].check(value, self.name))
            parts[part] = dataclasses.replace(parts.get(part, getattr(self, part)), **{key: figure})
        return dataclasses.replace(self, **parts)

    def sweep(self, sweep: str) -> list[tuple[float, Target]]:
        """
        Values of one figure and the targets that have them, of `"ddr.bandwidth=41e9,82e9"`.

        Raises SpuError for what cannot be read as such, and as `replace`.
        """
        name, _, values = sweep.partition("=")
        try:
            numbers = [float(value) for value in values.split(",")]
        except ValueError:
            raise SpuError(
                f"the sweep {sweep!r} cannot be read",
                remedy="write a figure and its values: ddr.bandwidth=41e9,82e9",
            ) from None
        return [(number, self.replace({name.strip(): number})) for number in numbers]

    def to_json(self) -> dict[str, Any]:
        """The table that `from_table` reads."""
        table: dict[str, Any] = {"name": self.name}
        for name, figure in self.figures().items():
            part, key = _NAMES[name]
            table.setdefault(part, {})[key] = figure.to_json()
        return table


def target_option(target: str | os.PathLike[str] | Target) -> str | dict[str, Any]:
    """
    What a package keeps of its target: the name of one that comes with the product, else all.

    `Target.of_option` reads it back. Raises SpuError as `Target.load`.
    """
    card = Target.load(target)
    return card.name if card.name in NAMES and card == Target.load(card.name) else card.to_json()


SECTIONS: dict[str, type[Any]] = {
    "card": Card,
    "chip": Chip,
    "spu": Spu,
    "vpu": Vpu,
    "sfu": Sfu,
    "l1": Local,
    "l2": Level,
    "ddr": Level,
    "codec": Codec,
    "energy": Energy,
    "control": Control,
}
"""The parts of a target."""


def _fields(part: str) -> dict[str, Field]:
    """What each figure of one part has to be, by its name in the part."""
    found: dict[str, Field] = {}
    for key, hint in get_type_hints(SECTIONS[part], include_extras=True).items():
        _, kind = get_args(hint)
        low, high = kind.minimum, kind.maximum
        found[key] = Field(f"{part}.{key}", kind.unit, low, high, kind.whole, kind.zero)
    return found


_PARTS = {part: _fields(part) for part in SECTIONS}
FIELDS: dict[str, Field] = {
    each.name: each for fields in _PARTS.values() for each in fields.values()
}
"""What each figure has to be, by its dotted name."""

_NAMES = {f"{part}.{key}": (part, key) for part, fields in _PARTS.items() for key in fields}


def _no_figure(name: str) -> tuple[str, str]:
    raise SpuError(f"a target has no figure {name!r}", remedy=f"one of {', '.join(FIELDS)}")


def _section(part: str, value: object, where: str) -> Any:
    """One part of a target from its table."""
    if not isinstance(value, Mapping):
        raise SpuError(f"{where}: the part [{part}] is missing or not a table")
    table = cast(Mapping[str, object], value)
    fields = _PARTS[part]
    for key in table:
        if key not in fields:
            raise SpuError(
                f"{where}: [{part}] has no figure {key!r}", remedy=f"use {', '.join(fields)}"
            )
    for key in fields:
        if key not in table:
            raise SpuError(
                f"{where}: {part}.{key} is missing",
                remedy='add it, or start the file with extends = "s4"',
            )
    return SECTIONS[part](**{k: read_figure(field, table[k], where) for k, field in fields.items()})


@cache
def _named(name: str) -> Target:
    """The target of that name that comes with the package."""
    return Target.from_table(*_read(name))


def _read(target: str | os.PathLike[str], depth: int = 0) -> tuple[dict[str, Any], str]:
    """A target's table, with what it extends filled in, and what to call it in errors."""
    import tomllib

    text = os.fspath(target)
    path = _DATA / f"{text.lower()}.toml" if text.lower() in NAMES else Path(text)
    known = f"one of {', '.join(NAMES)}, or a TOML file"
    if path.suffix != ".toml":
        raise SpuError(f"target={text!r} is unknown", remedy=known)
    where = text
    try:
        data = path.read_bytes()
        if len(data) > _LIMIT:
            raise SpuError(f"{where}: {len(data)} bytes are too many for a target")
        table = tomllib.loads(data.decode("utf-8"))
    except OSError as error:
        raise SpuError(
            f"the target {text!r} cannot be read: {error.strerror}", remedy=known
        ) from error
    except ValueError as error:  # Of UTF-8, of TOML, and of a path with a zero byte.
        raise SpuError(f"{where}: this is not TOML: {error}") from error
    base = table.pop("extends", None)
    if base is None:
        return table, where
    if not isinstance(base, str) or depth == _DEPTH:
        raise SpuError(f"{where}: extends = {base!r} leads to no target", remedy=known)
    # A file that is extended is found from the file that extends it.
    origin = base if base.lower() in NAMES else path.parent / base
    return _merged(_read(origin, depth + 1)[0], table), where


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`base` with the parts of `over` put figure by figure over its own."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
            value = {**cast(dict[str, Any], below), **cast(dict[str, Any], value)}
        result[key] = value
    return result
