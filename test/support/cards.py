"""What tests of the cards share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from spu_ir.runtime import cards_codec, cards_state
from spu_ir.runtime.cards_folder import Process, usable_folder
from spu_ir.runtime.cards_reader import Published, read_all
from spu_ir.runtime.cards_state import Publisher, publisher


@pytest.fixture
def cards_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """
    A runtime folder of the test's own, two cards, and nothing published yet.

    As in a new process, whatever models and codecs other tests keep.
    """
    path = tmp_path / "runtime"
    monkeypatch.setenv("SPU_IR_RUNTIME", str(path))
    monkeypatch.setenv("SPU_IR_DEVICES", "s30,s4")
    monkeypatch.setattr(cards_state, "_current", [Publisher()])
    monkeypatch.setattr(cards_codec, "_placements", {})
    yield path
    publisher().close()


def tiny_card(folder: Path, size: int, name: str = "tiny") -> str:
    """The file of a card of one chip with so many bytes."""
    path = folder / f"{name}.toml"
    path.write_text(f'extends = "s4"\nname = "{name}"\n[ddr]\nsize = {size}\n')
    return str(path)


def mine() -> Published:
    """What this process publishes."""
    found = [one for one in read_all(usable_folder()) if one.process == Process.this()]
    assert len(found) == 1
    return found[0]


WRITE = """
from spu_ir.runtime.cards import device
from spu_ir.runtime.cards_placement import Need, Placement
from spu_ir.runtime.cards_state import Cost
placement = Placement(device(0), "w", Need(1, 0, 0))
print("placed", flush=True)
cost = Cost(spu_s=1.0, vpu_s=2.0, codec_s=3.0, energy_j=4.0)
while True:
    placement.count(3, cost)
"""
"""A program that counts without end, and says when it has begun."""
