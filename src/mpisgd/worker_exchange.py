"""A worker's end of the asynchronous exchange: in memory that ranks share, or by messages (`mailbox`)."""

from __future__ import annotations

import math
import os
from typing import Protocol

from mpisgd.beginning import Beginning
from mpisgd.channel import Channel
from mpisgd.delegate import Delegate
from mpisgd.hogwild_loops import Outcome
from mpisgd.learner import SMALLEST_DECAY, Learner, RestOfPass
from mpisgd.mailbox import Mailbox, Turn
from mpisgd.merging import turn_size
from mpisgd.schedule import Schedule
from mpisgd.shared_memory import SharedMemory
from mpisgd.shared_weights import SharedWeights, has_server
from mpisgd.turn_keys import WorkerKeys
from mpisgd.weights import WorkerWeights
from mpisgd.worker_copy import Copy

DELEGATE = 1  # of a node: the first of its workers


class WorkerExchange(Protocol):
    """What exchanges a worker's turns.

    stopped  whether the run is over
    """

    stopped: bool

    @property
    def rows(self) -> int:
        """The rows that all workers have processed, as far as known here."""
        ...

    def take_turn(self, learner: Learner, schedule: Schedule) -> None:
        """Take a turn, or several, and exchange what it changed."""
        ...


def _nothing() -> bool:
    """Do no work."""
    return False


class InMemory:
    """`WorkerExchange` with weights that ranks share: this worker merges its own turns.

    Where these are of one of several nodes, its delegate also exchanges them with the server.
    """

    def __init__(
        self,
        channel: Channel,
        beginning: Beginning,
        shared: SharedWeights,
        keys: WorkerKeys | None,
        delegate: Delegate | None = None,
    ) -> None:
        self._channel, self._job, self._keys = channel, beginning.job, keys
        self._copy, self._shared = Copy(beginning.weights, shared.worker), shared
        self._look, self._work = (delegate.look, delegate.work) if delegate is not None else (_nothing, _nothing)
        self._bounded = beginning.job.config.max_staleness is not None
        self.stopped = False

    @property
    def rows(self) -> int:
        """See `WorkerExchange`."""
        return self._copy.rows

    def take_turn(self, learner: Learner, schedule: Schedule) -> None:
        """See `WorkerExchange`. Several turns are taken at once where they have keys and nobody is waited for."""
        step_size = schedule.step_size(self._copy.rows)
        rest = learner.rest_of_pass() if self._keys is not None and not self._bounded else None
        if rest is not None and self._decays_slowly(step_size):
            self._take_turns(learner, rest, schedule)
        elif self._shared.begin_turn(learner.rows + learner.rows_of_turn, self._work):
            self._take_turn(learner, step_size)
        self._work()
        self.stopped = self._shared.stopped

    def _take_turn(self, learner: Learner, step_size: float) -> None:
        """Take a turn and exchange it."""
        number, began = learner.number, self._channel.now()
        rows = learner.turn(self._copy.local, step_size, self._look)
        self._copy.note(rows=rows.processed, moved=rows.moved, computing=self._channel.now() - began)
        self._shared.note_rows(learner.rows)
        self._exchange(number, step_size)

    def _take_turns(self, learner: Learner, rest: RestOfPass, schedule: Schedule) -> None:
        assert self._keys is not None  # noqa: S101 - the caller sees to it
        reached, outcome = self._shared.take_turns(self._copy, rest, learner.steps(schedule), self._keys.of_all)
        if outcome is not Outcome.DONE:  # there is a turn that is not exchanged yet
            self._exchange(reached, schedule.step_size(self._copy.rows))
            reached += 1
        learner.took_turns(reached - rest.number)
        self._shared.note_rows(learner.rows)
        # Where ranks share cores, one goes round its shard many times before it has to let another have the core: 128
        # workers on two took 32 passes to learn RCV1, and with this 11.
        os.sched_yield()

    def _exchange(self, number: int, step_size: float) -> None:
        """Exchange the turn of that number, whose rows and time are noted."""
        copy, began, columns, wanted = self._copy, self._channel.now(), None, None
        if self._keys is not None:
            columns = self._keys.of(number)
            wanted = self._keys.of(self._keys.wanted_with(number, overlaps=False))
        size = turn_size(self._job, step_size, copy.noted("rows"), copy.noted("moved"))
        waited = self._shared.exchange(copy, columns, wanted, size, self._work)
        if self._bounded:
            began_waiting = self._channel.now()
            self._shared.catch_up(copy, wanted)
            waited += self._channel.now() - began_waiting
        ahead = self._shared.ahead(copy.worker)
        copy.note(round_trip=self._channel.now() - began, waiting=waited, ahead=ahead)

    def _decays_slowly(self, step_size: float) -> bool:
        """Tell whether no turn has to end early (see `Learner.turn`)."""
        shrinking = step_size * self._job.objective.regularization * self._job.config.batch_size
        return self._job.iterations * math.log1p(shrinking) < -math.log(SMALLEST_DECAY)


class ByMessages:
    """`WorkerExchange` with a server that has the weights: the next turn is computed while an update travels.

    The reply is taken in between two steps, as soon as it is there: of all columns, it freshens the rest of the turn;
    by keys, it is for the turn after. Where replies take much longer than turns do (see `mailbox.Pace`), the worker
    waits for them instead.
    """

    def __init__(self, channel: Channel, mailbox: Mailbox) -> None:
        self._channel, self._mailbox = channel, mailbox
        self.stopped = False

    @property
    def rows(self) -> int:
        """See `WorkerExchange`."""
        return self._mailbox.rows

    def take_turn(self, learner: Learner, schedule: Schedule) -> None:
        """See `WorkerExchange`."""
        mailbox, number, began = self._mailbox, learner.number, self._channel.now()
        rows = learner.turn(mailbox.local, schedule.step_size(mailbox.rows), mailbox.look)
        mailbox.end_turn(Turn(rows, number, began, self._channel.now() - began))
        self.stopped = mailbox.stopped


def exchange_for(
    channel: Channel, beginning: Beginning, memory: SharedMemory | None, keys: WorkerKeys | None
) -> WorkerExchange:
    """Return a worker's end of the exchange: in this memory, if there is any. It has the weights to begin with.

    Where messages go to the server it waits until that is READY as well.
    """
    if memory is not None and has_server(memory, beginning.job):
        return InMemory(channel, beginning, SharedWeights(channel, beginning, memory), keys)
    exchange = _away_from_the_server(channel, beginning, memory, keys)
    channel.worker_hear()
    return exchange


def _away_from_the_server(
    channel: Channel, beginning: Beginning, memory: SharedMemory | None, keys: WorkerKeys | None
) -> WorkerExchange:
    """Return the same where the server is not among those that share this memory, if there is any."""
    if memory is None:
        return ByMessages(channel, Mailbox(channel, beginning.job, WorkerWeights(beginning.weights), keys))
    shared = SharedWeights(channel, beginning, memory)
    delegate = Delegate(channel, shared, beginning) if shared.worker == DELEGATE else None
    return InMemory(channel, beginning, shared, keys, delegate)
