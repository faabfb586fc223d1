"""What `spu-smi` shows to people: a table of cards and one of models, or everything in lines."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from spu_ir._version import __version__
from spu_ir.tools.smi_fields import FIELDS, Value, model, values
from spu_ir.tools.smi_state import CardState, ModelState, State

SIMULATED = (
    "Simulated: temperature, power and utilisation are what the cards' model gives for the load "
    "that ran, not measurements."
)


def print_tables(state: State) -> None:
    """Print the cards and what runs on them."""
    console = Console(highlight=False)
    console.print(Text(f"spu-smi {__version__}", style="bold"))
    console.print(_cards(state))
    running = [one for card in state.cards for one in card.models]
    console.print(_models(running) if running else Text("No running programs."))
    for note in notes(state):
        console.print(Text(note))


def notes(state: State) -> list[str]:
    """What a reader has to know of the figures."""
    found = [SIMULATED]
    if state.elsewhere:
        where = sorted({f"device {one.row.device} ({one.row.card})" for one in state.elsewhere})
        found.append(
            f"Not shown, since SPU_IR_DEVICES lists no such card here: {len(state.elsewhere)} "
            f"on {', '.join(where)}."
        )
    if state.problem is not None:
        found.append(f"No processes can be seen: {state.problem}.")
    return found


def print_everything(state: State) -> None:
    """Print all fields of every card and model, one a line."""
    lines: list[str] = []
    for card in state.cards:
        lines.append(f"Card {card.device.index}: {card.device.name}")
        lines += _lines(values(card, list(FIELDS)), "    ")
        for chip in range(card.device.chips):
            used, total = gigabytes(card.chip_memory_used), gigabytes(card.device.chip_memory)
            lines.append(f"    Chip {chip}: {used} of {total} used")
        for one in card.models:
            lines.append(f"    Model {one.row.name} of process {one.process.pid}")
            lines += _lines(model(one), "        ")
    print("\n".join([*lines, *notes(state)]))


def gigabytes(count: int) -> str:
    """Bytes for people."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def percent(share: float) -> str:
    """A share for people: a CPU's load on a card is often a small one."""
    return f"{100 * share:.0f}%" if share >= 0.1 else f"{100 * share:.2f}%"


def _lines(fields: dict[str, Value], indent: str) -> list[str]:
    return [
        f"{indent}{name:<19} {value}" + (f"  ({FIELDS[name].about})" if name in FIELDS else "")
        for name, value in fields.items()
    ]


def _cards(state: State) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("Card", "Name", "Chip"):
        table.add_column(heading, no_wrap=True)
    for heading in ("Temp", "Power/Cap", "Memory used/total", "SPU", "VPU", "Codec"):
        table.add_column(heading, justify="right", no_wrap=True)
    for card in state.cards:
        _add_card(table, card)
    return table


def _add_card(table: Table, card: CardState) -> None:
    """A line a chip; what is of the whole card is on the first."""
    device = card.device
    memory = f"{gigabytes(card.chip_memory_used)} / {gigabytes(device.chip_memory)}"
    shares = [percent(card.utilisation(unit)) for unit in ("spu", "vpu", "codec")]
    for chip in range(device.chips):
        first = chip == 0
        table.add_row(
            *_texts(
                str(device.index) if first else "",
                device.name if first else "",
                str(chip),
                f"{card.temperature:.0f} C" if first else "",
                f"{card.power:.0f}/{card.power_cap:.0f} W" if first else "",
                memory,
                *shares,
            ),
            end_section=chip == device.chips - 1,
        )


def _models(models: Sequence[ModelState]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("Card", no_wrap=True)
    table.add_column("PID", justify="right", no_wrap=True)
    for heading in ("Program", "Model"):
        table.add_column(heading, overflow="ellipsis", no_wrap=True)
    for heading in ("Memory", "Runs", "Samples/s", "SPU", "VPU", "Codec"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in models:
        shares = [percent(share) for share in (one.spu, one.vpu, one.codec)]
        table.add_row(
            *_texts(
                str(one.row.device),
                str(one.process.pid),
                one.program,
                one.row.name,
                gigabytes(one.row.memory),
                str(one.row.runs),
                f"{one.samples_rate:.1f}",
                *shares,
            )
        )
    return table


def _texts(*cells: str) -> list[Text]:
    """Cells that are never read as markup."""
    return [Text(cell) for cell in cells]
