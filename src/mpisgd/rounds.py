"""Lock step: how the turns of a round become the common weights, through memory that the workers share or by Allreduce.

On one node every worker writes its changes where all can read them, adds up a part of the columns over all workers and
merges it into weights that are there but once. Elsewhere one Allreduce gives every worker the sum, which it merges into
weights of its own.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from mpisgd.beginning import Beginning
from mpisgd.channel import Channel
from mpisgd.compiled_loops import Float
from mpisgd.job import Job
from mpisgd.merging import Exchange, buffer_length
from mpisgd.shared_memory import SharedMemory


class Rounds(Protocol):
    """What merges the rounds.

    exchange  this worker's end of them
    weights   the common weights, float32 (column_count,), for reading: they change with `merge` alone
    in_memory whether they are in memory that the workers share
    """

    exchange: Exchange
    weights: Float
    in_memory: bool

    def merge(self, step_size: float) -> float:
        """Merge the turns of all workers at this step size; return the seconds it took, with waiting for others."""
        ...


class ByAllreduce:
    """`Rounds` among any workers."""

    in_memory = False

    def __init__(self, channel: Channel, beginning: Beginning) -> None:
        self._channel = channel
        self.exchange = Exchange(beginning.job.workers, beginning.job.config.merge, beginning.curvatures)
        self.weights = beginning.weights.copy()

    def merge(self, step_size: float) -> float:
        """See `Rounds`."""
        began = self._channel.now()
        self._channel.worker_merge(self.exchange.mine, self.exchange.total)
        self.exchange.take_sum()
        self.exchange.merge(self.weights, step_size)
        return self._channel.now() - began


class InMemory:
    """`Rounds` among workers on one node: arrays of each worker's buffer, of their sum and of the weights.

    The buffers must be zeros but for the slots that their workers write, and nobody may be reading the weights: so they
    are at first, and after `merge`.
    """

    in_memory = True

    def __init__(self, channel: Channel, beginning: Beginning, memory: SharedMemory) -> None:
        job, worker = beginning.job, channel.rank - 1
        self._channel, self._memory = channel, memory
        self._buffers, total, self.weights = memory.arrays
        # of the columns, even ones; with fewer columns than workers some have none
        bounds = np.linspace(0, job.column_count, job.workers + 1).astype(int).tolist()
        self._part = slice(*bounds[worker : worker + 2])
        self.exchange = Exchange(
            job.workers, job.config.merge, beginning.curvatures, mine=self._buffers[worker], total=total
        )
        self.weights[self._part] = beginning.weights[self._part]
        memory.meet()

    def merge(self, step_size: float) -> float:
        """See `Rounds`. Nobody writes what another may still read: all meet before and after the merging."""
        began = self._channel.now()
        self._memory.meet()
        self.exchange.add_up(self._buffers, self._part)
        self.exchange.merge(self.weights, step_size, self._part)
        self._memory.meet()
        return self._channel.now() - began


def shared_memory_for(channel: Channel, job: Job) -> SharedMemory | None:
    """Return memory for `InMemory`, if the workers can share it. Collective among them."""
    length, float32 = buffer_length(job.column_count, job.workers), np.dtype(np.float32)
    shapes = (((job.workers, length), float32), ((length,), float32), ((job.column_count,), float32))
    return channel.worker_share_memory(shapes, willing=job.config.shared_memory == "auto")


def rounds_for(channel: Channel, beginning: Beginning, memory: SharedMemory | None) -> Rounds:
    """Return what merges the rounds: through this memory, if there is any."""
    return ByAllreduce(channel, beginning) if memory is None else InMemory(channel, beginning, memory)
