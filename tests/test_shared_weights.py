"""The weights that all ranks share: a worker's exchange in memory does what the two ends of one by messages do."""

from __future__ import annotations

import mmap
import multiprocessing
import os
import time
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mpisgd import averaging as averaging_module
from mpisgd import compiled_loops, hogwild_loops, merging, shared_weights, weights
from mpisgd.averaging import Average
from mpisgd.beginning import Beginning
from mpisgd.channel import LEADER, SERVER, Channel
from mpisgd.config import Config
from mpisgd.exchange_loops import PAIR
from mpisgd.job import Job
from mpisgd.learner import Learner, ShardFeed
from mpisgd.rank_worker import work_async
from mpisgd.shard import LearningShard, Shard
from mpisgd.shared_memory import SharedMemory
from mpisgd.shared_weights import STALE_TURNS, SharedWeights, memory_for
from mpisgd.turn_keys import WorkerKeys
from mpisgd.turn_statistics import FIELDS, Record, Records
from mpisgd.updates import Keys, ReplyHeader, UpdateRoom
from mpisgd.vector_loops import TurnSize
from mpisgd.waiting import Backoff
from mpisgd.weights import SMALLEST_SCALE, ServerWeights, WorkerWeights
from mpisgd.worker_copy import Copy
from mpisgd.worker_exchange import InMemory, WorkerExchange
from process_memory import Memory, shared_by_processes
from strategies import examples, rows_from

pytestmark = pytest.mark.skipif(not compiled_loops.is_compiled(), reason="without the kernel there is no lock")
COLUMNS, WORKERS = 6, 3
STEP_SIZE, PENALTY = 0.5, 0.125
CURVATURES = np.array([0, 0.1, 0.5, 1, 2, 30], np.float32)


def beginning(**settings: Any) -> Beginning:
    config = Config(mode="async", bias=False, **settings)
    job = Job(config, COLUMNS, learning_rows=100, workers=WORKERS)
    return Beginning(job, np.linspace(-1, 1, COLUMNS).astype(np.float32), CURVATURES)


def shared(begins: Beginning, memory: Memory, rank: int) -> SharedWeights:
    channel, own = SimpleNamespace(rank=rank, now=time.perf_counter), copy(memory)
    own.rank = rank
    return SharedWeights(cast("Channel", channel), begins, cast("SharedMemory", own))


def memory_of(begins: Beginning) -> Memory:
    """Return memory as a run would ask for it."""
    channel = SimpleNamespace(share_memory=partial(Memory, WORKERS + 1))
    return cast("Memory", memory_for(cast("Channel", channel), begins.job))


def records_of(turns: Records) -> list[Record]:
    return [Record(*numbers) for numbers in turns.tolist()]


@dataclass
class Both:
    """Workers that exchange in memory, and the same with a server by messages."""

    begins: Beginning

    def __post_init__(self) -> None:
        memory = memory_of(self.begins)
        self.server = shared(self.begins, memory, SERVER)
        self.shared = [shared(self.begins, memory, rank) for rank in range(1, WORKERS + 1)]
        self.copies = [Copy(self.begins.weights, rank) for rank in range(1, WORKERS + 1)]
        self.twin = ServerWeights(self.begins.weights, self.begins.curvatures)
        self.twins = [WorkerWeights(self.begins.weights) for _ in range(WORKERS)]
        self.versions = [0] * WORKERS

    def learn(self, worker: int, changes: NDArray[np.float32], decay: float) -> None:
        """Change both workers' weights as a turn does."""
        for local in (self.copies[worker].local, self.twins[worker].local):
            local.scale *= decay
            local.vector += changes * np.float32(1 / local.scale)

    def exchange(self, worker: int, rows: int, columns: Keys | None, wanted: Keys | None) -> Record:
        """Exchange a turn in both ways; return its record."""
        self.copies[worker].note(rows=rows, moved=rows - 1)
        turn_size = TurnSize(STEP_SIZE * rows, STEP_SIZE, PENALTY)
        self.shared[worker].exchange(self.copies[worker], columns, wanted, turn_size)
        twin = self.twins[worker]
        threshold = self.begins.job.config.gradient_threshold
        content, decay, changes = twin.take_turn(threshold, columns, UpdateRoom(COLUMNS))
        staleness = self.twin.version - self.versions[worker]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(weights, "STALE_TURNS", STALE_TURNS)
            sent, gains = self.twin.add(columns, content, decay, staleness, turn_size)
        heard = self.twin.current.vector[slice(None) if wanted is None else wanted]
        told = ReplyHeader(False, self.twin.version, 0, self.twin.current.scale, self.twin.log_folded)
        twin.hear(told, wanted, heard)
        self.versions[worker] = self.twin.version
        (record,) = records_of(self.server.count())
        expected = (worker + 1, rows, rows - 1, staleness, sent, changes)
        assert record[:6] == expected
        assert record.gains == pytest.approx(gains, rel=1e-5, abs=1e-6)
        assert record.bytes_up == min(8 * sent, 4 * (COLUMNS if columns is None else len(columns)))
        return record

    def assert_alike(self, worker: int, where: Keys | None = None) -> None:
        """The server's weights are the same, and so are the worker's, where it has heard of them."""
        _, found = self.server.snapshot()
        np.testing.assert_allclose(found.weights(), self.twin.current.weights(), rtol=1e-4, atol=1e-5)
        places = slice(None) if where is None else where
        own, twins = self.copies[worker].local.weights(), self.twins[worker].local.weights()
        np.testing.assert_allclose(own[places], twins[places], rtol=1e-4, atol=1e-5)


values = st.integers(-8, 8).map(lambda n: n / 4)
turns = st.tuples(
    st.integers(0, WORKERS - 1),
    st.lists(st.just(0.0) | values, min_size=COLUMNS, max_size=COLUMNS).map(lambda v: np.array(v, np.float32)),
    st.floats(0.3, 1.0),
    st.integers(1, 20),
)


@examples
@given(st.lists(turns, max_size=12), st.sampled_from([0.0, 0.6]))
def test_an_exchange_of_all_columns_is_that_by_messages(plan: list[Any], threshold: float) -> None:
    both = Both(beginning(averaging=False, gradient_threshold=threshold, passes=None))
    for worker, changes, decay, rows in plan:
        both.learn(worker, changes, decay)
        both.exchange(worker, rows, None, None)
        both.assert_alike(worker)


KEYS: list[Keys] = [np.array(keys, np.int32) for keys in ([0, 2, 5], [1, 2], [3], [], [0, 1, 2, 3, 4, 5])]


@examples
@given(st.lists(st.tuples(turns, st.integers(0, 4)), max_size=12))
def test_an_exchange_by_keys_is_that_by_messages(plan: list[Any]) -> None:
    """Each turn changes the weights at the keys that the exchange before wanted."""
    both, keys = Both(beginning(averaging=False, passes=None)), [KEYS[4]] * WORKERS
    for (worker, changes, decay, rows), number in plan:
        own, wanted = keys[worker], KEYS[number]
        mine = np.zeros(COLUMNS, np.float32)
        mine[own] = changes[own]
        both.learn(worker, mine, decay)
        record = both.exchange(worker, rows, own, wanted)
        both.assert_alike(worker, wanted)
        assert both.copies[worker].record[FIELDS["bytes_down"]] == 4 * len(wanted)
        assert record.changes <= len(own)
        keys[worker] = wanted


def test_the_scale_is_folded_when_it_gets_small_and_every_worker_follows() -> None:
    both = Both(beginning(averaging=False, passes=None))
    for turn in range(12):
        worker = turn % WORKERS
        both.learn(worker, np.full(COLUMNS, 0.5, np.float32), SMALLEST_SCALE**0.3)
        both.exchange(worker, 1, None, None)
        both.assert_alike(worker)
    assert both.twin.log_folded < 0  # it happened
    assert both.server.snapshot()[1].scale >= SMALLEST_SCALE


@pytest.mark.parametrize("by_keys", [True, False])
def test_who_comes_back_when_others_have_shrunk_the_weights_to_nothing_spoils_none(by_keys: bool) -> None:
    both, columns = Both(beginning(averaging=False, passes=None)), KEYS[4] if by_keys else None
    both.learn(0, np.ones(COLUMNS, np.float32), 1.0)
    for turn in range(24):
        worker = 1 + turn % 2
        both.learn(worker, np.full(COLUMNS, 0.5, np.float32), 1e-6)
        both.exchange(worker, 1, columns, columns)
    both.exchange(0, 1, columns, columns)
    both.assert_alike(0)
    assert np.isfinite(both.server.snapshot()[1].weights()).all()


def test_what_a_worker_hears_of_is_what_changed_since() -> None:
    both = Both(beginning(averaging=False, passes=None))
    both.learn(0, np.array([1, 0, 1, 0, 0, 0], np.float32), 1.0)
    both.exchange(0, 1, None, None)
    both.learn(1, np.array([0, 0, 0, 0, 0, 1], np.float32), 1.0)
    both.exchange(1, 1, None, None)
    assert both.copies[1].record[FIELDS["bytes_down"]] == 8 * 3
    assert PAIR.itemsize == 8


# --- what else an exchange does


def test_the_average_takes_the_weights_in_as_the_server_would() -> None:
    """Of all turns in their order, whoever merged them; after twice the rows at first, then after some."""
    begins = beginning(passes=None)
    begins = replace(begins, job=replace(begins.job, learning_rows=1_000))
    memory = memory_of(begins)
    server, one, other = (shared(begins, memory, rank) for rank in (SERVER, 1, 2))
    copies = [Copy(begins.weights, 1), Copy(begins.weights, 2)]
    average = Average(begins.job, np.zeros(COLUMNS, np.float32))
    rng = np.random.default_rng(0)
    for turn in range(20):
        copy, who = copies[turn % 2], (one, other)[turn % 2]
        copy.local.vector += rng.normal(size=COLUMNS).astype(np.float32)
        copy.note(rows=3)
        who.exchange(copy, None, None, SIZE)
        average.look(copy.local, copy.rows)
    _, measured = server.snapshot()
    np.testing.assert_allclose(measured.weights(), average.measured(copies[1].local).weights(), rtol=1e-6)


@pytest.mark.parametrize("averaging", [False, True])
def test_a_snapshot_stays_as_it_is(averaging: bool) -> None:
    both = Both(beginning(averaging=averaging, passes=None))
    both.exchange(0, 1, None, None)
    _, measured = both.server.snapshot()
    before = measured.weights().copy()
    both.learn(0, np.ones(COLUMNS, np.float32), 0.5)
    both.exchange(0, 50, None, None)
    assert (both.server.snapshot()[1].weights() != before).any()
    np.testing.assert_array_equal(measured.weights(), before)


def test_the_turn_that_ends_the_last_pass_stops_all() -> None:
    both = Both(beginning(averaging=False, passes=2.0))
    both.exchange(0, 100, None, None)
    assert not both.shared[1].stopped
    both.exchange(1, 100, None, None)
    assert both.shared[0].stopped


def test_a_worker_is_ahead_by_the_turns_that_the_slowest_has_not_done() -> None:
    both = Both(beginning(averaging=False, passes=None))
    for worker in (0, 0, 1, 2, 0):
        both.exchange(worker, 1, None, None)
    assert [both.shared[0].ahead(worker) for worker in (1, 2, 3)] == [2, 0, 0]


def test_who_waited_for_the_slowest_has_the_latest_weights_and_keeps_what_was_held_back() -> None:
    both = Both(beginning(averaging=False, passes=None, max_staleness=0, gradient_threshold=0.6))
    both.learn(0, np.array([1, 0.5, 0, 0, 0, 0], np.float32), 1.0)
    both.exchange(0, 1, None, None)
    for worker in (1, 2):
        both.learn(worker, np.array([0, 0, 1, 0, 0, 0], np.float32), 0.9)
        both.exchange(worker, 1, None, None)
    copy = both.copies[0]
    both.shared[0].catch_up(copy, None)
    _, servers = both.server.snapshot()
    held_back = np.array([0, 0.5, 0, 0, 0, 0]) * 0.9 * 0.9  # with the penalty of the others' turns
    np.testing.assert_allclose(copy.local.weights(), servers.weights() + held_back, rtol=1e-5)
    assert (copy.own[hogwild_loops.Own.VERSION], copy.rows) == (3, 3)


def kernels(memory: Memory, copy: Copy) -> hogwild_loops.Memory:
    """Return the memory as the kernel takes it."""
    vector, times, average, state, records, words, *_ = memory.arrays
    own = (copy.record, copy.own, copy.local.vector, copy.base)
    return hogwild_loops.Memory(words[:-1], state, records, *own, vector, times, average, CURVATURES)


SIZE = TurnSize(1.0, 1.0, 0.0)
RULE = hogwild_loops.Rule(0.0, smallest_scale=0.0, stale_turns=1.0, curved_by_moved=2.0, every_rows=1.0, lateness=3.0)


def test_nothing_is_exchanged_while_there_is_no_room_for_the_record() -> None:
    begins = beginning(averaging=False, passes=None)
    memory = memory_of(begins)
    memory.arrays[4] = np.zeros((2, len(Record._fields)))
    server, worker = (shared(begins, memory, rank) for rank in (SERVER, 1))
    copy, vector = Copy(begins.weights, 1), memory.arrays[0]
    for _ in range(2):
        worker.exchange(copy, None, None, SIZE)

    def outcome() -> hogwild_loops.Outcome:
        copy.local.vector += 1
        before = vector.copy()
        found = hogwild_loops.exchange(kernels(memory, copy), RULE, None, None, SIZE)
        assert (vector != before).all() == (found is hogwild_loops.Outcome.DONE)
        return found

    assert outcome() is hogwild_loops.Outcome.FULL
    assert [record.worker for record in records_of(server.count())] == [1, 1]
    assert outcome() is hogwild_loops.Outcome.DONE


def test_a_meeting_is_over_when_all_that_are_awaited_have_come() -> None:
    meetings = np.zeros((3, 8), np.int64)
    assert not hogwild_loops.meet(meetings, mine=1, meeting=1, first=0, looks=2)
    assert not hogwild_loops.meet(meetings, mine=2, meeting=1, first=0, looks=0)
    assert hogwild_loops.meet(meetings, mine=2, meeting=1, first=1, looks=0)
    assert hogwild_loops.meet(meetings, mine=0, meeting=1, first=0, looks=0)
    assert not hogwild_loops.meet(meetings, mine=0, meeting=2, first=0, looks=0)
    np.testing.assert_array_equal(meetings[:, 0], [2, 1, 1])
    assert not meetings[:, 1:].any()
    for wrong in ({"mine": 3}, {"mine": -1}, {"first": 4}):
        with pytest.raises(ValueError, match="meetings"):
            hogwild_loops.meet(meetings, **{"mine": 0, "meeting": 3, "first": 0, "looks": 0} | wrong)


def test_processes_that_have_the_lock_in_turn_lose_nothing() -> None:
    """Each adds to a number by reading it, and writing it a moment later."""
    memory, turns, processes = mmap.mmap(-1, 64 * (hogwild_loops.LOCK_LINES + 1)), 2_000, 3
    words = np.frombuffer(memory, np.int64).reshape(-1, 8)
    lock, number = words[:-1], words[-1]
    hogwild_loops.make_lock(lock)

    def add() -> None:
        for _ in range(turns):
            hogwild_loops.take_lock(lock)
            found = int(number[0])
            os.sched_yield()
            number[0] = found + 1
            hogwild_loops.give_lock(lock)

    context = multiprocessing.get_context("fork")  # so that the memory is shared
    started = [context.Process(target=add) for _ in range(processes)]
    for process in started:
        process.start()
    for process in started:
        process.join(60)
    assert [process.exitcode for process in started] == [0] * processes
    assert number[0] == turns * processes


@pytest.mark.parametrize(("decay", "averaging"), [(1.0, False), (0.2, False), (0.2, True)])
def test_processes_that_exchange_at_once_lose_nothing_and_are_seen_whole(decay: float, averaging: bool) -> None:
    """Every turn takes w to decay w + 1: so many turns are always as much, in the weights and in every copy of them.

    What is measured is that of the turns that are counted, or an average over them; with this decay a scale is folded
    every eight turns.
    """
    columns, turns, processes = 20_000, 200, 3
    config = Config(mode="async", bias=False, averaging=averaging, merge="sum", passes=None)
    begins = Beginning(Job(config, columns, 100, processes), *np.zeros((2, columns), np.float32))
    memory = memory_of(begins)
    shared_by_processes(memory)
    workers = [shared(begins, memory, rank) for rank in range(LEADER, LEADER + processes)]
    server = shared(begins, memory, SERVER)

    def after(count: int) -> float:
        return sum(decay**turn for turn in range(count))

    def exchange(worker: SharedWeights, rank: int) -> None:
        copy = Copy(begins.weights, rank)
        for _ in range(turns):
            copy.local.scale *= decay
            copy.local.vector += np.float32(1 / copy.local.scale)
            copy.note(rows=1, moved=1)
            worker.exchange(copy, None, None, TurnSize(0, 0, 0))
            assert copy.local.weights().max() <= after(turns * processes) * (1 + 1e-4)

    context = multiprocessing.get_context("fork")
    started = [context.Process(target=exchange, args=(worker, rank)) for rank, worker in enumerate(workers, LEADER)]
    for process in started:
        process.start()
    counted = 0
    while counted < turns * processes and all(process.exitcode in (None, 0) for process in started):
        seen, measured = server.snapshot()
        counted += len(seen)
        if averaging:
            assert measured.weights().max() <= after(counted) * (1 + 1e-4)
        else:
            np.testing.assert_allclose(measured.weights(), after(counted), rtol=1e-4)
    for process in started:
        process.join(60)
    assert [process.exitcode for process in started] == [0] * processes
    assert counted == turns * processes


def test_the_server_waits_for_who_exchanges(monkeypatch: pytest.MonkeyPatch) -> None:
    begins = beginning(passes=None)
    memory = memory_of(begins)
    server = [shared(begins, memory, rank) for rank in (LEADER, SERVER)][1]
    within = memory.arrays[5][1, :1]
    within[0], pauses = 1, []

    def leave(_: Backoff) -> None:
        pauses.append(within.copy())
        within[0] = 0

    monkeypatch.setattr(Backoff, "pause", leave)
    server.snapshot()
    assert len(pauses) == 1


def test_lengths_that_do_not_fit_are_refused() -> None:
    begins = beginning()
    arrays = kernels(memory_of(begins), Copy(begins.weights, 1))
    for name, array in arrays._asdict().items():
        if name not in ("records", "local"):
            wrong = arrays._replace(**{name: array[: 1 if name == "lock" else -1]})
            with pytest.raises(ValueError, match=r"vectors|state|lock|record"):
                hogwild_loops.exchange(wrong, RULE, None, None, SIZE)
    with pytest.raises(ValueError, match="columns"):
        hogwild_loops.exchange(arrays, RULE, None, KEYS[0], SIZE)


# --- the last turns of a run

ALL_ROWS = 200  # two passes


def meanwhile(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> list[Backoff]:
    """Let this happen the first time that somebody waits; return, for each time that somebody did, how."""
    waits: list[Backoff] = []

    def pause(backoff: Backoff) -> None:
        assert not waits, "waited on"
        waits.append(backoff)
        happens()

    monkeypatch.setattr(Backoff, "pause", pause)
    return waits


def test_no_turn_is_begun_that_all_passes_do_not_want(monkeypatch: pytest.MonkeyPatch) -> None:
    begins = beginning(passes=2)
    memory = memory_of(begins)
    first, second = (shared(begins, memory, worker) for worker in (1, 2))
    waits = meanwhile(monkeypatch, first.stop)
    assert first.begin_turn(ALL_ROWS, nothing)
    assert second.begin_turn(50, nothing)  # every worker takes one
    assert not waits
    assert not second.begin_turn(100, nothing)
    assert len(waits) == 1


def test_where_a_turn_ended_early_another_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    begins = beginning(passes=2)
    memory = memory_of(begins)
    first, second = (shared(begins, memory, worker) for worker in (1, 2))
    assert first.begin_turn(ALL_ROWS - 50, nothing)
    assert second.begin_turn(50, nothing)
    waits = meanwhile(monkeypatch, lambda: first.note_rows(ALL_ROWS - 51))
    assert second.begin_turn(100, nothing)
    assert len(waits) == 1


def test_every_worker_takes_a_turn_also_where_the_run_is_over() -> None:
    begins = beginning(passes=2)
    worker = shared(begins, memory_of(begins), 1)
    worker.stop()
    assert worker.begin_turn(50, nothing)
    assert not worker.begin_turn(100, nothing)


def test_without_a_number_of_passes_every_turn_is_begun() -> None:
    begins = beginning(passes=None)
    worker = shared(begins, memory_of(begins), 1)
    assert all(worker.begin_turn((turn + 1) * ALL_ROWS, nothing) for turn in range(3))


def nothing() -> bool:
    return False


# --- several turns in one call

TURNS = 12  # two passes of six: five turns of four rows, one of three


def learner_of(begins: Beginning) -> Learner:
    """Return a worker's learner over 23 random rows."""
    rng = np.random.default_rng(7)
    made = [
        sorted(zip(rng.choice(COLUMNS, 2, replace=False).tolist(), rng.normal(size=2).tolist(), strict=True))
        for _ in range(23)
    ]
    shard = Shard(rows_from(made, COLUMNS), rng.choice([-1, 1], 23).astype(np.float32))
    return learner_over(begins, shard, rng)


def learner_over(begins: Beginning, shard: Shard, rng: np.random.Generator) -> Learner:
    """Return a worker's learner whose one shard this is."""
    feed = cast("ShardFeed", SimpleNamespace(renews=False, names=None))
    return Learner(begins.job, LearningShard.shuffled_from(shard, rng), feed)


def exchange_in(memory: Memory, begins: Beginning, rank: int, keys: WorkerKeys | None) -> InMemory:
    """Return a worker's end of the exchange in this memory."""
    channel = cast("Channel", SimpleNamespace(rank=rank, now=time.perf_counter))
    return InMemory(channel, begins, shared(begins, memory, rank), keys)


def taken(begins: Beginning, patch: pytest.MonkeyPatch, records: int, *, at_once: bool) -> tuple[Any, ...]:
    """Take the turns; return weights and average in memory, the worker's weights, and the records without times."""
    memory, counted = memory_of(begins), list[Record]()
    memory.arrays[4] = np.zeros((records, len(Record._fields)))
    server, learner = shared(begins, memory, SERVER), learner_of(begins)
    worker = exchange_in(memory, begins, 1, learner.keys())
    worker._copy.own[hogwild_loops.Own.VERSION] = -3  # so that the first turn is stale, and damped
    patch.setattr(
        Backoff, "pause", lambda _: counted.extend(records_of(server.count()))
    )  # as it does while the worker waits
    patch.setattr(worker, "_decays_slowly", lambda _: at_once)
    calls = 0
    while memory.arrays[3][0] < TURNS:
        worker.take_turn(learner, begins.job.schedule(0.5))
        calls += 1
    assert TURNS / 3 < calls < TURNS if at_once else calls == TURNS
    counted += records_of(server.count())
    timeless = [
        turn._replace(round_trip=0.0, computing=0.0, waiting=turn.waiting > 0, merged_at=0.0) for turn in counted
    ]
    return memory.arrays[0], memory.arrays[2], worker._copy.local.vector, timeless


@pytest.mark.parametrize("records", [3, 4096])
@pytest.mark.parametrize("averaging", [True, False])
@pytest.mark.parametrize("merge", ["damped", "sum"])
@pytest.mark.parametrize("loss", ["hinge", "squared_hinge", "logistic"])
def test_several_turns_in_one_call_are_those_one_by_one(
    monkeypatch: pytest.MonkeyPatch, loss: Any, merge: Any, averaging: bool, records: int
) -> None:
    """Bit for bit; also where there is no room for a record in the middle of them."""
    monkeypatch.setattr(shared_weights, "PARTS_OF_A_SHARD", 4)
    monkeypatch.setattr(averaging_module, "MOST_PER_PASS", 4)
    monkeypatch.setattr(merging, "CURVED_BY_MOVED", 1 / 16)  # or all rows of a turn this stale would count
    config = Config(
        mode="async", loss=loss, batch_size=2, iterations=2, regularization=0.01, learning_rate=0.5,
        learning_rate_schedule="inverse_sqrt", learning_rate_decay=0.5, passes=None, averaging=averaging,
        merge=merge,
    )  # fmt: skip
    job = Job(config, COLUMNS - 1, learning_rows=46, workers=2, by_keys=True, bias_step=0.5)
    begins = Beginning(job, np.linspace(-1, 1, COLUMNS).astype(np.float32), CURVATURES)
    found, expected = (taken(begins, monkeypatch, records, at_once=at_once) for at_once in (True, False))
    for some, others in zip(found[:3], expected[:3], strict=True):
        np.testing.assert_array_equal(some, others)
    assert found[3] == expected[3]
    assert found[1].any() == averaging
    assert [turn.staleness for turn in found[3]] == [3] + [0] * (TURNS - 1)
    assert (found[3][0].gains < found[3][0].changes_sent) == (merge == "damped")
    assert [turn.rows for turn in found[3]] == 2 * [4, 4, 4, 4, 4, 3]
    assert [turn.ahead for turn in found[3]] == [-1, *range(1, TURNS)]
    assert sum(turn.waiting for turn in found[3]) == (TURNS - 1) // records  # for room, before the turn


@dataclass
class SomeTurns:
    """A worker's exchange, and how many turns are left until it stops."""

    exchange: InMemory
    left: int = 0

    @property
    def rows(self) -> int:
        return self.exchange.rows

    @property
    def stopped(self) -> bool:
        return self.left == 0

    def take_turn(self, learner: Learner, schedule: Any) -> None:
        self.left -= 1
        self.exchange.take_turn(learner, schedule)


@pytest.mark.parametrize(
    ("sharding", "alike", "unlike", "expected"),
    [("partition", 0, 1_000, 0), ("partition", 700, 300, 0), ("sample", 0, 1_000, np.log(3))],
)
def test_shards_count_the_same_however_many_turns_their_workers_take(
    sharding: Any, alike: int, unlike: int, expected: float
) -> None:
    """One worker's rows pull a single weight up, the other's down, and the one takes three turns to the other's one.

    Samples are of all rows, so there nothing is to be made up for: of these rows the weight is that of three to one.
    """
    config = Config(
        mode="async", loss="logistic", bias=False, batch_size=1, iterations=10, regularization=1e-9, passes=None,
        learning_rate=0.3, learning_rate_schedule="inverse_sqrt", learning_rate_decay=0.5, sharding=sharding,
    )  # fmt: skip
    begins = Beginning(Job(config, 1, learning_rows=20, workers=2), np.zeros(1, np.float32), np.zeros(1, np.float32))
    memory = memory_of(begins)
    server, workers = shared(begins, memory, SERVER), []
    for rank, label in ((1, 1), (2, -1)):
        shard = Shard(rows_from([[(0, 1.0)]] * 10, 1), np.full(10, label, np.float32))
        learner = learner_over(begins, shard, np.random.default_rng(0))
        steps = begins.job.even_steps(begins.job.schedule(0.3))
        workers.append((learner, SomeTurns(exchange_in(memory, begins, rank, None)), steps))
    for turns_of_both in [(1, 1)] * alike + [(3, 1)] * unlike:
        for (learner, exchange, steps), turns in zip(workers, turns_of_both, strict=True):
            exchange.left = turns
            work_async(learner, cast("WorkerExchange", exchange), steps)
        server.count()
    assert float(server.snapshot()[1].weights()[0]) == pytest.approx(expected, abs=0.15)
