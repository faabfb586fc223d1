"""Tasks in queues: order, waiting, what never gets slower, and repetition without end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spu_ir.schedule.queues import (
    IDLE,
    NEVER,
    UNITS,
    Link,
    Span,
    Task,
    apply,
    compose,
    matrix,
    passes,
    period,
    run,
)

Draw = Callable[..., Any]

# Whole seconds and powers of two of tiles: sums and maxima of them are exact.
SECONDS = st.integers(0, 1000).map(float)
TILES = st.sampled_from((1, 2, 4, 8))


@st.composite
def programs(draw: Draw, most: int = 12) -> list[Task]:
    tasks: list[Task] = []
    for number in range(draw(st.integers(1, most))):
        others = draw(st.sets(st.integers(0, number - 1), max_size=3)) if number else set[int]()
        links = tuple(Link(other, draw(TILES)) for other in sorted(others))
        tasks.append(Task(draw(st.sampled_from(UNITS)), draw(SECONDS), links))
    return tasks


def ends(spans: Sequence[Span]) -> list[float]:
    return [span.end for span in spans]


@given(programs(), st.data())
def test_no_task_ends_later_for_shorter_tasks(tasks: list[Task], data: st.DataObject) -> None:
    shorter = [replace(t, seconds=data.draw(st.floats(0, t.seconds))) for t in tasks]
    longer, _ = run(tasks)
    for a, b in zip(ends(run(shorter)[0]), ends(longer), strict=True):
        assert a <= b


@given(programs(), st.data())
def test_no_task_ends_later_for_fewer_links(tasks: list[Task], data: st.DataObject) -> None:
    freer = [replace(t, links=tuple(x for x in t.links if data.draw(st.booleans()))) for t in tasks]
    for a, b in zip(ends(run(freer)[0]), ends(run(tasks)[0]), strict=True):
        assert a <= b


@given(programs())
def test_units_work_in_order_and_no_longer_than_all_takes(tasks: list[Task]) -> None:
    spans, free = run(tasks)
    makespan = max(ends(spans))
    for place, unit in enumerate(UNITS):
        mine = [(task, span) for task, span in zip(tasks, spans, strict=True) if task.unit == unit]
        assert sum(task.seconds for task, _ in mine) <= makespan
        for (_, before), (_, after) in pairwise(mine):
            assert before.end <= after.start
        assert free[place] == (mine[-1][1].end if mine else 0.0)
        for task, span in mine:
            assert span.end - span.start >= task.seconds


@given(programs())
def test_a_task_waits_for_the_first_tile_and_ends_after_the_last(tasks: list[Task]) -> None:
    spans, _ = run(tasks)
    for task, span in zip(tasks, spans, strict=True):
        for link in task.links:
            other, before = tasks[link.task], spans[link.task]
            assert span.start >= before.start + other.seconds / link.tiles
            assert span.end >= before.end + task.seconds / link.tiles
            if link.tiles == 1:
                assert span.start >= before.end


@given(st.lists(SECONDS, min_size=1, max_size=5), st.sampled_from((1, 2, 4, 8, 16)))
def test_a_chain_takes_as_long_as_its_tiles_one_by_one(lengths: list[float], tiles: int) -> None:
    tasks = [
        Task(UNITS[place], seconds, (Link(place - 1, tiles),) if place else ())
        for place, seconds in enumerate(lengths)
    ]
    done = [0.0] * tiles  # When the task before has done each tile.
    for seconds in lengths:
        free = 0.0
        for tile in range(tiles):
            free = done[tile] = max(free, done[tile]) + seconds / tiles
    assert run(tasks)[0][-1].end == done[-1]


def test_whole_tasks_one_after_another() -> None:
    tasks = [Task("dma", 3.0), Task("spu", 5.0, (Link(0),)), Task("dma", 4.0)]
    assert run(tasks)[0] == [Span(0, 3), Span(3, 8), Span(3, 7)]
    tiled = [Task("dma", 4.0), Task("spu", 8.0, (Link(0, 4),)), Task("vpu", 2.0, (Link(1, 2),))]
    # The VPU waits within its task: half of it after half of the SPU's, the rest after all.
    assert run(tiled)[0] == [Span(0, 4), Span(1, 9), Span(5, 10)]


@given(programs(), st.lists(SECONDS, min_size=len(UNITS), max_size=len(UNITS)))
def test_the_matrix_is_what_a_pass_does(tasks: list[Task], free: list[float]) -> None:
    assert apply(matrix(tasks), tuple(free)) == run(tasks, tuple(free))[1]


@given(programs(6), programs(6))
def test_the_matrix_of_passes_is_that_of_all_their_tasks(a: list[Task], b: list[Task]) -> None:
    later = [replace(t, links=tuple(replace(x, task=x.task + len(a)) for x in t.links)) for t in b]
    both = matrix([*a, *later])
    assert compose(matrix(b), matrix(a)) == both
    assert passes([(matrix(a), 1), (matrix(b), 1)]) == both
    assert passes([(both, 0)])[0] == (0.0, *([NEVER] * (len(UNITS) - 1)))


@given(programs(6), programs(6), st.integers(0, 40), st.integers(0, 40))
def test_many_passes_are_those_one_after_another(
    a: list[Task], b: list[Task], first: int, second: int
) -> None:
    one, other = matrix(a), matrix(b)
    chain = passes([])
    for each, times in ((one, first), (other, second)):
        for _ in range(times):
            chain = compose(each, chain)
    assert passes([(one, first), (other, second)]) == chain


@given(programs())
def test_the_period_is_what_passes_without_end_take(tasks: list[Task]) -> None:
    one = matrix(tasks)
    each = period(one)
    count, free = 500, IDLE
    for _ in range(count):
        free = apply(one, free)
    # Any number of passes takes that many periods, and at most what fills and drains the queues.
    slack = len(UNITS) * sum(task.seconds for task in tasks)
    assert count * each <= max(free) + 1e-6
    assert max(free) <= count * each + slack + 1e-6


@given(programs())
def test_no_unit_is_busy_for_longer_than_a_period(tasks: list[Task]) -> None:
    each = period(matrix(tasks))
    for unit in UNITS:
        assert sum(task.seconds for task in tasks if task.unit == unit) <= each + 1e-9
    assert each <= max(ends(run(tasks)[0])) + 1e-9


def test_a_period_is_less_than_a_pass_when_units_overlap() -> None:
    chain = [Task("dma", 3.0), Task("spu", 5.0, (Link(0),)), Task("host out", 2.0, (Link(1),))]
    assert max(ends(run(chain)[0])) == 10
    assert period(matrix(chain)) == 5
    # A load that waits for the SPU's first task, before the last load, is a loop of both units.
    loop = [Task("dma", 3.0), Task("spu", 5.0, (Link(0),)), Task("dma", 1.0, (Link(1),))]
    assert period(matrix(loop)) == pytest.approx(9)
