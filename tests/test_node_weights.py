"""A node's weights: what its workers merge, and what its delegate exchanges with the server, in any order."""

from __future__ import annotations

import multiprocessing
import time
from dataclasses import dataclass, field, replace
from functools import partial
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from exchange import COLUMNS, curvatures
from mpisgd import compiled_loops, shared_weights, weights
from mpisgd.beginning import Beginning
from mpisgd.channel import Channel
from mpisgd.config import Config
from mpisgd.delegate import Delegate
from mpisgd.exchange_loops import Content
from mpisgd.hogwild_loops import State
from mpisgd.job import Job
from mpisgd.messages import Bytes
from mpisgd.node_weights import NodeWeights
from mpisgd.shared_memory import SharedMemory
from mpisgd.shared_weights import SharedWeights, node_memory_for, turns_of_update
from mpisgd.turn_statistics import FIELDS, Records
from mpisgd.updates import ReplyHeader, ReplyRoom, UpdateRoom, unpack_update
from mpisgd.vector_loops import TurnSize
from mpisgd.weights import ServerWeights
from mpisgd.worker_copy import Copy
from process_memory import Memory, shared_by_processes
from strategies import examples, vectors

pytestmark = pytest.mark.skipif(not compiled_loops.is_compiled(), reason="without the kernel there is no lock")
NODES, OF_A_NODE = 2, 2
PLAINLY = TurnSize(0, 0, 0)
Vector = NDArray[np.float64]


def beginning(**settings: Any) -> Beginning:
    config = Config(mode="async", bias=False, iterations=1, batch_size=1, **settings)
    job = Job(config, COLUMNS, learning_rows=1_000, workers=NODES * OF_A_NODE)
    return Beginning(job, np.linspace(-1, 1, COLUMNS).astype(np.float32), curvatures(False))


def shared_by_a_node(begins: Beginning, *, of_processes: bool = False) -> SharedWeights:
    """Return the weights of a node of this process, or of those that are forked from now on."""
    channel = SimpleNamespace(rank=1, now=time.perf_counter, worker_share_node_memory=partial(Memory, OF_A_NODE))
    memory = cast("Memory", node_memory_for(cast("Channel", channel), begins.job))
    if of_processes:
        shared_by_processes(memory)
    return SharedWeights(cast("Channel", channel), begins, cast("SharedMemory", memory))


@dataclass
class Node:
    """A node, its update and reply under way; in float64 its weights, and what of these is not sent."""

    begins: Beginning
    shared: SharedWeights = field(init=False)
    weights: NodeWeights = field(init=False)
    copies: list[Copy] = field(init=False)
    room: UpdateRoom = field(default_factory=lambda: UpdateRoom(COLUMNS))
    update: tuple[Content, float, int, Records] | None = None
    reply: tuple[ReplyHeader, Content] | None = None
    heard: int = 0  # of the server's updates
    rows: int = 0  # of the turns not sent
    sent_decay: float = 1.0  # of the update under way
    unsent_decay: float = 1.0

    def __post_init__(self) -> None:
        self.shared = shared_by_a_node(self.begins)
        self.weights = NodeWeights(self.shared, self.begins)
        self.copies = [Copy(self.begins.weights, worker) for worker in range(1, OF_A_NODE + 1)]
        self.twin = self.begins.weights.astype(np.float64)
        self.unsent, self.twins_update, self.twins_reply = np.zeros(COLUMNS), np.zeros(COLUMNS), np.zeros(COLUMNS)

    def learn(self, worker: int, changes: NDArray[np.float32], decay: float) -> None:
        """Let a worker take a turn and exchange it."""
        copy = self.copies[worker]
        copy.local.scale *= decay
        copy.local.vector += changes * np.float32(1 / copy.local.scale)
        copy.note(rows=3, moved=2)
        self.shared.exchange(copy, None, None, PLAINLY)
        self.twin, self.unsent = self.twin * decay + changes, self.unsent * decay + changes
        self.unsent_decay *= decay
        self.rows += 3
        np.testing.assert_allclose(copy.local.weights(), self.twin, rtol=1e-4, atol=1e-4)

    def send(self) -> None:
        self.update = self.weights.take(self.room)
        self.twins_update, self.unsent = self.unsent, np.zeros(COLUMNS)
        self.sent_decay, self.unsent_decay = self.unsent_decay, 1.0

    def hear(self) -> None:
        assert self.reply is not None
        self.weights.hear(*self.reply)
        self.twin = self.twins_reply * self.unsent_decay + self.unsent
        self.reply = None


class Cluster:
    """Two nodes and the server; in float64 the server's weights."""

    def __init__(self, begins: Beginning) -> None:
        self.nodes = [Node(begins) for _ in range(NODES)]
        self.server = ServerWeights(begins.weights, begins.curvatures)
        self.twin = begins.weights.astype(np.float64)
        self.rows = 0

    def go_on(self, node: Node) -> None:
        """Let the exchange of a node with the server get one step further."""
        if node.reply is not None:
            node.hear()
        elif node.update is not None:
            self.merge(node)
        else:
            node.send()

    def merge(self, node: Node) -> None:
        assert node.update is not None
        content, decay, _, turns = node.update
        self.server.add(None, content, decay, 0, PLAINLY, max(1, len(turns)))
        assert decay == pytest.approx(node.sent_decay, rel=1e-6)
        self.twin = self.twin * decay + node.twins_update
        self.rows += int(turns[:, FIELDS["rows"]].sum())
        room = ReplyRoom(COLUMNS)
        told = ReplyHeader(False, 0, self.rows, self.server.current.scale, self.server.log_folded)
        node.reply, node.update = (told, self.server.changes_since(node.heard, room).copy()), None
        node.heard, node.twins_reply = self.server.updates, self.twin


some_turns = st.tuples(st.integers(0, NODES - 1), st.integers(0, OF_A_NODE - 1), vectors(COLUMNS), st.floats(0.3, 1.0))
plans = st.lists(some_turns | st.integers(0, NODES - 1), max_size=40)


@examples
@given(plans, st.sampled_from([1e-6, 0.5]), st.sampled_from([1e-6, 0.5]))
def test_whatever_the_order_all_nodes_end_with_all_changes(plan: list[Any], here: float, there: float) -> None:
    """Also where scales are folded, early or late, by the nodes and by the server."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared_weights, "SMALLEST_SCALE", here)
        patch.setattr(weights, "SMALLEST_SCALE", there)
        cluster = Cluster(beginning(passes=None))
        for step in plan:
            if isinstance(step, int):
                cluster.go_on(cluster.nodes[step])
            else:
                node, worker, changes, decay = step
                cluster.nodes[node].learn(worker, changes, decay)
        for _ in range(6):  # what is under way, the rest, and what the other sent last
            for node in cluster.nodes:
                cluster.go_on(node)
        np.testing.assert_allclose(cluster.server.current.weights(), cluster.twin, rtol=1e-4, atol=1e-4)
        for node in cluster.nodes:
            while node.reply is None or node.heard < cluster.server.updates:
                cluster.go_on(node)
            node.hear()
            node.learn(0, np.zeros(COLUMNS, np.float32), 1.0)  # whose worker has the node's weights then
            np.testing.assert_allclose(node.twin, cluster.twin, rtol=1e-6, atol=1e-6)
            assert node.shared.rows == cluster.rows + 3
            assert not node.shared._average_vector.any()  # the average is the server's


@pytest.mark.parametrize("turns", [8, 60])
def test_turns_that_shrink_the_weights_to_nothing_spoil_none(turns: int) -> None:
    """One node folds more between two updates than float32, or float64, has room for; the other has folded nothing."""
    cluster = Cluster(beginning(passes=None))
    one, other = cluster.nodes
    for turn in range(turns):
        one.learn(turn % OF_A_NODE, np.ones(COLUMNS, np.float32), 1e-6)
    other.learn(0, np.full(COLUMNS, 0.5, np.float32), 1.0)
    for node in (one, one, other, other, other, one, one, one, one):
        cluster.go_on(node)
    expected = cluster.server.current.weights()
    np.testing.assert_allclose(expected, 1.5, rtol=1e-5)
    for node in cluster.nodes:
        node.learn(1, np.zeros(COLUMNS, np.float32), 1.0)
        np.testing.assert_allclose(node.copies[1].local.weights(), expected, rtol=1e-5)


@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_what_the_threshold_holds_back_is_sent_when_it_has_added_up(threshold: float) -> None:
    """Workers of a node exchange everything; over the wire go the changes that are large enough."""
    node = Node(beginning(passes=None, gradient_threshold=threshold))
    small = np.full(COLUMNS, 0.2, np.float32)
    sent = np.zeros(COLUMNS)
    for turn in range(1, 4):
        node.learn(turn % OF_A_NODE, small, 1.0)
        content, _, changes, turns = node.weights.take(node.room)
        assert (changes, len(turns)) == (COLUMNS, 1)
        assert len(content) == (0 if threshold and turn < 3 else COLUMNS)
        sent += content if len(content) else 0
    np.testing.assert_allclose(sent, 3 * small, rtol=1e-6)


@pytest.mark.parametrize("decay", [1.0, 0.2])
def test_while_workers_exchange_the_delegate_takes_every_turn_once_and_whole(decay: float) -> None:
    """Every turn takes w to decay w + 1: so many turns are always as much, on the server and in every worker's copy.

    With this decay the node folds its scale every eight turns, the server when it hears of them.
    """
    columns, turns = 20_000, 150
    config = Config(mode="async", bias=False, iterations=1, batch_size=1, merge="sum", passes=None)
    begins = Beginning(Job(config, columns, 400, workers=NODES * OF_A_NODE), *np.zeros((2, columns), np.float32))
    shared, server = shared_by_a_node(begins, of_processes=True), ServerWeights(begins.weights, begins.curvatures)
    node, update, room = NodeWeights(shared, begins), UpdateRoom(columns), ReplyRoom(columns)

    def after(count: int) -> float:
        return sum(decay**turn for turn in range(count))

    def learn(worker: int) -> None:
        copy = Copy(begins.weights, worker)
        for _ in range(turns):
            copy.local.scale *= decay
            copy.local.vector += np.float32(1 / copy.local.scale)
            copy.note(rows=1, moved=1)
            shared.exchange(copy, None, None, PLAINLY)
            assert copy.local.weights().max() <= after(OF_A_NODE * turns) * (1 + 1e-4)

    context = multiprocessing.get_context("fork")
    started = [context.Process(target=learn, args=(worker,)) for worker in range(1, OF_A_NODE + 1)]
    for process in started:
        process.start()
    heard = 0
    while server.version < OF_A_NODE * turns and all(process.exitcode in (None, 0) for process in started):
        content, shrunk, _, taken = node.take(update)
        if len(taken) > 0:
            server.add(None, content, shrunk, 0, PLAINLY, len(taken))
            np.testing.assert_allclose(server.current.weights(), after(server.version), rtol=1e-3)
            current = server.current
            told = ReplyHeader(False, server.version, server.version, current.scale, server.log_folded)
            node.hear(told, server.changes_since(heard, room))
            heard = server.updates
    for process in started:
        process.join(60)
    assert [process.exitcode for process in started] == [0] * OF_A_NODE
    assert (server.version, shared.rows) == (OF_A_NODE * turns, OF_A_NODE * turns)


# --- how many turns an update has


def test_an_update_has_room_for_a_turn_of_every_worker_and_for_a_part_of_a_pass() -> None:
    job = Job(Config(mode="async", iterations=10, batch_size=10), COLUMNS, learning_rows=100_000, workers=8)
    assert [turns_of_update(job, workers) for workers in (8, 4, 2)] == [round(1_000 / 4.5), 100, round(250 / 6)]
    long_turns = replace(job, config=replace(job.config, iterations=1_000))
    assert turns_of_update(long_turns, 4) == 4


def test_who_finds_no_room_waits_until_an_update_is_sent_or_the_run_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_weights, "turns_of_update", lambda *_: 2)
    node = Node(beginning(passes=None))
    copy, work = node.copies[0], Mock(side_effect=lambda: node.send() or True)
    for turn in range(5):
        waited = node.shared.exchange(copy, None, None, PLAINLY, work)
        assert (waited > 0) == (turn in (2, 4))
    assert work.call_count == 2
    node.shared.exchange(copy, None, None, PLAINLY)
    node.shared.stop()
    assert node.shared.exchange(copy, None, None, PLAINLY) > 0
    assert node.shared.state[State.VERSION] == 6


# --- the delegate


class Wire:
    """A channel to a server that answers when the test says so."""

    def __init__(self) -> None:
        self.turns: list[Records] = []
        self.updates: list[Bytes] = []
        self.reply: Bytes | None = None
        self.time = 0.0

    def worker_expect_replies(self, largest: int) -> None: ...

    def worker_reuse_update(self) -> None: ...

    def now(self) -> float:
        return self.time

    def delegate_send_turns(self, turns: Records) -> None:
        self.turns.append(turns)

    def worker_send_update(self, update: Bytes) -> None:
        self.updates.append(update.copy())

    def worker_poll_reply(self) -> Bytes | None:
        return self.reply

    def answer(self, *, version: int, stop: bool) -> None:
        room = ReplyRoom(COLUMNS)
        self.reply = room.seal(ReplyHeader(stop, version, 100, 1.0, 0.0), room.pairs(0))


def delegate_of(node: Node, wire: Wire) -> Delegate:
    return Delegate(cast("Channel", wire), node.shared, node.begins)


def test_the_delegate_sends_all_that_its_node_learnt_since_and_stops_it() -> None:
    node, wire = Node(beginning(passes=None)), Wire()
    delegate = delegate_of(node, wire)
    node.learn(0, np.ones(COLUMNS, np.float32), 1.0)
    assert delegate.work()
    for worker in (0, 1, 1):
        node.learn(worker, np.ones(COLUMNS, np.float32), 0.5)
        assert delegate.look()
        assert not delegate.work()  # the last one is still under way
    wire.time = 2.0
    wire.answer(version=7, stop=False)
    assert not delegate.look()
    assert delegate.work()
    assert [len(turns) for turns in wire.turns] == [1, 3]
    header, content, *_ = unpack_update(wire.updates[1])
    assert (header.rows, header.moved, header.changes, header.round_trip) == (9, 6, COLUMNS, 2.0)
    assert header.decay == pytest.approx(0.125)
    np.testing.assert_allclose(content, 1.75)
    wire.answer(version=8, stop=True)
    node.learn(0, np.ones(COLUMNS, np.float32), 1.0)
    assert not delegate.work()
    assert node.shared.stopped
    assert len(wire.updates) == 2


@pytest.mark.parametrize(("heard_at", "version"), [(1.0, 7), (3.0, 1)])
def test_an_update_is_of_the_version_that_most_of_it_was_computed_from(heard_at: float, version: int) -> None:
    """Of the reply, if that came in the first half of the time; else of the one before, the update sent counted in."""
    node, wire = Node(beginning(passes=None)), Wire()
    delegate = delegate_of(node, wire)
    node.learn(0, np.ones(COLUMNS, np.float32), 1.0)
    assert delegate.work()
    wire.time = heard_at
    wire.answer(version=7, stop=False)
    assert not delegate.look()
    wire.time = 4.0
    node.learn(1, np.ones(COLUMNS, np.float32), 1.0)
    assert delegate.work()
    assert [unpack_update(update)[0].version for update in wire.updates] == [0, version]
