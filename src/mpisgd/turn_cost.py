"""What a row and an exchange cost here: measured before learning begins, where the length of turns is to follow it.

The ranks do at once what they will do at once when they learn, so they wait for each other's cores and wires as then.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

import numpy as np
from numpy.typing import NDArray

from mpisgd.beginning import SAMPLE_ROWS, Beginning
from mpisgd.channel import Channel, Nodes
from mpisgd.merging import TurnFacts
from mpisgd.rounds import rounds_for
from mpisgd.shard import LearningShard
from mpisgd.shared_memory import SharedMemory
from mpisgd.shared_weights import SharedWeights
from mpisgd.svm import ScaledVector
from mpisgd.vector_loops import TurnSize
from mpisgd.worker_copy import Copy

EXCHANGES = 8  # the first ones find nothing in the caches, so the median counts


def measured(
    channel: Channel, beginning: Beginning, shard: LearningShard, memory: SharedMemory | None, step_size: float
) -> NDArray[np.float64]:
    """Return [seconds for a row, seconds for an exchange], of a worker; to be added up over the workers.

    `memory` is what they share, all or those of a node, if they do. `step_size` is any that learns.
    """
    if beginning.job.config.mode == "sync":
        exchange = _sync_seconds(channel, beginning, memory)
    else:
        exchange = _async_seconds(channel, beginning, memory)
    return np.array([_row_seconds(channel, beginning, shard, step_size), exchange])


def serve(channel: Channel, beginning: Beginning, memory: SharedMemory | None, nodes: Nodes) -> None:
    """Answer what the workers measure by; `memory` is what all ranks share, if they do.

    Else, in async mode, answers the workers that share memory with nobody.
    """
    if memory is not None:
        SharedWeights(channel, beginning, memory)
    else:
        alone = sum(len(workers) == 1 for workers in nodes.values())
        channel.server_echo(EXCHANGES * alone)


def worth_an_exchange(sums: NDArray[np.float64]) -> float:
    """Return how many rows a worker goes through in the time of an exchange, by the sum of all `measured`."""
    return float(sums[1] / sums[0])


def _row_seconds(channel: Channel, beginning: Beginning, shard: LearningShard, step_size: float) -> float:
    objective, batch_size = beginning.job.objective, beginning.job.config.batch_size
    stop = min(SAMPLE_ROWS, len(shard.rows))
    weights = ScaledVector(beginning.weights.copy())
    began = channel.now()
    objective.minibatch_steps(weights, shard.rows, shard.labels, shard.squared_norms, 0, stop, batch_size, step_size)
    return (channel.now() - began) / stop


def _sync_seconds(channel: Channel, beginning: Beginning, memory: SharedMemory | None) -> float:
    """Return the time of a round in which nobody has changed anything."""
    rounds = rounds_for(channel, beginning, memory)
    return _median_seconds(channel, lambda: rounds.merge(TurnFacts(), step_size=0.0))


def _async_seconds(channel: Channel, beginning: Beginning, memory: SharedMemory | None) -> float:
    """Return the time of an exchange in memory in which nobody has changed anything.

    Or that of a message to the server, of the size of an update, and back; without what it does there.
    """
    job = beginning.job
    places = int(min(job.column_count, job.turn_rows * job.row_length)) if job.by_keys else job.column_count
    if memory is None:
        message = np.zeros(4 * places, np.uint8)
        return _median_seconds(channel, lambda: channel.worker_echo(message))
    shared = SharedWeights(channel, beginning, memory)
    copy = Copy(beginning.weights, shared.worker)
    columns = np.arange(places, dtype=np.int32) if job.by_keys else None

    def forget() -> bool:
        """Make room for records."""
        return len(shared.count()) > 0

    return _median_seconds(channel, lambda: shared.exchange(copy, columns, columns, TurnSize(0, 0, 0), forget))


def _median_seconds(channel: Channel, exchange: Callable[[], object]) -> float:
    seconds = []
    for _ in range(EXCHANGES):
        began = channel.now()
        exchange()
        seconds.append(channel.now() - began)
    return median(seconds)
