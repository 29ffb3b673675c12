"""A worker's pace: it computes while its updates travel, unless these take much longer than its turns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpisgd.mailbox import LONG_WAIT, TURNS_TO_KNOW, Pace
from strategies import examples

times = st.floats(1e-6, 1e3)
TURN = 0.25  # s
LONG, SHORT = LONG_WAIT * TURN, LONG_WAIT * TURN / 2


def paced(round_trips: list[float]) -> Pace:
    pace = Pace(may_overlap=True)
    for round_trip in round_trips:
        pace.count(TURN, round_trip)
    return pace


@pytest.mark.parametrize("round_trip", [LONG, SHORT])
def test_at_first_a_worker_computes_while_an_update_travels(round_trip: float) -> None:
    for turns in range(TURNS_TO_KNOW):
        assert paced([round_trip] * turns).overlaps


@examples
@given(st.lists(st.tuples(times, times), max_size=20))
def test_it_stops_for_good_where_round_trips_are_long(later: list[tuple[float, float]]) -> None:
    pace = paced([LONG] * TURNS_TO_KNOW)
    assert not pace.overlaps
    for turn, round_trip in later:
        pace.count(turn, round_trip)
        assert not pace.overlaps


@examples
@given(st.lists(st.tuples(times, times), max_size=20))
def test_it_goes_on_for_good_where_they_are_short(later: list[tuple[float, float]]) -> None:
    pace = paced([SHORT] * TURNS_TO_KNOW)
    assert pace.overlaps
    for turn, round_trip in later:
        pace.count(turn, round_trip)
        assert pace.overlaps


def test_a_few_that_are_out_of_the_ordinary_decide_nothing() -> None:
    few = TURNS_TO_KNOW // 2 - 1
    assert paced([1000 * LONG] * few + [SHORT] * (TURNS_TO_KNOW - few)).overlaps
    assert not paced([SHORT / 1000] * few + [LONG] * (TURNS_TO_KNOW - few)).overlaps


def test_turns_that_know_of_no_round_trip_are_not_counted() -> None:
    assert paced([0.0] * (2 * TURNS_TO_KNOW)).overlaps
    assert paced([0.0] * TURNS_TO_KNOW + [LONG] * (TURNS_TO_KNOW - 1)).overlaps
    assert not paced([0.0] * TURNS_TO_KNOW + [LONG] * TURNS_TO_KNOW).overlaps


@examples
@given(st.lists(st.tuples(times, st.just(0.0) | times), max_size=3 * TURNS_TO_KNOW))
def test_a_worker_that_must_not_get_ahead_never_does(turns: list[tuple[float, float]]) -> None:
    pace = Pace(may_overlap=False)
    assert not pace.overlaps
    for turn, round_trip in turns:
        pace.count(turn, round_trip)
        assert not pace.overlaps
