"""What is said of the turns, against the same computed from all of them at once."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpisgd import turn_statistics
from mpisgd.turn_statistics import Record, RecordBook, Records, TurnStatistics, percentiles, retold
from strategies import examples, record_of

times = st.integers(1, 1000).map(lambda n: n / 8)  # sums of these are exact
lists_of_turns = st.lists(
    st.builds(
        record_of,
        worker=st.integers(1, 3),
        staleness=st.integers(0, 12),
        round_trip=st.just(0.0) | times,
        computing=times,
        waiting=times,
        ahead=st.integers(-1, 12),
    ),
    max_size=40,
)


def counted(turns: list[Record], statistics: TurnStatistics | None = None) -> TurnStatistics:
    """Return the statistics, empty ones at first, with these turns counted one by one."""
    statistics = statistics or TurnStatistics()
    for turn in turns:
        statistics.count(records([turn]))
    return statistics


def records(turns: list[Record]) -> Records:
    return np.array(turns, np.float64).reshape(-1, len(Record._fields))


def naive_percentile(values: list[float], percent: int) -> float:
    """Return the least of the values that at least so many per cent of all do not exceed; 0 of none."""
    enough = [v for v in values if 100 * sum(other <= v for other in values) >= percent * len(values)]
    return min(enough, default=0)


@examples
@given(st.lists(times, max_size=40), st.integers(1, 100), st.integers(1, 100))
def test_percentiles(values: list[float], one: int, other: int) -> None:
    assert percentiles(values, one, other) == [naive_percentile(values, one), naive_percentile(values, other)]


@examples
@given(lists_of_turns)
def test_the_summary_is_of_all_turns(turns: list[Record]) -> None:
    """But for round trips of 0, which none had yet."""
    round_trips = [turn.round_trip for turn in turns if turn.round_trip]
    staleness = [turn.staleness for turn in turns]
    assert counted(turns).summary() == {
        "round_trip_p50": naive_percentile(round_trips, 50),
        "round_trip_p99": naive_percentile(round_trips, 99),
        "merge_weight": 0.0,
        "staleness_p50": naive_percentile(staleness, 50),
        "staleness_max": max(staleness, default=0),
        "turns_ahead_max": max((turn.ahead for turn in turns if turn.ahead >= 0), default=0),
    }


@examples
@given(lists_of_turns)
def test_the_histograms_have_every_turn_once_and_in_order(turns: list[Record]) -> None:
    details = counted(turns).details(10.0)
    for name, values in (
        ("staleness", [turn.staleness for turn in turns]),
        ("turns_ahead", [turn.ahead for turn in turns if turn.ahead >= 0]),  # but for first turns
    ):
        assert list(details[name].items()) == [(str(value), n) for value, n in sorted(Counter(values).items())]


@examples
@given(lists_of_turns, st.sampled_from([0.0, 16.0]))
def test_each_worker_has_its_own_round_trips_and_shares_of_time(turns: list[Record], seconds: float) -> None:
    workers = counted(turns).details(seconds)["workers"]
    assert list(workers) == sorted({str(turn.worker) for turn in turns})
    for worker, found in workers.items():
        own = [turn for turn in turns if turn.worker == int(worker)]
        round_trips = [turn.round_trip for turn in own if turn.round_trip]
        computing = sum(turn.computing for turn in own) / seconds if seconds else 0.0
        waiting = sum(turn.waiting for turn in own) / seconds if seconds else 0.0
        assert found == {
            "round_trip_p50": naive_percentile(round_trips, 50),
            "round_trip_p99": naive_percentile(round_trips, 99),
            "computing": computing,
            "waiting": waiting,
            "exchanging": max(0.0, 1 - computing - waiting),
        }


@examples
@given(st.lists(st.lists(st.tuples(times, times), min_size=3, max_size=3), max_size=20), st.integers(1, 7))
def test_rounds_in_lock_step_are_turns_of_all_that_are_not_stale(
    rounds: list[list[tuple[float, float]]], in_a_report: int
) -> None:
    """Each round has three workers' (round trip, computing); what waits, waits for the sum."""
    in_reports, one_by_one = TurnStatistics(), TurnStatistics()
    for start in range(0, len(rounds), in_a_report):
        some = np.array(rounds[start : start + in_a_report], np.float32)
        in_reports.count_rounds(some[:, :, 0], some[:, :, ::-1].sum(axis=0))
    for of_workers in rounds:
        for worker, (round_trip, computing) in enumerate(of_workers, 1):
            turn = record_of(worker=worker, round_trip=round_trip, computing=computing, waiting=round_trip, ahead=-1)
            counted([turn], one_by_one)
    assert in_reports.summary() == one_by_one.summary()
    assert in_reports.details(64.0)["workers"] == one_by_one.details(64.0)["workers"]
    assert in_reports.details(64.0)["staleness"] == {}


def test_the_merge_weight_is_the_mean_gain_of_all_changes() -> None:
    statistics = counted([record_of(changes_sent=3, gains=1.5), record_of(changes_sent=1, gains=1.0)])
    assert statistics.summary()["merge_weight"] == 2.5 / 4


def test_round_trips_are_of_the_latest_turns_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each worker, and of all; everything else is of all turns."""
    monkeypatch.setattr(turn_statistics, "RECENT_TURNS", 3)
    turns = [
        record_of(staleness=9, round_trip=8.0, computing=1.0, ahead=5),
        *(record_of(round_trip=t, computing=1.0) for t in (1.0, 2.0, 3.0)),
        *(record_of(worker=2, round_trip=t, computing=1.0) for t in (4.0, 5.0)),
    ]
    statistics = counted(turns)
    assert statistics.summary()["round_trip_p50"] == 4.0
    assert statistics.summary()["staleness_max"] == 9
    details = statistics.details(8.0)
    assert details["workers"]["1"]["round_trip_p99"] == 3.0
    assert details["workers"]["1"]["computing"] == 0.5
    assert details["turns_ahead"] == {"0": 5, "5": 1}


@examples
@given(st.lists(lists_of_turns, max_size=4))
def test_turns_counted_at_once_are_those_one_by_one(batches: list[list[Record]]) -> None:
    """The latest round trips among them, where there are more than are kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(turn_statistics, "RECENT_TURNS", 16)
        at_once, one_by_one = TurnStatistics(), TurnStatistics()
        for turns in batches:
            at_once.count(records(turns))
            counted(turns, one_by_one)
        assert at_once.summary() == one_by_one.summary()
        assert at_once.details(16.0) == one_by_one.details(16.0)


@examples
@given(st.lists(lists_of_turns, max_size=4))
def test_a_book_has_the_records_noted_since_they_were_last_taken(batches: list[list[Record]]) -> None:
    book = RecordBook(40)
    for turns in batches:
        for turn in turns:
            assert not book.is_full
            book.note(turn)
        assert book.is_full == (len(turns) == 40)
        np.testing.assert_array_equal(book.take(), records(turns))


@examples
@given(lists_of_turns, st.lists(lists_of_turns, max_size=4))
def test_a_book_has_room_for_any_number_at_once(before: list[Record], batches: list[list[Record]]) -> None:
    book = RecordBook(41)
    for turn in before:
        book.note(turn)
    for turns in batches:
        book.note_all(records(turns))
        before = before + turns
        assert book.is_full == (len(before) >= 41)
    np.testing.assert_array_equal(book.take(), records(before))
    assert not book.is_full
    book.note(record_of())


# --- turns of a node, as the server has them


def test_what_went_over_the_wire_is_counted_once_for_the_turns_of_a_node() -> None:
    """A change that the node merged by half, and the server by half of that, is merged by a quarter."""
    turns = [
        record_of(worker=2, rows=5, staleness=1, changes_sent=4, changes=6, gains=2.0, round_trip=0.5, ahead=0),
        record_of(worker=1, rows=6, staleness=0, changes_sent=4, changes=4, gains=2.0, round_trip=0.5, ahead=3),
        record_of(worker=1, rows=7, staleness=0, computing=0.25, round_trip=0.5, ahead=4),
    ]
    update = record_of(
        worker=3, rows=18, staleness=10, changes_sent=6, changes=7, gains=3.0, bytes_up=100, bytes_down=50,
        round_trip=0.125, merged_at=9.0,
    )  # fmt: skip
    made = [Record(*turn) for turn in retold(records(turns), [3, 8], 2, update).tolist()]
    assert [(turn.worker, turn.rows, turn.staleness, turn.ahead) for turn in made] == [
        (8, 5, 11, 2), (3, 6, 10, 5), (3, 7, 10, 6),
    ]  # fmt: skip
    assert [turn.round_trip for turn in made] == [0.5, 0.125, 0]
    assert [turn.merged_at for turn in made] == 3 * [9.0]
    of_wire = [(turn.changes_sent, turn.changes, turn.gains, turn.bytes_up, turn.bytes_down) for turn in made]
    assert of_wire == [(6, 7, 1.5, 100, 50), (0, 0, 0, 0, 0), (0, 0, 0, 0, 0)]
    assert made[2].computing == 0.25
