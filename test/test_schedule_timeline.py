"""From steps to tasks: what waits for what, double buffering, residence, and the unit of a step."""

from __future__ import annotations

import pytest
from support.work_tables import Program

from spu_ir import Target
from spu_ir.schedule.memory import crossing, residence, weight_bytes
from spu_ir.schedule.options import Options
from spu_ir.schedule.queues import Span, Task, run
from spu_ir.schedule.rates import Rates
from spu_ir.schedule.timeline import Pass, plan_pass
from spu_ir.schedule.work import WorkTable

S4 = Target.load("s4")
HOST_OFF = Options(host=False)


def passed(
    table: WorkTable, samples: int = 1, target: Target = S4, options: Options = HOST_OFF
) -> Pass:
    at = {"batch": samples}
    rates = Rates.of(target, 1, 4)
    return plan_pass(table.steps(at), table.buffers(at), samples, rates, options, 1, {"x": 4})


def spans(each: Pass, unit: str) -> dict[int, Span]:
    """The spans of a unit's tasks by step; of loads those of weights."""
    found = zip(each.tasks, run(each.tasks)[0], strict=True)
    return {
        t.step: s for t, s in found if t.unit == unit and (unit != "dma" or t.label == "weights")
    }


def tasks(each: Pass, unit: str) -> list[Task]:
    return [task for task in each.tasks if task.unit == unit]


def test_a_reader_waits_for_all_that_wrote_its_buffer() -> None:
    program = Program().input(10).step("vpu.unary", vector=8_000_000, out=10)
    both = program.last
    program.last = 0
    program.step("spu.matmul", macs=10_000_000, out=10, into=both)
    program.step("antoum.dma", out=10)
    each = passed(program.table())
    ends = [spans(each, "vpu")[0].end, spans(each, "spu")[1].end]
    reader = next(t for t in tasks(each, "dma") if t.step == 2)
    assert {each.tasks[link.task].step for link in reader.links} == {0, 1}
    end = run(each.tasks)[0][each.tasks.index(reader)].end
    assert end >= max(ends)


def test_what_replaces_a_buffer_that_was_read_waits_for_no_reader() -> None:
    """Places in the arena are used again; the card has room to rename them."""
    program = Program().input(10).step("spu.matmul", macs=10_000_000, out=10)
    place = program.last
    program.step("vpu.unary", vector=8_000_000, out=10)
    program.last = 0
    program.step("spu.matmul", macs=10_000_000, out=10, into=place)
    program.step("vpu.unary", vector=10, out=10)
    each = passed(program.table())
    second = next(t for t in tasks(each, "spu") if t.step == 2)
    assert {each.tasks[link.task].step for link in second.links} <= {2}  # Its own load.
    last = next(t for t in tasks(each, "vpu") if t.step == 3)
    assert {each.tasks[link.task].step for link in last.links} == {2}


def test_attention_starts_with_a_whole_sample_and_other_steps_with_a_tile() -> None:
    size = 4_000_000  # Bytes: many tiles of half an L1.

    def starts(op: str, samples: int) -> tuple[Span, Span]:
        program = Program().input(10).step("vpu.unary", vector=80_000_000, out=size)
        program.step(op, macs=1_000, out=10)
        roomy = S4.replace({"l2.size": 1e12})
        each = passed(program.table(), samples, roomy)
        return spans(each, "vpu")[0], spans(each, "spu")[1]

    before, matmul = starts("spu.matmul", 1)
    assert matmul.start < 0.1 * before.end
    before, attention = starts("spu.attention", 1)
    assert attention.start == before.end
    before, attention = starts("spu.attention", 4)
    first = before.start + (before.end - before.start) / 4
    assert attention.start == pytest.approx(first, rel=0.01)


@pytest.mark.parametrize(("weights", "l2", "room"), [(10_000, 160_000, 2), (4_000, 152_000, 5)])
def test_weights_come_ahead_as_far_as_there_is_room(weights: int, l2: int, room: int) -> None:
    """An eighth of L2 holds `room` loads; the rest has the buffers, and a few of the weights."""
    program = Program().input(10)
    for _ in range(6):
        program.step("spu.matmul", macs=100_000_000, weights=weights, out=25_000)
    each = passed(program.table(), target=S4.replace({"l2.size": 4 * l2}))
    assert each.residence.spilled == 0
    assert 0.8 < each.residence.streamed < 1
    loads, products = spans(each, "dma"), spans(each, "spu")
    assert len(loads) == 6
    for step in range(1, 6):
        assert loads[step].end < products[step].start
        if step < room:
            assert loads[step].start < products[0].end
        else:
            assert loads[step].start >= products[step - room].end


def test_resident_weights_are_not_loaded() -> None:
    program = Program().input(10).step("spu.matmul", macs=1, weights=10_000, out=10)
    assert not spans(passed(program.table()), "dma")


def test_units_of_one_step_go_through_it_together() -> None:
    program = Program().input(10)
    program.step("spu.attention", macs=10_000_000, vector=1_000_000, special=100_000, out=10)
    each = passed(program.table())
    found = [spans(each, unit)[0] for unit in ("spu", "vpu", "sfu")]
    longest = max(each.steps[0].busy(unit) for unit in ("spu", "vpu", "sfu"))
    assert max(s.end for s in found) - found[0].start < 1.3 * longest


def test_inputs_come_and_outputs_go_beside_the_core_s_own_dma() -> None:
    program = Program().input(1_000).step("vpu.cast", vector=10, out=500, kind="output")
    each = passed(program.table(), options=Options())
    assert [t.amount for t in tasks(each, "host in")] == [4_000]
    assert [t.amount for t in tasks(each, "host out")] == [500]
    assert [t.amount for t in tasks(each, "dma")] == [4_000]  # From DDR to the core.
    assert dict(each.ports.bytes) == {"host": 4_500, "ddr": 4_500}
    narrow = passed(program.table(), options=Options(wire="bf16"))
    assert [t.amount for t in tasks(narrow, "host in")] == [2_000]
    assert [t.amount for t in tasks(narrow, "dma")] == [2_000]
    stays = passed(program.table())
    assert not tasks(stays, "host in")
    assert not stays.ports.bytes


def test_constants_count_once_however_many_steps_read_them() -> None:
    program = Program().input(10).step("spu.matmul", macs=1, weights=1_000, out=10)
    program.step("spu.matmul", macs=1, weights=500, out=10)
    constant = next(n for n, b in enumerate(program.memory) if b.kind == "constant")
    program.step("spu.matmul", macs=1, out=10)
    table = program.table()
    shared = table.program[0].operands[1]
    again = table.program[2]
    steps = (
        *table.program[:2],
        type(again)(
            again.layer,
            again.op,
            again.unit,
            again.precision,
            again.counts,
            (*again.operands, shared),
        ),
    )
    twice = WorkTable(table.extents, steps, table.memory)
    at = {"batch": 1}
    assert shared.buffer == constant
    assert weight_bytes(twice.steps(at), twice.buffers(at)) == 1_500
    half = residence(twice.steps(at), twice.buffers(at), 30 + 750)
    assert (half.working_set, half.weights) == (30, 1_500)
    assert (half.spilled, half.streamed) == (0, 0.5)


def test_only_floats_are_narrowed_on_the_wire() -> None:
    table = Program().input(100).step("vpu.cast", vector=1, out=40, kind="output").table()
    buffers = table.buffers({"batch": 2})
    assert sorted(crossing(buffers, {"x": 4}, 1).values()) == [80, 200]
    assert sorted(crossing(buffers, {}, 1).values()) == [80, 800]
    assert sorted(crossing(buffers, {"x": 4}, None).values()) == [80, 800]
