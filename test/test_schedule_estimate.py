"""Estimates: what never makes them slower, energy to the attojoule, batches, cards and options."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.work_tables import Program, network

from spu_ir import SpuError, Target
from spu_ir.schedule.estimate import Estimate, estimate
from spu_ir.schedule.options import Options
from spu_ir.schedule.queues import IDLE, UNITS, apply
from spu_ir.schedule.work import WorkTable

Draw = Callable[..., Any]

S4 = Target.load("s4")
FLOATS = {"x": 4}

RATES = (
    "card.host_link",
    "chip.host_link",
    "chip.clock",
    "chip.noc",
    "spu.count",
    "spu.int8_macs",
    "spu.bf16_macs",
    "spu.epilogue",
    "vpu.int8_lanes",
    "vpu.bf16_lanes",
    "sfu.lanes",
    "l2.size",
    "l2.bandwidth",
    "ddr.bandwidth",
)
"""More of any of these never makes a program slower."""

SLOWEST = {
    "l2.size": 40e3,
    "l2.bandwidth": 40e9,
    "ddr.bandwidth": 4e9,
    "chip.noc": 4e9,
    "control.launch": 1e-6,
}
"""A chip on which everything is scarce, so that anything can be the bottleneck."""

SCARCE = S4.replace(SLOWEST)


@st.composite
def tables(draw: Draw) -> WorkTable:
    program = Program().input(draw(st.integers(1, 100_000)))
    for _ in range(draw(st.integers(1, 6))):
        op = draw(st.sampled_from(("spu.matmul", "spu.attention", "vpu.unary", "antoum.dma")))
        product = op.startswith("spu")
        program.step(
            op,
            precision=draw(st.sampled_from(("int8", "bf16", "fp32"))),
            macs=draw(st.integers(0, 5_000_000)) if product else 0,
            vector=draw(st.integers(0, 500_000)) if op != "antoum.dma" else 0,
            special=draw(st.integers(0, 50_000)) if op != "antoum.dma" else 0,
            weights=draw(st.integers(1, 100_000)) if op == "spu.matmul" else 0,
            out=draw(st.integers(1, 100_000)),
        )
    return program.step("vpu.cast", vector=100, out=1_000, kind="output").table()


OPTIONS = st.builds(
    Options,
    cores=st.sampled_from(("batch", "split", "broadcast")),
    core_batch=st.integers(1, 3),
    zeros=st.floats(0, 1),
    host=st.booleans(),
)


def not_slower(fast: Estimate, slow: Estimate) -> None:
    # Times are maxima of sums, which round alike; a period is a mean of differences of these.
    assert fast.latency_s <= slow.latency_s
    assert fast.period_s <= slow.period_s * (1 + 1e-12)


@given(tables(), OPTIONS, st.sampled_from(RATES), st.floats(1, 20), st.integers(1, 9))
def test_more_of_anything_is_never_slower(
    table: WorkTable, options: Options, rate: str, factor: float, batch: int
) -> None:
    value = SCARCE.figures()[rate].value
    more = SCARCE.replace({rate: int(value * factor) if rate == "spu.count" else value * factor})
    slow = estimate(table, SCARCE, batch, {}, options)
    not_slower(estimate(table, more, batch, {}, options), slow)


@given(tables(), OPTIONS, st.floats(0, 1))
def test_launches_that_cost_less_are_never_slower(
    table: WorkTable, options: Options, share: float
) -> None:
    less = SCARCE.replace({"control.launch": 1e-6 * share})
    not_slower(estimate(table, less, 5, {}, options), estimate(table, SCARCE, 5, {}, options))


@given(tables(), OPTIONS, st.floats(0, 1))
def test_more_zeros_to_skip_are_never_slower(
    table: WorkTable, options: Options, zeros: float
) -> None:
    low, high = sorted((zeros, float(options.zeros)))  # pyright: ignore[reportArgumentType]
    fewer = estimate(table, SCARCE, 5, {}, replace(options, zeros=low))
    more = estimate(table, SCARCE, 5, {}, replace(options, zeros=high))
    not_slower(more, fewer)
    assert more.dynamic_aj <= fewer.dynamic_aj


@given(OPTIONS, st.integers(1, 4_000_000), st.integers(1, 40_000))
def test_sparser_weights_are_never_slower(options: Options, macs: int, weights: int) -> None:
    dense = estimate(network(), SCARCE, 5, {}, options)
    sparse = estimate(network(macs=macs, weights=weights), SCARCE, 5, {}, options)
    not_slower(sparse, dense)


@given(tables(), OPTIONS, st.integers(1, 30), st.sampled_from(("s4", "s10", "s30")))
def test_no_unit_is_busy_for_longer_than_there_is_time(
    table: WorkTable, options: Options, batch: int, card: str
) -> None:
    target = Target.load(card).replace(SLOWEST)
    e = estimate(table, target, batch, {}, options, itemsize=FLOATS)
    assert all(0 <= share <= 1 + 1e-9 for share in e.busy.values())
    assert e.period_s <= e.latency_s * (1 + 1e-12)
    busy: dict[tuple[int, str], float] = {}
    for event in e.timeline:
        busy[event.core, event.unit] = max(busy.get((event.core, event.unit), 0), event.end_s)
        assert 0 <= event.start_s <= event.end_s <= e.latency_s * (1 + 1e-12)
    assert max(busy.values()) == pytest.approx(e.latency_s)
    assert {core for core, _ in busy} == set(range(len({core for core, _ in busy})))


def test_a_huge_batch_is_as_long_as_its_passes_one_after_another() -> None:
    options = Options(core_batch=1)
    huge = estimate(network(), SCARCE, 10**9, {}, options)
    e = estimate(network(), SCARCE, 10**5, {}, options)
    group = e._groups[0][0]  # pyright: ignore[reportPrivateUsage]
    free = IDLE
    for each, (_, times) in zip(group.matrices, group.passes, strict=True):
        for _ in range(times):
            free = apply(each, free)
    assert e.latency_s == pytest.approx(max(free), rel=1e-9)
    assert huge.throughput == pytest.approx(e.throughput, rel=1e-3)


@given(tables(), OPTIONS, st.integers(1, 30))
def test_energy_is_the_sum_over_all_that_is_done(
    table: WorkTable, options: Options, batch: int
) -> None:
    """Counted here from the table alone, in whole attojoules."""
    options = replace(options, cores="batch", zeros=0.0)
    e = estimate(table, SCARCE, batch, {}, options, itemsize=FLOATS)
    costs = {name: round(f.value * 1e6) for name, f in SCARCE.figures().items() if "energy" in name}
    total = 0
    done = 0
    for group, count in e._groups:  # pyright: ignore[reportPrivateUsage]
        for each, times in group.passes:
            done += each.samples * times * count
            for step in table.steps({"batch": each.samples}):
                mac = "int8_mac" if step.precision == "int8" else "bf16_mac"
                work = step.work
                total += times * count * work.macs * costs[f"energy.{mac}"]
                total += times * count * work.vector_ops * costs["energy.vector_op"]
                total += times * count * work.special_ops * costs["energy.special_op"]
    assert done == batch
    for level in ("l2", "ddr", "host"):
        total += e.bytes.get(level, 0) * costs[f"energy.{level}_byte"]
    assert total == e.dynamic_aj
    idle = SCARCE.card.idle.value * e.period_s
    assert e.energy_j * batch == pytest.approx(e.dynamic_aj * 1e-18 + idle)
    assert e.power_w * e.period_s == pytest.approx(e.energy_j * batch)


def test_layers_and_ports_add_up_to_the_energy_of_a_batch() -> None:
    e = estimate(network(), S4, 4, {}, Options(core_batch=1), itemsize=FLOATS)
    ports = 4 * (200_000 + 4_000) * (S4.energy.host_byte.value + S4.energy.ddr_byte.value) * 1e-12
    layers = 4 * sum(layer.energy_j for layer in e.layers)
    assert layers + ports == pytest.approx(e.dynamic_aj * 1e-18)


@pytest.mark.parametrize("batch", [12, 24, 96])
def test_cards_scale_with_their_chips_where_the_link_does_not_limit(batch: int) -> None:
    options = Options(core_batch=1, host=False)
    rates = {
        chips: estimate(network(), Target.load(card), batch * chips, {}, options).throughput
        for card, chips in (("s4", 1), ("s10", 2), ("s30", 3))
    }
    assert rates[2] == pytest.approx(2 * rates[1])
    assert rates[3] == pytest.approx(3 * rates[1])


def test_chips_share_the_card_s_link_and_have_one_of_their_own() -> None:
    table = Program().input(1_000_000).step("vpu.cast", vector=1, out=1, kind="output").table()
    for card, chips, link in (("s4", 1, 15.754e9), ("s10", 2, 31.508e9), ("s30", 3, 31.508e9)):
        e = estimate(table, Target.load(card), 12 * chips, {}, itemsize=FLOATS)
        assert e.bottleneck == "host in"
        assert e.throughput == pytest.approx(link / 4e6, rel=1e-3)
        narrow = estimate(
            table, Target.load(card), 12 * chips, {}, Options(wire="int8"), itemsize=FLOATS
        )
        assert narrow.throughput > 3 * e.throughput


def test_a_chip_takes_no_more_than_its_own_link_carries() -> None:
    table = Program().input(1_000_000).step("vpu.cast", vector=1, out=1, kind="output").table()
    wide = Target.load("s30").replace({"card.host_link": 1e12})
    e = estimate(table, wide, 36, {}, itemsize=FLOATS)
    assert e.throughput == pytest.approx(3 * 15.754e9 / 4e6, rel=1e-3)


def test_batches_are_spread_over_cores_and_uneven_ones_wait_for_the_fullest() -> None:
    one = Options(core_batch=1, host=False)
    full = estimate(network(), S4, 8, {}, one)
    assert (full.chips, full.cores, full.core_batch) == (1, 4, 1)
    assert estimate(network(), S4, 16, {}, one).throughput == pytest.approx(full.throughput)
    uneven = estimate(network(), S4, 5, {}, one)
    assert uneven.period_s == pytest.approx(full.period_s)
    alone = estimate(network(), Target.load("s30"), 2, {}, one)
    assert (alone.chips, alone.cores) == (2, 1)
    assert len({event.core for event in uneven.timeline}) == 4


def test_a_pass_has_as_many_samples_as_l2_has_room_for() -> None:
    table = network()
    arena = sum(b.bytes for b in table.buffers({"batch": 1}) if b.kind == "arena")
    for room, samples in ((0.5, 1), (1.0, 1), (3.5, 3), (100, 8)):
        target = S4.replace({"l2.size": 4 * room * arena})
        e = estimate(table, target, 32, {})
        # As even as they can be: 8 samples a core in passes of at most 3 are 3, 3 and 2.
        assert e.core_batch == samples
        assert e.spilled == pytest.approx(0.5 if room == 0.5 else 0)
    assert estimate(table, S4, 32, {}, Options(core_batch=2)).core_batch == 2


def test_weights_stay_in_what_is_left_of_l2() -> None:
    table = network(weights=500_000)
    arena = sum(b.bytes for b in table.buffers({"batch": 1}) if b.kind == "arena")
    for left, streamed in ((0, 1.0), (1_000_000, 0.5), (2_000_000, 0.0)):
        target = S4.replace({"l2.size": 4 * (arena + left)})
        e = estimate(table, target, 4, {}, Options(host=False))
        assert e.weights == 2_000_000
        assert e.streamed == pytest.approx(streamed)
        # Ports lie in DDR; weights come from there as far as they do not stay.
        assert e.bytes["ddr"] == pytest.approx(4 * (204_000 + streamed * 2_000_000), rel=1e-3)


def test_cores_that_share_a_sample_are_quicker_with_one_and_no_quicker_with_many() -> None:
    table = network(macs=40_000_000)
    alone = estimate(table, S4, 1, {})
    full = estimate(table, S4, 64, {})
    for cores in ("split", "broadcast"):
        shared = estimate(table, S4, 1, {}, Options(cores=cores))
        assert shared.cores == 4
        assert shared.latency_s < 0.5 * alone.latency_s
        assert shared.bytes["noc"] > 0
        many = estimate(table, S4, 64, {}, Options(cores=cores))
        assert many.throughput <= full.throughput * 1.01
    # All cores have all weights, or each has its own quarter of them.
    split, broadcast = (
        estimate(table, S4.replace({"l2.size": 1e3}), 1, {}, Options(cores=c))
        for c in ("split", "broadcast")
    )
    assert split.bytes["ddr"] > broadcast.bytes["ddr"]


def test_skipped_zeros_of_one_layer_are_its_own() -> None:
    one = Options(zeros={"layer1": 0.5}, core_batch=1)
    plain, skipped = (estimate(network(), S4, 4, {}, o) for o in (Options(core_batch=1), one))
    for a, b in zip(plain.layers, skipped.layers, strict=True):
        if a.layer == "layer1":
            assert b.busy_s["spu"] == pytest.approx(0.5 * a.busy_s["spu"])
        else:
            assert (b.busy_s, b.energy_j) == (a.busy_s, a.energy_j)


def test_a_layer_says_what_limits_it() -> None:
    program = Program().input(1)
    program.step("spu.matmul", macs=10_000_000, vector=10, out=10)
    program.step("spu.matmul", macs=10, vector=10_000_000, out=10)
    program.step("spu.attention", precision="fp32", macs=10, vector=10_000_000, out=10)
    program.step("vpu.unary", precision="fp32", vector=10, special=10_000_000, out=10)
    program.step("spu.matmul", macs=10, weights=100_000_000, out=10)
    program.step("vpu.cast", vector=1, out=1, kind="output")
    e = estimate(program.table(), S4, 1, {})
    assert [layer.bottleneck for layer in e.layers] == [
        "spu macs",
        "spu epilogue",
        "vpu vector",
        "sfu special",
        "dma ddr",
        "vpu l2",
    ]


def test_figures_of_one_step_on_paper() -> None:
    table = Program().input(1).step("spu.matmul", macs=3_686_400, vector=1, out=1).table()
    e = estimate(table, S4, 4, {}, Options(host=False))
    # 8 SPUs x 576 a cycle x 800 MHz.
    assert e.layers[0].busy_s["spu"] == pytest.approx(1e-6)
    assert e.throughput == pytest.approx(4 / 1e-6, rel=1e-6)
    assert e.busy["spu"] == pytest.approx(1, rel=1e-6)
    bf16 = Program().input(1).step("spu.matmul", precision="bf16", macs=3_686_400, out=1).table()
    assert estimate(bf16, S4, 1, {}).layers[0].busy_s["spu"] == pytest.approx(2e-6)


def test_json_has_all_but_the_timeline() -> None:
    e = estimate(network(), S4, 8, {})
    table = json.loads(json.dumps(e.to_json()))
    assert table["throughput"] == e.throughput
    assert table["busy"].keys() == set(UNITS)
    assert [layer["layer"] for layer in table["layers"]] == [layer.layer for layer in e.layers]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cores": "all"}, "cores='all' is unknown; one of batch, broadcast, split"),
        ({"core_batch": 0}, "core_batch=0 is too small"),
        ({"wire": "int4"}, "wire='int4' is unknown; one of int8, bf16, fp32"),
        ({"zeros": 1.5}, "a share must be 0 to 1, got 1.5"),
        ({"real": 2}, "a share must be 0 to 1, got 2"),
        ({"zeros": {"a": -1}}, "a share must be 0 to 1, got -1"),
    ],
)
def test_an_option_that_there_is_not(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpuError, match=message):
        Options(**options)


def test_a_batch_has_a_sample() -> None:
    with pytest.raises(SpuError, match="batch=0 is too small"):
        estimate(network(), S4, 0, {})
