"""Targets: the figures of the cards, their files, and what is wrong with a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import spu_ir
from spu_ir import SpuError, Target
from spu_ir.targets import FIELDS, NAMES
from spu_ir.targets.target import target_option


def write(folder: Path, text: str, name: str = "mine.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_has_a_source_and_a_status(name: str) -> None:
    target = Target.load(name)
    assert target.name == name
    figures = target.figures()
    assert figures.keys() == FIELDS.keys()
    for key, figure in figures.items():
        assert figure.unit == FIELDS[key].unit
        assert figure.source
        assert figure.status in ("published", "inferred", "fitted")


@pytest.mark.parametrize(
    ("name", "chips", "memory", "bandwidth", "tdp", "tops"),
    [
        ("s4", 1, 20e9, 82e9, 70, 943.6),
        ("s10", 2, 40e9, 164e9, 165, 1887),
        ("s30", 3, 60e9, 246e9, 250, 2831),
    ],
)
def test_the_published_figures_of_each_card(
    name: str, chips: int, memory: float, bandwidth: float, tdp: float, tops: float
) -> None:
    t = Target.load(name)
    assert t.card.chips.value == chips
    assert chips * t.ddr.size.value == memory
    assert chips * t.ddr.bandwidth.value == bandwidth
    assert t.card.tdp.value == tdp
    units = chips * t.chip.cores.value * t.spu.count.value
    rate = units * t.spu.int8_macs.value * t.chip.clock.value * 2 * 32 / 1e12
    assert rate == pytest.approx(tops, rel=1e-3)


def test_all_units_at_their_full_rates_draw_about_the_tdp_of_one_chip() -> None:
    t = Target.load("s4")
    clock, cores, e = t.chip.clock.value, t.chip.cores.value, t.energy
    macs = t.spu.count.value * t.spu.int8_macs.value
    core = clock * (
        macs * e.int8_mac.value
        + t.vpu.int8_lanes.value * e.vector_op.value
        + t.sfu.lanes.value * e.special_op.value
    )
    moved = t.ddr.bandwidth.value * e.ddr_byte.value + t.chip.host_link.value * e.host_byte.value
    watts = t.card.idle.value + (cores * core + moved) * 1e-12
    assert 0.85 * t.card.tdp.value < watts <= t.card.tdp.value


def test_a_name_has_no_case() -> None:
    assert Target.load("S30") == Target.load("s30")
    assert Target.load(Target.load("s4")) == Target.load("s4")


def test_a_table_is_read_back() -> None:
    target = Target.load("s10")
    assert Target.from_table(json.loads(json.dumps(target.to_json()))) == target


def test_a_file_extends_a_card_with_bare_numbers(tmp_path: Path) -> None:
    path = write(tmp_path, 'name = "twice"\nextends = "s30"\n[ddr]\nbandwidth = 164e9\n')
    target = Target.load(path)
    assert (target.name, target.card.chips.value) == ("twice", 3)
    assert target.ddr.bandwidth.value == 164e9
    assert target.ddr.bandwidth.status == "given"
    assert target.ddr.size == Target.load("s30").ddr.size


def test_a_file_extends_a_file_beside_it(tmp_path: Path) -> None:
    write(tmp_path, 'name = "one"\nextends = "s4"\n[chip]\nclock = 1e9\n', "one.toml")
    two = write(tmp_path, 'name = "two"\nextends = "one.toml"\n[card]\nchips = 2\n', "two.toml")
    target = Target.load(str(two))
    assert (target.name, target.card.chips.value, target.chip.clock.value) == ("two", 2, 1e9)


def test_a_file_that_extends_itself_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, 'name = "loop"\nextends = "mine.toml"\n')
    with pytest.raises(SpuError, match="leads to no target"):
        Target.load(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "x"\n', r"the part \[card\] is missing"),
        ('extends = "s4"\nname = ""\n', "is no target's name"),
        ('extends = "s4"\nname = "a */ b"\n', "is no target's name"),
        ('extends = "s4"\n[gpu]\ncount = 1\n', "'gpu' is not a part of a target; use card, chip"),
        ('extends = "s4"\n[ddr]\nspeed = 1\n', r"\[ddr\] has no figure 'speed'; use size, band"),
        (
            'extends = "s4"\n[ddr]\nsize = "big"\n',
            "ddr.size = 'big' is not a number; give it in byt",
        ),
        ('extends = "s4"\n[ddr]\nsize = true\n', "ddr.size = True is not a number"),
        ('extends = "s4"\n[ddr]\nsize = nan\n', "ddr.size = nan is out of range"),
        (
            'extends = "s4"\n[ddr]\nbandwidth = 0\n',
            "ddr.bandwidth = 0 is out of range: more than 0",
        ),
        ('extends = "s4"\n[card]\nchips = 1.5\n', "card.chips = 1.5 is not a whole number"),
        ('extends = "s4"\n[card]\nchips = 0\n', "card.chips = 0 is out of range: at least 1"),
        ('extends = "s4"\n[chip]\nclock = 1e19\n', "out of range: more than 0, at most 1e.18"),
        ('extends = "s4"\nddr = 3\n', r"the part \[ddr\] is missing or not a table"),
        ('extends = "s4"\n[ddr.size]\nvalue = 1\n', "ddr.size lacks its source"),
        (
            'extends = "s4"\n[ddr]\nsize = {value = 1, unit = "GB", source = "x", status = "y"}',
            "ddr.size is in 'GB'; give it in 'byte'",
        ),
        (
            'extends = "s4"\n[ddr]\nsize = {value = 1, unit = "byte", source = "x", status = "y"}',
            "ddr.size has the status 'y'",
        ),
        ('extends = "s4"\n[ddr\n', "this is not TOML"),
        ("extends = 3\n", "extends = 3 leads to no target"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text if "name =" in text else 'name = "x"\n' + text)
    with pytest.raises(SpuError, match=message) as error:
        Target.load(path)
    assert "mine.toml" in str(error.value)


def test_a_figure_that_is_left_out_is_named(tmp_path: Path) -> None:
    table = Target.load("s4").to_json()
    del table["l2"]["bandwidth"]
    with pytest.raises(SpuError, match=r"l2.bandwidth is missing; add it"):
        Target.from_table(table)


@pytest.mark.parametrize("target", ["s5", "", "a.json", "nowhere/at_all.toml", "\0.toml"])
def test_a_target_that_there_is_not(target: str) -> None:
    with pytest.raises(SpuError):
        Target.load(target)


def test_replace_changes_one_figure_and_says_so() -> None:
    target = Target.load("s4")
    other = target.replace({"ddr.bandwidth": 41e9}, chip__clock=1e9)
    assert (other.ddr.bandwidth.value, other.chip.clock.value) == (41e9, 1e9)
    assert other.ddr.bandwidth.status == "given"
    assert target.ddr.bandwidth.value == 82e9
    with pytest.raises(SpuError, match=r"no figure 'ddr.speed'; one of card.chips"):
        target.replace({"ddr.speed": 1})
    with pytest.raises(SpuError, match=r"card.chips = 0 is out of range"):
        target.replace({"card.chips": 0})


def test_a_sweep_of_one_figure() -> None:
    swept = Target.load("s4").sweep("card.chips=1,2,3")
    assert [(v, t.card.chips.value) for v, t in swept] == [(1, 1), (2, 2), (3, 3)]
    for wrong in ("card.chips", "card.chips=", "card.chips=1,two", "=1", "card.chips=0"):
        with pytest.raises(SpuError):
            Target.load("s4").sweep(wrong)


def test_a_package_keeps_a_name_or_all_figures(tmp_path: Path) -> None:
    assert target_option("S30") == "s30"
    path = write(tmp_path, 'name = "s30"\nextends = "s30"\n[ddr]\nbandwidth = 1e9\n')
    option = target_option(path)
    assert Target.of_option(json.loads(json.dumps(option))) == Target.load(path)
    assert Target.of_option("s30") == Target.load("s30")
    assert Target.of_option(None) == Target.load("s4")


def test_a_target_that_is_no_target_is_refused_before_anything_is_compiled() -> None:
    with pytest.raises(SpuError, match="target='s5' is unknown; one of s4, s10, s30, or a TOML"):
        spu_ir.compile(b"not a model", target="s5")
