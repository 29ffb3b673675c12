"""A worker's end of the asynchronous exchange: in memory that all ranks share, or by messages (`mailbox`)."""

from __future__ import annotations

from typing import Protocol

from mpisgd.beginning import Beginning
from mpisgd.channel import Channel
from mpisgd.mailbox import Mailbox, Turn
from mpisgd.shared_memory import SharedMemory
from mpisgd.shared_weights import Copy, SharedWeights
from mpisgd.svm import ScaledVector
from mpisgd.turn_keys import WorkerKeys
from mpisgd.turn_statistics import Record
from mpisgd.weights import WorkerWeights


class WorkerExchange(Protocol):
    """What exchanges a worker's turns. Learning goes on in between; what is not sent yet stays in the weights.

    local    this worker's weights
    rows     processed by all workers, as far as known
    stopped  whether the run is over
    """

    local: ScaledVector
    rows: int
    stopped: bool

    def look(self) -> bool:
        """Take in what has come during a turn; tell whether anything is still due."""
        ...

    def end_turn(self, turn: Turn) -> None:
        """Exchange what a turn changed."""
        ...


class InMemory:
    """`WorkerExchange` with weights that all ranks share: this worker merges its own updates."""

    def __init__(self, channel: Channel, beginning: Beginning, memory: SharedMemory, keys: WorkerKeys | None) -> None:
        self._channel, self._job, self._keys = channel, beginning.job, keys
        self._shared = SharedWeights(channel, beginning, memory)
        self._copy = Copy(beginning.weights)
        self._bounded = beginning.job.config.max_staleness is not None
        self._record = Record.room(channel.rank)
        self._round_trip, self._waited, self._ahead = 0.0, 0.0, -1  # s, s, turns: of the last exchange
        self.local = self._copy.local
        self.rows, self.stopped = 0, False

    def look(self) -> bool:
        """See `WorkerExchange`; nothing ever is."""
        return False

    def end_turn(self, turn: Turn) -> None:
        """See `WorkerExchange`."""
        shared, worker, began = self._shared, self._channel.rank, self._channel.now()
        columns = wanted = None
        if self._keys is not None:
            columns = self._keys.of(turn.number)
            wanted = self._keys.of(self._keys.wanted_with(turn.number, overlaps=False))
        self._record[1] = turn.rows
        self._record[-5:] = self._round_trip, turn.took, self._waited, self._ahead, began
        shared.exchange(self._copy, self._record, columns, wanted, self._job.step_size(self.rows) * turn.rows)
        self._waited = 0.0
        if self._bounded:
            began_waiting = self._channel.now()
            shared.catch_up(self._copy, worker, wanted)
            self._waited = self._channel.now() - began_waiting
        self.rows, self.stopped, self._ahead = self._copy.rows, shared.stopped, shared.ahead(worker)
        self._round_trip = self._channel.now() - began


def exchange_for(
    channel: Channel, beginning: Beginning, memory: SharedMemory | None, keys: WorkerKeys | None
) -> WorkerExchange:
    """Return a worker's end of the exchange: in this memory, if there is any."""
    if memory is None:
        return Mailbox(channel, beginning.job, WorkerWeights(beginning.weights), keys)
    return InMemory(channel, beginning, memory, keys)
