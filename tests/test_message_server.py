"""The server by messages: what it counts, measures and answers, one message after the other."""

from __future__ import annotations

from typing import Any, cast
from unittest.mock import Mock

import numpy as np
import pytest

from mpisgd import message_server
from mpisgd.channel import Channel, Letter
from mpisgd.config import Config
from mpisgd.crew import Crew
from mpisgd.job import Job
from mpisgd.message_server import LETTERS_BEFORE_THE_REST, MessageServer
from mpisgd.messages import Bytes, Tag
from mpisgd.monitor import Monitor
from mpisgd.turn_statistics import FIELDS
from mpisgd.updates import ReplyHeader, UpdateHeader, UpdateRoom, unpack_reply
from mpisgd.weights import ServerWeights

COLUMNS, ROWS = 3, 100


class Post:
    """A server with two workers, their letters put in by the test; keeps the replies, and what is counted of turns."""

    def __init__(self, **settings: Any) -> None:
        self.letters: list[Letter] = []
        self.replies: list[tuple[int, ReplyHeader]] = []
        self.counted: list[float] = []  # the rows of each turn
        self.monitor = Mock(stop_reason=None, step_size=lambda rows: 0.5)
        self.monitor.count_turns = lambda turns: self.counted.extend(turns[:, FIELDS["rows"]].tolist())
        self.monitor.check_limits.side_effect = self.check_limits
        self.monitor.look.return_value = False
        self.job = Job(Config(mode="async", regularization=0.0, bias=False, **settings), COLUMNS, ROWS, workers=2)
        channel = Mock(workers=range(1, 3), now=lambda: 0.0, server_reply=self.keep)
        crew = Mock(look=lambda: self.letters.pop(0) if self.letters else None)
        crew.send_samples.return_value = False
        vector = np.zeros(COLUMNS, np.float32)
        weights = ServerWeights(vector, vector)
        self.server = MessageServer(
            cast(Channel, channel), self.job, weights, cast(Monitor, self.monitor), cast(Crew, crew)
        )

    def check_limits(self, rows: int) -> None:
        if self.job.is_done(rows):
            self.monitor.stop_reason = "passes"

    def keep(self, worker: int, reply: Bytes) -> None:
        self.replies.append((worker, unpack_reply(reply)[0]))

    def merge(self, worker: int, rows: int) -> None:
        """Let a worker's turn come that changed every weight by 1."""
        room = UpdateRoom(COLUMNS)
        content = room.values(COLUMNS)
        content[:] = 1
        update = room.seal(UpdateHeader(0, rows, rows, COLUMNS, 1.0, 0.0, 0.0, 0.0), content)
        self.letters.append(Letter(Tag.UPDATE, worker, update))
        assert self.server._work()


def test_a_turn_is_answered_at_once_and_the_one_that_ends_the_last_pass_with_the_word_to_stop() -> None:
    post = Post(passes=1.0)
    for turn in range(1, 5):
        post.merge(worker=1 + turn % 2, rows=25)
        worker, told = post.replies[-1]
        assert (len(post.replies), worker) == (turn, 1 + turn % 2)
        assert (told.version, told.rows, told.stop) == (turn, 25 * turn, turn == 4)


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
    assert post.counted == [5, 6]
    post.server._snapshot()
    assert post.counted == [5, 6, 7]


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
