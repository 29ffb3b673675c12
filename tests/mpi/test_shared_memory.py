"""Memory that the workers share: what was written before a meeting is seen after it."""

from __future__ import annotations

import os
import resource
import shutil
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from mpi4py import MPI

from mpisgd import shared_memory
from mpisgd.beginning import Beginning
from mpisgd.channel import LEADER, SERVER, Channel
from mpisgd.config import Config
from mpisgd.job import Job
from mpisgd.merging import TurnFacts
from mpisgd.rounds import ByAllreduce, InMemory, Rounds, rounds_for, shared_memory_for
from mpisgd.shared_memory import Shape
from mpisgd.shared_weights import SharedWeights, memory_for
from mpisgd.turn_statistics import FIELDS
from mpisgd.vector_loops import TurnSize
from mpisgd.worker_copy import Copy

LENGTH = 1_000
two_workers = pytest.mark.mpi(min_size=3)


def arrays(count: int) -> list[Shape]:
    return [((LENGTH,), np.dtype(np.float32))] * count


@two_workers
def test_what_all_wrote_before_a_meeting_is_there_after_it(channel: Channel) -> None:
    if channel.rank == SERVER:
        return
    workers = len(channel.workers)
    memory = channel.worker_share_memory(arrays(workers + 1), willing=True)
    assert memory is not None
    *of_workers, total = memory.arrays
    assert all(array.shape == (LENGTH,) and not array.any() for array in memory.arrays)
    memory.meet()
    part = slice((channel.rank - 1) * LENGTH // workers, channel.rank * LENGTH // workers)
    for turn in range(1, 200):
        of_workers[channel.rank - 1][:] = channel.rank * turn
        memory.meet()
        total[part] = sum(array[part] for array in of_workers)
        memory.meet()
        np.testing.assert_array_equal(total, sum(channel.workers) * turn)
    memory.free()


@pytest.mark.mpi(min_size=2)
def test_one_worker_alone_shares_with_nobody(channel: Channel) -> None:
    if channel.rank != SERVER:
        memory = channel.worker_share_memory(arrays(2), willing=True)
        assert (memory is None) == (len(channel.workers) == 1)
        if memory is not None:
            memory.free()


def too_large(patch: pytest.MonkeyPatch, rank: int) -> None:
    patch.setattr(shared_memory, "LARGEST", 4 * LENGTH)


def no_room_for_one(patch: pytest.MonkeyPatch, rank: int) -> None:
    free = 16 * LENGTH if rank > 1 else 7 * LENGTH
    patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))


def no_large_files(patch: pytest.MonkeyPatch, rank: int) -> None:
    largest = 7 * LENGTH if rank > 1 else resource.RLIM_INFINITY
    patch.setattr(resource, "getrlimit", lambda _: (largest, resource.RLIM_INFINITY))


def no_such_place(patch: pytest.MonkeyPatch, rank: int) -> None:
    patch.setattr(shared_memory, "PLACE", "/no/such/place")


def refused(patch: pytest.MonkeyPatch, rank: int) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise MPI.Exception(MPI.ERR_NO_MEM)

    patch.setattr(MPI, "Win", SimpleNamespace(Allocate_shared=refuse))


@two_workers
@pytest.mark.parametrize("reason", [too_large, no_room_for_one, no_large_files, no_such_place, refused])
def test_where_memory_is_not_to_be_had_nobody_has_any(
    channel: Channel, monkeypatch: pytest.MonkeyPatch, reason: Any
) -> None:
    reason(monkeypatch, channel.rank)
    if channel.rank != SERVER:
        assert channel.worker_share_memory(arrays(1), willing=True) is None


@two_workers
def test_where_one_is_not_willing_nobody_has_any(channel: Channel) -> None:
    if channel.rank != SERVER:
        assert channel.worker_share_memory(arrays(1), willing=channel.rank > 1) is None


@pytest.mark.mpi(min_size=2)
def test_arrays_of_any_kind_lie_apart_and_are_shared_by_all_ranks(channel: Channel) -> None:
    shapes = [((3,), np.dtype(np.float32)), ((2, 5), np.dtype(np.int64)), ((0,), np.dtype(np.float64))]
    memory = channel.share_memory([*shapes, ((1,), np.dtype(np.float64))], willing=True)
    assert memory is not None
    assert [(array.shape, array.dtype) for array in memory.arrays[:3]] == shapes
    if channel.rank == SERVER:
        for number, array in enumerate(memory.arrays, 1):
            array[...] = number
    memory.meet()
    assert [set(array.ravel().tolist()) for array in memory.arrays] == [{1}, {2}, set(), {4}]
    memory.free()


@two_workers
@pytest.mark.parametrize("threshold", [0.0, 0.5])
@pytest.mark.parametrize("columns", [1, 2, 1000])
def test_rounds_in_memory_are_those_by_allreduce(channel: Channel, columns: int, threshold: float) -> None:
    """Also where an earlier use has left its traces in the memory, and where some workers have no columns to merge."""
    if channel.rank == SERVER:
        return
    job = Job(
        Config(mode="sync", gradient_threshold=threshold, regularization=0.1),
        columns - 1,
        100,
        workers=len(channel.workers),
    )
    beginning = Beginning(job, np.arange(columns, dtype=np.float32), np.full(columns, 0.5, np.float32))
    memory = shared_memory_for(channel, job)
    found = [merged(channel, rounds_for(channel, beginning, some)) for some in (memory, memory, None)]
    for again, first, by_allreduce in zip(found[1], found[0], found[2], strict=True):
        np.testing.assert_array_equal(again, first)
        np.testing.assert_allclose(by_allreduce, first, rtol=1e-5, atol=1e-4)
    assert [type(rounds_for(channel, beginning, some)) for some in (memory, None)] == [InMemory, ByAllreduce]
    assert memory is not None
    memory.free()


def merged(channel: Channel, some: Rounds) -> list[np.ndarray]:
    """Return, after three rounds, a worker's weights, what is measured, and what the leader counted in each."""
    counts = [some.counts]
    for turn in range(3):
        some.local.vector += channel.rank * np.sin(np.arange(len(some.local.vector)) + turn, dtype=np.float32)
        some.local.scale *= 0.99**channel.rank
        said = TurnFacts(
            channel.rank,
            moved=1,
            shrinking=1 - some.local.scale,
            computing=channel.rank / 2,
            round_trip=some.round_trip,
            right=2 * channel.rank,
            losses=channel.rank / 4,
            measure=channel.rank == LEADER and turn == 1,
            stop=channel.rank == LEADER and turn == 2,
        )
        facts = some.merge(said, step_size=0.1)
        assert (facts.measure, facts.stop) == (turn == 1, turn == 2)
        assert facts.judged == (2 * sum(channel.workers), sum(channel.workers) / 4)
        assert (facts.all_rows, facts.all_moved) == (sum(channel.workers), len(channel.workers))
        assert list(facts.computing) == [worker / 2 for worker in channel.workers]
        np.testing.assert_allclose(facts.shrinkings, [1 - 0.99**worker for worker in channel.workers], rtol=1e-5)
        assert all(facts.round_trips) == (turn > 0)
        counts.append(some.counts)
    found = [some.local.vector.copy(), some.measured().copy()]
    if channel.rank == LEADER:
        found.append(np.diff(counts, axis=0))
    channel.worker_merge(np.zeros(1, np.float32), np.zeros(1, np.float32))  # nobody begins anew before it has looked
    assert some.rows == 3 * sum(channel.workers)
    return found


@pytest.mark.mpi(min_size=2)
def test_the_workers_begin_without_the_server_which_finds_what_they_merged(channel: Channel) -> None:
    """It comes only when each of them has exchanged a turn, and told so."""
    config = Config(mode="async", regularization=0.1, passes=None, averaging=False)
    job = Job(config, 9, 100, workers=len(channel.workers))
    beginning = Beginning(job, np.arange(10, dtype=np.float32), np.zeros(10, np.float32))
    memory = memory_for(channel, job)
    assert memory is not None
    if channel.rank == SERVER:
        heard = [letter_to(channel) for _ in channel.workers]
        assert sorted(heard) == list(channel.workers)
    shared = SharedWeights(channel, beginning, memory)
    if channel.rank == SERVER:
        turns, weights = shared.snapshot()
        assert sorted(turns[:, FIELDS["worker"]].tolist()) == list(channel.workers)
        np.testing.assert_allclose(weights.weights(), beginning.weights + len(channel.workers), rtol=1e-6)
    else:
        copy = Copy(beginning.weights, channel.rank)
        copy.local.vector += 1
        copy.note(rows=1, moved=1)
        shared.exchange(copy, None, None, TurnSize(0, 0, 0))
        channel.worker_leave()
    shared.free()


def letter_to(channel: Channel) -> int:
    """Wait for a letter to the server; return who wrote it."""
    while (letter := channel.server_poll()) is None:
        os.sched_yield()
    return letter.worker
