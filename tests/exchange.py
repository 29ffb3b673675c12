"""The two ends of the asynchronous exchange in one process, for its messages to come in any order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from mpisgd.exchange_loops import PAIR, Columns
from mpisgd.messages import Bytes
from mpisgd.updates import (
    ALL_COLUMNS,
    Keys,
    ReplyHeader,
    ReplyRoom,
    UpdateHeader,
    UpdateRoom,
    largest_reply,
    unpack_reply,
    unpack_update,
)
from mpisgd.vector_loops import TurnSize
from mpisgd.weights import ServerWeights, WorkerWeights
from strategies import vectors

COLUMNS = 6
TURN_SIZE = TurnSize(1.0, 0.1, 0.0)
Vector = NDArray[np.float64]


def pairs(places: Iterable[int], values: Iterable[float]) -> NDArray[np.void]:
    """Return the places with their values as a message has them."""
    return np.array(list(zip(places, values, strict=True)), PAIR)


def at(names: Iterable[int]) -> Keys:
    """Return a list of columns as a message has it."""
    return np.array(list(names), np.int32)


ALL = at(range(COLUMNS))


def curvatures(curved: bool, columns: int = COLUMNS) -> NDArray[np.float32]:
    """Return the curvature along each weight: 0, 0.5, 1, ..., or without any 0, so that updates are plainly added."""
    return np.arange(columns).astype(np.float32) * np.float32(0.5 if curved else 0)


@dataclass
class Worker:
    """A worker, its update and reply under way, and in float64 all it ever changed and sent.

    Of the columns of its turns, there again and again, the update of a turn wants those of the turn after the next.
    """

    weights: WorkerWeights
    turns: list[Columns]  # the columns of each, None: all
    turn: int = 0  # the one under way
    room: UpdateRoom = field(default_factory=lambda: UpdateRoom(COLUMNS))
    replies: ReplyRoom = field(default_factory=lambda: ReplyRoom(COLUMNS))  # the server's
    update: Bytes | None = None
    reply: Bytes | None = None
    wanted: Columns = None  # with the reply that is due
    heard: Columns = None  # with the last reply
    unsent_steps: bool = False
    heard_version: int = 0
    version: int = 0
    turn_version: int = 0
    made: Vector = field(default_factory=lambda: np.zeros(COLUMNS))
    sent: Vector = field(default_factory=lambda: np.zeros(COLUMNS))

    @property
    def waits(self) -> bool:
        return self.update is not None or self.reply is not None

    def columns(self, ahead: int = 0) -> Columns:
        """Return the columns of the turn under way, or of one so many turns on."""
        return self.turns[(self.turn + ahead) % len(self.turns)]


class Exchange:
    """A server and some workers, each with at most one update under way, as in the program.

    With `turns`, the columns of each worker's turns, they exchange by keys.
    """

    def __init__(
        self,
        workers: int,
        threshold: float = 0.0,
        initial: NDArray[np.float32] | None = None,
        *,
        curved: bool = False,
        turns: list[list[Keys]] | None = None,
    ) -> None:
        initial = np.zeros(COLUMNS, np.float32) if initial is None else initial
        self.initial, self.threshold = initial.astype(np.float64), threshold
        self.server = ServerWeights(initial, curvatures(curved))
        self.workers = [
            Worker(WorkerWeights(initial), [None] if turns is None else [*turns[number]]) for number in range(workers)
        ]

    def take_step(self, number: int, changes: NDArray[np.float32], decay: float = 1.0) -> None:
        """Change a worker's weights as a mini-batch step does: all by a factor, some of its turn's by an amount."""
        worker = self.workers[number]
        columns = worker.columns()
        if columns is not None:
            changes = np.where(np.isin(ALL, columns), changes, np.float32(0))
        local = worker.weights.local
        local.scale *= decay
        touched = np.flatnonzero(changes)
        local.vector[touched] += changes[touched] * np.float32(1 / local.scale)
        worker.made += changes
        worker.unsent_steps = True

    def send(self, number: int) -> None:
        worker = self.workers[number]
        if worker.waits:
            return
        columns, worker.wanted = worker.columns(), worker.columns(ahead=2)
        content, decay, changes = worker.weights.take_turn(self.threshold, columns, worker.room)
        if content.dtype == PAIR:
            where = content["place"] if columns is None else columns[content["place"]]
            worker.sent[where] += content["value"]
        else:
            worker.sent[ALL if columns is None else columns] += content
        if columns is None or worker.wanted is None:
            header = UpdateHeader(worker.turn_version, 1, 1, changes, decay, 0.0, 0.0, 0.0)
            worker.update = worker.room.seal(header, content)
        else:
            header = UpdateHeader(worker.turn_version, 1, 1, changes, decay, 0.0, 0.0, 0.0, turn=0, wanted=1)
            worker.update = worker.room.seal(header, content, columns, worker.wanted)
        worker.version += 1
        worker.turn_version = worker.version  # the next turn begins at once
        worker.turn += 1
        worker.unsent_steps = False

    def serve(self, number: int) -> None:
        worker = self.workers[number]
        if worker.update is None:
            return
        header, content, keys, wanted = unpack_update(worker.update)
        by_keys = header.turn != ALL_COLUMNS
        staleness = self.server.version - header.version
        self.server.add(keys if by_keys else None, content, header.decay, staleness, TURN_SIZE)
        current = self.server.current
        told = ReplyHeader(False, self.server.version, 0, current.scale, self.server.log_folded)
        if by_keys:
            content = self.server.at(wanted, worker.replies)
        else:
            content = self.server.changes_since(worker.heard_version, worker.replies)
        worker.reply = worker.replies.seal(told, content)
        assert len(worker.reply) <= largest_reply(COLUMNS)
        worker.heard_version, worker.update = self.server.version, None

    def hear(self, number: int) -> None:
        worker = self.workers[number]
        if worker.reply is None:
            return
        header, content = unpack_reply(worker.reply)
        worker.weights.hear(header, worker.wanted, content)
        worker.version, worker.heard, worker.reply = header.version, worker.wanted, None

    def exchange(self, number: int) -> None:
        """See a worker's update under way to its end, then one more exchange."""
        self.serve(number)
        self.hear(number)
        self.send(number)
        self.serve(number)
        self.hear(number)

    def settle(self) -> None:
        """Let every worker send all it has, and then hear of what the others sent, of all columns."""
        self.threshold = 0.0
        for worker in self.workers:
            worker.turns = [None if columns is None else ALL for columns in worker.turns]
        for _ in range(2):
            for number in range(len(self.workers)):
                self.exchange(number)

    def is_up_to_date(self, number: int) -> bool:
        """Tell whether a worker has heard the latest version, has nothing under way and nothing unsent."""
        worker = self.workers[number]
        return not (worker.waits or worker.unsent_steps) and worker.version == self.server.version

    def assert_same_bits(self, number: int) -> None:
        """A worker has the server's weights where it last heard of them."""
        worker, servers = self.workers[number], self.server.current
        where = ALL if worker.heard is None else worker.heard
        np.testing.assert_array_equal(worker.weights.local.vector[where], servers.vector[where])
        assert worker.weights.local.scale == servers.scale


Action = tuple[str, int, NDArray[np.float32], float]
no_decay, some_decay = st.just(1.0), st.floats(0.7, 1.0)


def actions(values: st.SearchStrategy[float], decays: st.SearchStrategy[float]) -> st.SearchStrategy[list[Action]]:
    """Any order of steps, sendings, servings and hearings of three workers."""
    changes = vectors(COLUMNS, st.just(0.0) | values)
    kinds = st.sampled_from(["step", "send", "serve", "hear"])
    return st.lists(st.tuples(kinds, st.integers(0, 2), changes, decays), max_size=24)


def run(exchange: Exchange, plan: list[Action]) -> None:
    for kind, number, changes, decay in plan:
        worker = number % len(exchange.workers)
        if kind == "step":
            exchange.take_step(worker, changes, decay)
        else:
            getattr(exchange, kind)(worker)
        if exchange.threshold == 0 and exchange.is_up_to_date(worker):
            exchange.assert_same_bits(worker)


def assert_every_change_counted_once(exchange: Exchange) -> None:
    """With numbers whose sums are exact, the sums are exactly equal: whatever waited for a later turn, too."""
    for worker in exchange.workers:
        below = worker.made - worker.sent
        if not (worker.unsent_steps or worker.waits):
            assert np.abs(below).max() <= exchange.threshold
    exchange.settle()
    for worker in exchange.workers:
        np.testing.assert_array_equal(worker.sent, worker.made)
    made = sum(worker.made for worker in exchange.workers)
    np.testing.assert_array_equal(exchange.server.current.weights(), exchange.initial + made)


def assert_same_bits_once_settled(exchange: Exchange, plan: list[Action]) -> None:
    """After these actions, and with all messages delivered, every worker has the server's bits."""
    run(exchange, plan)
    exchange.settle()
    for number in range(len(exchange.workers)):
        exchange.assert_same_bits(number)


def assert_who_changes_nothing_sends_nothing(exchange: Exchange, plan: list[Action]) -> None:
    """The last worker takes none of the plan's steps."""
    idle = len(exchange.workers) - 1
    run(exchange, [action for action in plan if action[0] != "step" or action[1] != idle])
    exchange.settle()
    np.testing.assert_array_equal(exchange.workers[idle].sent, 0)
