"""Lock step: how the turns of a round become the common weights, through memory that the workers share or by Allreduce.

On one node every worker learns where all can read it, and merges a part of the columns of all workers into weights that
are there but once. Elsewhere one Allreduce gives every worker the sum of the changes, which it merges into weights of
its own.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mpisgd import vector_loops
from mpisgd.averaging import made_for
from mpisgd.beginning import Beginning
from mpisgd.channel import Channel
from mpisgd.compiled_loops import Float
from mpisgd.job import Job
from mpisgd.merging import NOTHING_MERGED, MergeCounts, Merging, RoundFacts, TurnFacts
from mpisgd.sharding import contiguous_parts
from mpisgd.shared_memory import CACHE_LINE, SharedMemory
from mpisgd.svm import ScaledVector

COUNTS = 2  # that go with the sum: changes sent, and changes
LINE = CACHE_LINE // 4  # weights; no cache line is of two workers


class Rounds(Protocol):
    """What merges the rounds.

    local           what this worker learns with; after `merge` the common weights and what the threshold held back
    rows            that all workers have processed
    round_trip      s, of the last round; 0: there was none
    in_memory       whether the common weights are in memory that the workers share
    bytes_each_way  of a turn, as a message
    """

    local: ScaledVector
    rows: int
    round_trip: float
    in_memory: bool
    bytes_each_way: int

    def merge(self, turn: TurnFacts, step_size: float) -> RoundFacts:
        """Merge the turns of all workers, taken at this step size; return what all of them said."""
        ...

    @property
    def counts(self) -> MergeCounts:
        """What has become of all rounds so far; the leader alone has it."""
        ...

    def measured(self) -> Float:
        """Return what the run is measured by, float32 (column_count,), valid until the next merge."""
        ...


class ByAllreduce:
    """`Rounds` among any workers.

    The buffer that is added up is all changes, and for each worker its `TurnFacts` and counts, where others have zeros:
    in float32, so counts are exact up to 2^24.
    """

    in_memory = False

    def __init__(self, channel: Channel, beginning: Beginning) -> None:
        job, columns = beginning.job, len(beginning.weights)
        self._channel, self._columns = channel, columns
        self._merging = Merging(job, beginning.curvatures)
        self._threshold = job.config.gradient_threshold
        self._mine = np.zeros(_buffer_length(job), np.float32)
        self._sum = np.zeros_like(self._mine)
        self._weights = beginning.weights.copy()
        self._average = made_for(job, np.zeros(columns, np.float32))
        self.round_trip = 0.0
        self.local, self.rows, self.bytes_each_way = ScaledVector(self._weights.copy()), 0, self._mine.nbytes
        self.counts = NOTHING_MERGED

    def merge(self, turn: TurnFacts, step_size: float) -> RoundFacts:
        """See `Rounds`."""
        began, local, weights, changes = self._channel.now(), self.local, self._weights, self._mine[: self._columns]
        counts = vector_loops.subtract(local.vector, weights, local.scale, self._threshold, changes)
        held_back = (local.vector - weights) * np.float32(local.scale) - changes if self._threshold > 0 else 0
        self._table(self._mine)[:, self._channel.rank - 1] = *turn, *counts
        self._channel.worker_merge(self._mine, self._sum)
        table = self._table(self._sum).astype(np.float64)
        facts, (sent, changed) = RoundFacts(table[:-COUNTS].T.tolist()), table[-COUNTS:].sum(axis=1).tolist()
        merged = self._merging.merge_sum(weights, self._sum[: self._columns], facts, step_size)
        self.counts = self.counts.with_more((sent, changed, *merged))
        self.rows += facts.all_rows
        self._average.look(ScaledVector(weights), self.rows)
        np.add(weights, held_back, out=local.vector)
        local.scale = 1.0
        self.round_trip = self._channel.now() - began
        return facts

    def measured(self) -> Float:
        """See `Rounds`."""
        return self._average.measured(ScaledVector(self._weights)).vector

    def _table(self, buffer: Float) -> Float:
        return buffer[self._columns :].reshape(len(TurnFacts._fields) + COUNTS, -1)


class InMemory:
    """`Rounds` among workers on one node.

    All meet before, when everyone has learnt, and after, when all parts are merged. In between nobody looks at its own
    weights; before and after nobody at those of others, nor writes the common ones.
    """

    in_memory = True

    def __init__(self, channel: Channel, beginning: Beginning, memory: SharedMemory) -> None:
        job, self._worker = beginning.job, channel.rank - 1
        self._job, self._channel, self._memory = job, channel, memory
        self._merging = Merging(job, beginning.curvatures)
        self._threshold = job.config.gradient_threshold
        self._locals, self._weights, self._averages, self._turns, self._merged = memory.arrays
        self._part = contiguous_parts(job.column_count, job.workers)[self._worker]
        self._weights[self._part], self._averages[self._part] = beginning.weights[self._part], 0
        self._average = made_for(job, self._averages[self._part])
        self._part_weights = ScaledVector(self._weights[self._part])
        self._part_counts = NOTHING_MERGED
        self._say(self._merged, NOTHING_MERGED)
        self.round_trip = 0.0
        self.local, self.rows = ScaledVector(self._locals[self._worker, : job.column_count]), 0
        self.local.vector[:] = beginning.weights
        self.bytes_each_way = 4 * _buffer_length(job)
        memory.meet()

    def merge(self, turn: TurnFacts, step_size: float) -> RoundFacts:
        """See `Rounds`."""
        began = self._channel.now()
        self._say(self._turns, turn)
        self._memory.meet()
        facts = RoundFacts(self._turns.tolist())
        merged = self._merging.merge_part(self._locals, self._weights, self._part, facts, step_size, self._threshold)
        self._part_counts = self._part_counts.with_more(merged)
        self._say(self._merged, self._part_counts)
        self.rows += facts.all_rows
        self._average.look(self._part_weights, self.rows)
        self._memory.meet()
        self.local.scale = 1.0
        self.round_trip = self._channel.now() - began
        return facts

    @property
    def counts(self) -> MergeCounts:
        """See `Rounds`; nobody writes them before the leader has taken its next turn."""
        return MergeCounts(*map(sum, zip(*self._merged.tolist(), strict=True)))

    def _say(self, table: NDArray[np.float64], numbers: Sequence[float]) -> None:
        """Write this worker's row of a table."""
        struct.pack_into(f"{len(numbers)}d", table[self._worker], 0, *numbers)  # quicker than NumPy's way

    def measured(self) -> Float:
        """See `Rounds`."""
        average = made_for(self._job, self._averages)
        average.averaged_rows = self._average.averaged_rows
        return average.measured(ScaledVector(self._weights)).vector


def shared_memory_for(channel: Channel, job: Job) -> SharedMemory | None:
    """Return memory for `InMemory`, if the workers can share it. Collective among them."""
    columns, float32, float64 = job.column_count, np.dtype(np.float32), np.dtype(np.float64)
    shapes = (
        ((job.workers, -(-columns // LINE) * LINE), float32),
        ((columns,), float32),
        ((columns,), float32),
        ((job.workers, len(TurnFacts._fields)), float64),
        ((job.workers, len(MergeCounts._fields)), float64),
    )
    return channel.worker_share_memory(shapes, willing=job.config.shared_memory == "auto")


def _buffer_length(job: Job) -> int:
    """Return how many numbers a worker adds to the sum."""
    return job.column_count + (len(TurnFacts._fields) + COUNTS) * job.workers


def rounds_for(channel: Channel, beginning: Beginning, memory: SharedMemory | None) -> Rounds:
    """Return what merges the rounds: through this memory, if there is any."""
    return ByAllreduce(channel, beginning) if memory is None else InMemory(channel, beginning, memory)
