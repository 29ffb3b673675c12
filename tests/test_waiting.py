"""Waiting: yields the core at first, then sleeps, as long as the last wait teaches; by a clock that is not real."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpisgd import waiting
from mpisgd.waiting import (
    LONG,
    LONGEST_OF_ALL,
    LONGEST_SLEEP,
    PART,
    PART_OF_LONG,
    SHORTEST_SLEEP,
    SLEEPS_OF_A_LENGTH,
    Backoff,
    poll,
)
from strategies import examples

YIELD = 1e-6  # s that others take of the core


class Clock:
    """In the place of both `time` and `os`: moves on only as one yields and sleeps, and remembers how."""

    def __init__(self) -> None:
        self.time = 100.0
        self.yields = 0
        self.sleeps: list[float] = []

    def perf_counter(self) -> float:
        return self.time

    def sched_yield(self) -> None:
        self.yields += 1
        self.time += YIELD

    def sleep(self, duration: float) -> None:
        self.sleeps.append(duration)
        self.time += duration

    def forget(self) -> None:
        self.yields, self.sleeps = 0, []

    def wait(self, backoff: Backoff, duration: float) -> float:
        """Let pause what backs off until at least this time has passed; return what has."""
        began = self.time
        while self.time - began < duration:
            backoff.pause()
        backoff.reset()
        return self.time - began


@contextmanager
def fake_clock() -> Iterator[Clock]:
    clock = Clock()
    with mock.patch.object(waiting, "time", clock), mock.patch.object(waiting, "os", clock):
        yield clock


@pytest.fixture
def clock() -> Iterator[Clock]:
    with fake_clock() as clock:
        yield clock


def pause(backoff: Backoff, times: int) -> None:
    for _ in range(times):
        backoff.pause()


def test_who_waits_for_the_first_time_yields_and_then_sleeps(clock: Clock) -> None:
    pause(Backoff(5), 7)
    assert clock.yields == 5
    assert clock.sleeps == [SHORTEST_SLEEP] * 2


def test_who_waits_for_very_long_sleeps_for_a_small_part_of_it(clock: Clock) -> None:
    clock.wait(Backoff(0), 100.0)
    waited = 0.0
    for sleep in clock.sleeps:
        assert sleep <= max(LONGEST_SLEEP, waited * PART_OF_LONG) * (1 + 1e-9)
        waited += sleep
    assert clock.sleeps[-1] == LONGEST_OF_ALL
    assert len(clock.sleeps) < 4_000  # of LONGEST_SLEEP they would be 25,000


def test_after_a_short_wait_it_yields_first_again(clock: Clock) -> None:
    backoff = Backoff(5)
    assert clock.wait(backoff, 3 * SHORTEST_SLEEP) < LONG
    clock.forget()
    pause(backoff, 5)
    assert (clock.yields, clock.sleeps) == (5, [])
    pause(backoff, 1)
    assert clock.yields == 5
    assert len(clock.sleeps) == 1


def test_after_a_long_wait_it_sleeps_at_once_a_part_of_that(clock: Clock) -> None:
    backoff = Backoff(5)
    waited = clock.wait(backoff, 2 * LONG)
    clock.forget()
    pause(backoff, 1)
    assert clock.yields == 0
    assert clock.sleeps == pytest.approx([PART * waited])


def test_it_unlearns_a_long_wait_from_a_short_one(clock: Clock) -> None:
    backoff = Backoff(5)
    clock.wait(backoff, 2 * LONG)
    assert clock.wait(backoff, YIELD) < LONG  # one sleep: a part of the wait before it
    clock.forget()
    pause(backoff, 5)
    assert (clock.yields, clock.sleeps) == (5, [])


def test_finding_work_at_once_is_no_wait_to_learn_from(clock: Clock) -> None:
    backoff = Backoff(5)
    clock.wait(backoff, 2 * LONG)
    clock.forget()
    backoff.reset()
    pause(backoff, 1)
    assert clock.yields == 0
    assert len(clock.sleeps) == 1


def test_sleeps_of_a_length_are_few_before_they_are_twice_as_long(clock: Clock) -> None:
    lengths = 5
    pause(Backoff(0), lengths * SLEEPS_OF_A_LENGTH)
    expected = [SHORTEST_SLEEP * 2**doubled for doubled in range(lengths) for _ in range(SLEEPS_OF_A_LENGTH)]
    assert clock.sleeps == pytest.approx(expected)


def test_so_they_are_after_a_long_wait(clock: Clock) -> None:
    backoff = Backoff(5, longest_sleep=1.0)
    waited = clock.wait(backoff, 2 * LONG)
    clock.forget()
    pause(backoff, 2 * SLEEPS_OF_A_LENGTH)
    assert clock.sleeps == pytest.approx(
        [PART * waited] * SLEEPS_OF_A_LENGTH + [2 * PART * waited] * SLEEPS_OF_A_LENGTH
    )


@examples
@given(
    st.integers(0, 4),
    st.sampled_from([SHORTEST_SLEEP, 3e-4]),
    st.sampled_from([3e-4, LONGEST_SLEEP]),
    st.lists(st.floats(0.0, 0.05), min_size=1, max_size=4),
)
def test_sleeps_are_between_the_shortest_and_the_longest(
    yields: int, shortest: float, longest: float, waits: list[float]
) -> None:
    with fake_clock() as clock:
        backoff = Backoff(yields, shortest_sleep=shortest, longest_sleep=longest)
        for duration in waits:
            clock.wait(backoff, duration)
        assert all(shortest <= duration <= longest for duration in clock.sleeps)


def test_a_poll_pauses_only_where_there_is_no_work_meanwhile(clock: Clock) -> None:
    work, log = [True, False, True, False, False], []

    def done() -> bool:
        log.append("done?")
        return not work

    def meanwhile() -> bool:
        log.append("work?")
        return work.pop(0)

    poll(done, meanwhile, Backoff(100))
    assert log == ["done?", "work?"] * 5 + ["done?"]
    assert (clock.yields, clock.sleeps) == (3, [])


def test_a_poll_that_found_work_yields_first_again(clock: Clock) -> None:
    work = [False, False, False, True, False, False]
    poll(lambda: not work, lambda: work.pop(0), Backoff(2))
    assert clock.yields == 2 + 2
    assert len(clock.sleeps) == 1


def test_a_poll_that_is_done_does_nothing(clock: Clock) -> None:
    poll(lambda: True, None, Backoff(0))
    assert (clock.yields, clock.sleeps) == (0, [])


def test_a_poll_teaches_its_backoff_how_long_it_took(clock: Clock) -> None:
    backoff = Backoff(5)
    end = clock.time + 2 * LONG
    poll(lambda: clock.time >= end, None, backoff)
    clock.forget()
    pause(backoff, 1)
    assert clock.yields == 0
    assert clock.sleeps[0] >= PART * 2 * LONG
