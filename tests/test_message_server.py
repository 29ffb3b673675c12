"""The server by messages: what it counts, measures and answers, one message after the other."""

from __future__ import annotations

from typing import Any, cast
from unittest.mock import Mock

import numpy as np
import pytest

from mpisgd import message_server
from mpisgd.channel import Channel, Letter, Nodes
from mpisgd.config import Config
from mpisgd.crew import Crew
from mpisgd.job import Job
from mpisgd.merging import PLAINLY
from mpisgd.message_server import LETTERS_BEFORE_THE_REST, MessageServer
from mpisgd.messages import Bytes, Tag
from mpisgd.monitor import Monitor
from mpisgd.schedule import Schedule
from mpisgd.turn_statistics import Record
from mpisgd.updates import ReplyHeader, UpdateHeader, UpdateRoom, unpack_reply
from mpisgd.weights import ServerWeights
from strategies import record_of

COLUMNS, ROWS = 3, 100
CONSTANT = Schedule(0.5, 0.0, 0.0, learning_rows=ROWS)


class Post:
    """A server with a few workers, their letters put in by the test; keeps the replies, and the turns counted."""

    def __init__(self, nodes: Nodes | None = None, schedule: Schedule = CONSTANT, **settings: Any) -> None:
        nodes = nodes or {1: [1], 2: [2]}
        workers = max(map(max, nodes.values()))
        self.letters: list[Letter] = []
        self.replies: list[tuple[int, ReplyHeader]] = []
        self.counted: list[Record] = []
        self.monitor = Mock(stop_reason=None, schedule=schedule)
        self.monitor.count_turns = lambda turns: self.counted.extend(Record(*turn) for turn in turns.tolist())
        self.monitor.check_limits.side_effect = self.check_limits
        self.monitor.look.return_value = False
        self.job = Job(Config(mode="async", regularization=0.0, bias=False, **settings), COLUMNS, ROWS, workers=workers)
        channel = Mock(workers=range(1, workers + 1), now=lambda: 5.0, server_reply=self.keep)
        self.crew = crew = Mock(look=lambda: self.letters.pop(0) if self.letters else None)
        crew.send_samples.return_value = False
        vector = np.zeros(COLUMNS, np.float32)
        weights = ServerWeights(vector, vector)
        self.server = MessageServer(
            cast(Channel, channel), self.job, weights, cast(Monitor, self.monitor), cast(Crew, crew), nodes
        )

    def check_limits(self, rows: int) -> None:
        if self.job.is_done(rows):
            self.monitor.stop_reason = "passes"

    def keep(self, worker: int, reply: Bytes) -> None:
        self.replies.append((worker, unpack_reply(reply)[0]))

    def merge(self, worker: int, rows: int, version: int = 0, round_trip: float = 0.0) -> None:
        """Let a worker's turn come that changed every weight by 1."""
        room = UpdateRoom(COLUMNS)
        content = room.values(COLUMNS)
        content[:] = 1
        update = room.seal(UpdateHeader(version, rows, rows, COLUMNS, 1.0, round_trip, 0.0, 0.0), content)
        self.letters.append(Letter(Tag.UPDATE, worker, update))
        assert self.server._work()

    def merge_of_node(self, delegate: int, places: list[int], version: int, round_trip: float = 0.0) -> None:
        """Let an update come with turns of ten rows by the workers at these places of a node."""
        turns = [
            record_of(worker=place, rows=10, moved=5, staleness=k, changes_sent=4, changes=4, gains=2.0, ahead=k - 1)
            for k, place in enumerate(places)
        ]
        self.letters.append(Letter(Tag.TURNS, delegate, np.array(turns, np.float64).view(np.uint8).ravel()))
        assert self.server._work()
        self.merge(delegate, 10 * len(places), version, round_trip)


def test_a_turn_is_answered_at_once_and_the_one_that_ends_the_last_pass_with_the_word_to_stop() -> None:
    post = Post(passes=1.0)
    for turn in range(1, 5):
        post.merge(worker=1 + turn % 2, rows=25)
        worker, told = post.replies[-1]
        assert (len(post.replies), worker) == (turn, 1 + turn % 2)
        assert (told.version, told.rows, told.stop) == (turn, 25 * turn, turn == 4)


def test_an_update_is_damped_by_the_steps_that_its_worker_took(monkeypatch: pytest.MonkeyPatch) -> None:
    """Smaller ones where it was ahead, larger ones where it was behind; those of a node count together."""
    schedule, steps = Schedule(0.5, 1.0, 1.0, ROWS), list[float]()
    post = Post({1: [1], 2: [2, 3]}, schedule, passes=None)
    monkeypatch.setattr(
        message_server, "turn_size", lambda job, step_size, rows, moved: steps.append(step_size) or PLAINLY
    )
    for _ in range(30):
        post.merge(worker=1, rows=40)
    post.merge_of_node(2, [1, 2], version=30)
    post.merge_of_node(2, [1, 2], version=31)
    of_worker, of_node, told = post.job.even_steps(schedule), post.job.even_steps(schedule, workers=2), 0
    for rows in range(0, 30 * 40, 40):  # that the worker was told of when it took its turn
        assert steps.pop(0) == of_worker.after(rows).step_size(rows)
        of_worker.count(40)
    for rows in (0, 30 * 40 + 20):  # the first came late, but its turns were taken in the beginning
        assert (told := steps.pop(0)) == of_node.after(rows).step_size(rows)
        of_node.count(20)
    assert of_worker.after(rows).step_size(rows) < schedule.step_size(rows) < told


def test_who_is_too_far_ahead_is_answered_when_the_others_have_caught_up_or_all_is_over() -> None:
    post = Post(passes=None, max_staleness=0)
    post.merge(worker=1, rows=1)
    assert post.replies == []
    post.merge(worker=2, rows=1)
    assert sorted(worker for worker, _ in post.replies) == [1, 2]
    post.merge(worker=2, rows=1)
    post.monitor.stop_reason = "signal SIGINT"
    assert post.server._work()
    assert [(worker, told.stop) for worker, told in post.replies[2:]] == [(2, True)]


def test_turns_are_counted_when_the_book_is_full_and_when_the_weights_are_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(message_server, "RECORDS", 2)
    post = Post(passes=None)
    for rows in (5, 6, 7):
        post.merge(1, rows)
    assert [turn.rows for turn in post.counted] == [5, 6]
    post.server._snapshot()
    assert [turn.rows for turn in post.counted] == [5, 6, 7]


@pytest.mark.parametrize("averaging", [False, True])
def test_a_snapshot_stays_as_it_is(averaging: bool) -> None:
    post = Post(passes=None, averaging=averaging)
    post.merge(1, 10)
    measured = post.server._snapshot()
    before = measured.weights()
    post.merge(1, 10)
    assert (post.server._snapshot().weights() != before).any()
    np.testing.assert_array_equal(measured.weights(), before)


def test_the_rest_is_done_when_no_letter_has_come_and_after_many_all_the_same() -> None:
    post = Post(passes=None)
    assert not post.server._work()
    assert post.monitor.look.call_count == post.monitor.check_limits.call_count == 1
    for _ in range(2 * LETTERS_BEFORE_THE_REST):
        post.merge(1, 1)
    assert post.monitor.look.call_count == post.monitor.check_limits.call_count == 3


# --- several nodes


def test_the_turns_of_a_node_come_in_one_update_and_count_as_turns() -> None:
    """The versions that workers are told of count turns, so those of others make an update the staler."""
    post = Post({1: [1, 3], 2: [2]}, passes=None)
    post.merge_of_node(1, [1, 2, 2], version=0)
    post.merge(2, rows=7, version=0)
    post.merge_of_node(1, [2, 1], version=3, round_trip=0.25)
    assert [(worker, told.version, told.rows) for worker, told in post.replies] == [(1, 3, 30), (2, 4, 37), (1, 6, 57)]
    post.server._snapshot()
    assert [turn.worker for turn in post.counted] == [1, 3, 3, 2, 3, 1]
    assert [turn.rows for turn in post.counted] == [10, 10, 10, 7, 10, 10]
    assert [turn.staleness for turn in post.counted] == [0, 1, 2, 3, 1, 2]
    assert [turn.round_trip for turn in post.counted if turn.worker == 1] == [0, 0.25]
    assert {turn.merged_at for turn in post.counted} == {5.0}


def test_a_node_is_as_far_ahead_as_its_slowest_worker_and_its_delegate_is_told_to_stop_for_all() -> None:
    post = Post({1: [1, 3], 2: [2]}, passes=0.9)
    post.merge(2, rows=1)
    post.merge_of_node(1, [1, 2, 1], version=0)
    post.merge_of_node(1, [2, 1, 1], version=3)
    post.merge_of_node(1, [2, 1, 1], version=6)
    assert post.replies[-1][1].stop
    assert post.crew.tell.call_args.args == (1, 3)
    post.server._snapshot()
    assert [turn.ahead for turn in post.counted[1:]] == [-1, 0, 1, -1, 0, 1, -1, 1, 2]
    assert post.counted[1].bytes_down == 0 < post.counted[4].bytes_down
    assert post.counted[2].bytes_up == 0 < post.counted[1].bytes_up
