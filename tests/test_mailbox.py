"""A worker's end of the exchange: what its updates say, and its pace: when it waits for their replies."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpisgd.channel import Channel
from mpisgd.config import Config
from mpisgd.job import Job
from mpisgd.learner import TurnRows
from mpisgd.mailbox import LONG_WAIT, TURNS_TO_KNOW, Mailbox, Pace, Turn
from mpisgd.messages import Bytes
from mpisgd.turn_keys import WorkerKeys
from mpisgd.updates import ALL_COLUMNS, Keys, ReplyHeader, ReplyRoom, UpdateHeader, unpack_update
from mpisgd.weights import WorkerWeights
from strategies import examples, rows_from

times = st.floats(1e-6, 1e3)
TURN = 0.25  # s
COLUMNS = 3
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


class Post:
    """In the place of a worker's channel, with a clock of its own: keeps updates, and a reply that is put here."""

    def __init__(self) -> None:
        self.time = 0.0
        self.updates: list[tuple[UpdateHeader, Keys | None, Keys | None]] = []
        self.reply: Bytes | None = None
        self.waits = 0

    def now(self) -> float:
        return self.time

    def worker_expect_replies(self, largest: int) -> None: ...

    def worker_reuse_update(self) -> None: ...

    def worker_send_update(self, update: Bytes) -> None:
        header, _, keys, wanted = unpack_update(update.copy())
        self.updates.append((header, keys, wanted))

    def worker_poll_reply(self) -> Bytes | None:
        return self.reply

    def worker_wait_reply(self) -> Bytes:
        self.waits += 1
        assert self.reply is not None
        return self.reply

    def put(self, version: int, *, stop: bool = False, rows: int = 0, values: int = COLUMNS) -> None:
        room = ReplyRoom(values)
        content = room.values(values)
        content[:] = 0
        self.reply = room.seal(ReplyHeader(stop, version, rows, 1.0, 0.0), content)


def mailbox(post: Post, keys: WorkerKeys | None = None, **settings: Any) -> Mailbox:
    job = Job.planned(Config(mode="async", bias=False, **settings), COLUMNS, 100, workers=2, row_length=1.0)
    return Mailbox(cast("Channel", post), job, WorkerWeights(np.zeros(COLUMNS, np.float32)), keys)


def take_turn(box: Mailbox, post: Post, *, heard_after: float | None = None, turn: int = ALL_COLUMNS) -> UpdateHeader:
    """Take a turn of a second, hear the reply so long after it began, and send it; return what the update says."""
    began = post.time
    if heard_after is not None:
        post.time = began + heard_after
        assert not box.look()
    post.time = began + 1.0
    box.end_turn(Turn(TurnRows(10, 5), turn, began, 1.0))
    return post.updates[-1][0]


@pytest.mark.parametrize(("heard_after", "version"), [(0.25, 7), (0.75, 1)])
def test_an_update_counts_from_the_weights_that_most_of_its_turn_was_computed_from(
    heard_after: float, version: int
) -> None:
    post = Post()
    box = mailbox(post)
    assert take_turn(box, post).version == 0
    post.put(version=7, rows=50)
    header = take_turn(box, post, heard_after=heard_after)
    assert (header.version, header.round_trip) == (version, heard_after)
    assert (box.version, box.rows) == (8, 60)  # with the update under way


def test_a_turn_by_keys_counts_from_the_weights_it_began_with_and_asks_for_those_of_the_turn_after_the_next() -> None:
    post = Post()
    keys = WorkerKeys(rows_from([[(0, 1.0)], [(1, 1.0)], [(2, 1.0)]], COLUMNS), turn_rows=1)
    box = mailbox(post, keys)
    first = take_turn(box, post, turn=0)
    assert (first.turn, first.wanted) == (0, 2)
    post.put(version=7, values=1)
    second = take_turn(box, post, turn=1, heard_after=0.1)
    assert (second.version, second.turn, second.wanted) == (1, 1, 0)
    told = [[None if some is None else some.tolist() for some in lists] for _, *lists in post.updates]
    assert told == [[[0], [2]], [[1], None]]


def test_a_worker_that_must_not_get_ahead_waits_as_soon_as_it_has_sent() -> None:
    post = Post()
    box = mailbox(post, max_staleness=3)
    post.put(version=1)
    take_turn(box, post)
    assert (post.waits, box.look()) == (1, False)


def test_the_word_to_stop_is_heard_with_the_reply() -> None:
    post = Post()
    box = mailbox(post)
    take_turn(box, post)
    assert (box.look(), box.stopped) == (True, False)
    post.put(version=1, stop=True)
    box.wait()
    assert box.stopped
