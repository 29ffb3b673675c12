"""Weights in memory that ranks share: each worker merges its own turns, and the server, if it is there, only looks.

Who merges a turn is the server for a moment: of the weights where it has their lock (see `_locks.c`). What is to be
counted of a turn its worker leaves as a record, for the server to count when it next looks, or the delegate to send.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from mpisgd import compiled_loops, exchange_loops, hogwild_loops
from mpisgd.averaging import LATENESS, Latest, made_for, snapshot
from mpisgd.beginning import Beginning
from mpisgd.channel import SERVER, Channel
from mpisgd.exchange_loops import Columns, TurnKeys
from mpisgd.hogwild_loops import LOCK_LINES, Memory, Outcome, Own, Rule, State, Steps
from mpisgd.job import Job
from mpisgd.learner import RestOfPass
from mpisgd.merging import curved_by_moved
from mpisgd.shared_memory import CACHE_LINE, Shape, SharedMemory
from mpisgd.svm import ScaledVector
from mpisgd.turn_statistics import FIELDS, Records
from mpisgd.vector_loops import TurnSize
from mpisgd.waiting import YIELDS_FOR_MESSAGE, Backoff, Work, poll
from mpisgd.weights import SMALLEST_SCALE
from mpisgd.worker_copy import Copy

T = TypeVar("T")
# Of turns that the server has not counted yet; it looks every 16 ms at least, and who finds no room waits.
RECORDS, RECORDS_BY_WORKER = 4_096, 16
MUCH = 1 / 8  # of the room for records
# On several nodes: updates of a node to the server, at least, in a pass over its rows, and so many more for each node;
# who has merged that much since the last one waits. Without, four nodes of four workers, all on two cores, took 31
# passes to learn RCV1, and take 10 with this. After three passes over 35 times its rows eight nodes are at an objective
# of 0.046 with three updates, of 0.041 with eight; two make two fifths fewer rows a second with sixteen than with five.
UPDATES, UPDATES_BY_NODE = 4, 1 / 2
# As how many turns of a round an update counts that came in between. By messages it is two; here a turn begins with all
# that is merged, but for what others merge just then, and one takes fewer passes: two workers on 35 times RCV1's rows
# 4.1 instead of 5.1, 32 and 128 on RCV1 10.9 and 9.5 instead of 16.3 and 12.9.
STALE_TURNS = 1
# Short turns are taken several in one call of the kernel, until all workers have processed such a part of a shard: what
# Python does beside a turn takes longer than ten rows, but none is to go round its rows while others wait for its core.
PARTS_OF_A_SHARD = 20


class SharedWeights:
    """One rank's access to them, all by way of the locks.

    worker  this one's number among those that share them, from 1; 0: the server
    vector  float32 (column_count,), and `state`, by the places of `hogwild_loops.State`: for who has the lock
    """

    def __init__(self, channel: Channel, beginning: Beginning, memory: SharedMemory) -> None:
        """Begin with the beginning's weights, which the first worker puts in. Collective."""
        self._job, self._memory, self._now = beginning.job, memory, channel.now
        self._has_server = has_server(memory, beginning.job)
        servers = int(self._has_server)
        self.worker = memory.rank + 1 - servers
        self.vector, self._times_changed, average, self.state, self._records, words, turns, begun = memory.arrays
        self._turns, self._rows_begun = turns[: memory.size - servers], begun
        self._polls = channel.rank == SERVER  # where signals are to be heard while it waits
        self._lock, self._stop = words[:LOCK_LINES], words[LOCK_LINES, :1]
        self._curvatures, config = beginning.curvatures, beginning.job.config
        self._average, self._average_vector = made_for(beginning.job, average), average
        threshold, curved = config.gradient_threshold, curved_by_moved(beginning.job)
        if not self._has_server:  # the average is kept there, and changes are held back from it alone
            self._average, threshold = Latest(), 0.0
            self._records = self._records[: turns_of_update(beginning.job, memory.size)]
        every_rows = self._average.every_rows
        self._rule = Rule(threshold, SMALLEST_SCALE, STALE_TURNS, curved, every_rows, LATENESS)
        if self.worker == 1:
            self.vector[:] = beginning.weights
            for array in (self._times_changed, average, words, turns, begun):
                array[:] = 0
            hogwild_loops.make_lock(self._lock)
            self.state[:] = 0
            self.state[State.SCALE], self.state[State.AVERAGED_ROWS] = 1, self._average.averaged_rows
        # The server looks every now and then, so the workers begin without it.
        memory.meet(servers, hurry=not self._polls)

    # --- the workers

    def begin_turn(self, rows: int, work: Work) -> bool:
        """Note a turn after which this worker has processed so many rows; tell whether to take it, or the run is over.

        Where the turns that others are in make up all passes, it waits for them, and does some `work` meanwhile: one
        more would only be waited for. But each worker takes one: its rows are to be learnt from, however long turns
        are. Several turns taken at once count when they have ended.
        """
        first = self._rows_begun[self.worker - 1] == 0
        if self._has_server and not first:  # without it these are not all workers
            poll(lambda: self.stopped or not self._job.is_done(sum(self._rows_begun.tolist())), work, Backoff(0))
        self.note_rows(rows)
        return bool(first) or not self.stopped

    def note_rows(self, rows: int) -> None:
        """Note how many rows this worker has processed, or will have when its turn has ended: it may end early."""
        self._rows_begun[self.worker - 1] = rows

    def exchange(
        self, copy: Copy, columns: Columns, wanted: Columns, size: TurnSize, work: Work | None = None
    ) -> float:
        """Merge a worker's turn and let it have the weights; leave its record.

        `columns` are those of the turn, `wanted` those of the next one, both None: all. `size` is the turn's, as
        `weights.ServerWeights.add` takes it. Where there is no room for the record it waits, and does some `work`
        meanwhile; on one of several nodes no longer than the run lasts, and the turn is lost then. Returns how many
        seconds it waited.
        """
        copy.own[Own.SCALE] = copy.local.scale
        memory = self._memory_of(copy)

        def is_done() -> bool:
            return hogwild_loops.exchange(memory, self._rule, columns, wanted, size) is Outcome.DONE

        waited = 0.0
        if not is_done():
            began = self._now()
            poll(lambda: is_done() or (self.stopped and not self._has_server), work, Backoff(0))
            waited = self._now() - began
        self._turns[copy.worker - 1] += 1
        copy.local.scale = float(copy.own[Own.SCALE])
        self._after_exchange(copy)
        return waited

    def take_turns(self, copy: Copy, rest: RestOfPass, steps: Steps, keys: TurnKeys) -> tuple[int, Outcome]:
        """Take some turns by keys, each with its exchange; see `hogwild_loops.take_turns`."""
        copy.own[Own.SCALE] = copy.local.scale
        most = copy.rows + self._job.learning_rows / self._job.workers / PARTS_OF_A_SHARD
        reached = hogwild_loops.take_turns(
            rest.rows, rest.batches, steps, keys, self._memory_of(copy), self._rule, self._turns,
            self._stop, rest.number, min(most, self._job.last_rows),
        )  # fmt: skip
        copy.local.scale = float(copy.own[Own.SCALE])
        if reached[0] > rest.number:
            self._after_exchange(copy)
        return reached

    def _memory_of(self, copy: Copy) -> Memory:
        return Memory(
            self._lock, self.state, self._records, copy.record, copy.own, copy.local.vector, copy.base,
            self.vector, self._times_changed, self._average_vector, self._curvatures,
        )  # fmt: skip

    def _after_exchange(self, copy: Copy) -> None:
        if self._has_server and self._job.is_done(copy.rows):
            self.stop()

    def ahead(self, worker: int) -> int:
        """Return how many turns this worker is ahead of the slowest."""
        turns = self._turns.tolist()
        return int(turns[worker - 1] - min(turns))

    def catch_up(self, copy: Copy, wanted: Columns) -> None:
        """Wait until a worker is no further ahead than it may be, or is to stop; let it have the weights then."""
        bound, worker = self._job.config.max_staleness, copy.worker
        poll(lambda: self.stopped or bound is None or self.ahead(worker) <= bound, None, Backoff(YIELDS_FOR_MESSAGE))
        self.with_lock(lambda: self._let_have(copy, wanted))

    def _let_have(self, copy: Copy, wanted: Columns) -> None:
        state = self.state
        if copy.own[Own.LOG_FOLDED] != state[State.LOG_FOLDED]:
            copy.fold(state[State.LOG_FOLDED])
        heard = self.vector if wanted is None else self.vector[wanted]
        exchange_loops.take_in(wanted, heard, copy.base, copy.local.vector)
        copy.own[Own.VERSION], copy.own[Own.ROWS] = state[State.VERSION], state[State.ROWS]
        copy.local.scale = copy.own[Own.SCALE_SENT] = float(state[State.SCALE])

    # --- the server

    @property
    def rows(self) -> int:
        """The rows processed in all turns merged."""
        return int(self.state[State.ROWS])

    @property
    def much_to_count(self) -> bool:
        """Whether the server is to count before there is no room for records."""
        return bool(self.state[State.VERSION] - self.state[State.COUNTED] >= len(self._records) * MUCH)

    def snapshot(self) -> tuple[Records, ScaledVector]:
        """Return the records not counted yet, and a copy of what the run is measured by after just these turns."""
        return self.with_lock(lambda: (self.uncounted(), self._measured()))

    def count(self) -> Records:
        """Return the records not counted yet."""
        if self.state[State.VERSION] == self.state[State.COUNTED]:  # what is merged just now is for the next look
            return self._records[:0]
        return self.with_lock(self.uncounted)

    def uncounted(self) -> Records:
        """Return a copy of the records not counted yet, and count them; with the lock."""
        counted, version = self.state[[State.COUNTED, State.VERSION]].astype(int).tolist()
        self.state[State.COUNTED] = version
        places = np.arange(counted + 1, version + 1) % len(self._records)
        copy: Records = self._records[places]
        return copy

    # --- all

    def stop(self) -> None:
        """Let all workers stop after the turn they are in."""
        self._stop[0] = 1

    @property
    def stopped(self) -> bool:
        """Whether the workers are to stop."""
        return bool(self._stop[0])

    def free(self) -> None:
        """Give the memory back. Collective."""
        self._memory.free()

    def with_lock(self, do: Callable[[], T]) -> T:
        """Return what it returns, done while nobody else is at the weights."""
        if self._polls:
            poll(lambda: hogwild_loops.try_lock(self._lock), None, Backoff(YIELDS_FOR_MESSAGE))
            poll(lambda: hogwild_loops.is_alone(self._lock), None, Backoff(YIELDS_FOR_MESSAGE))
        else:
            hogwild_loops.take_lock(self._lock)
        try:
            return do()
        finally:
            hogwild_loops.give_lock(self._lock)

    def _measured(self) -> ScaledVector:
        self._average.averaged_rows = float(self.state[State.AVERAGED_ROWS])
        return snapshot(self._average, ScaledVector(self.vector, float(self.state[State.SCALE])))


def memory_for(channel: Channel, job: Job) -> SharedMemory | None:
    """Return memory for `SharedWeights`, if all ranks can share it and exchange in it. Collective."""
    return channel.share_memory(_shapes(job), willing=_is_willing(job))


def node_memory_for(channel: Channel, job: Job) -> SharedMemory | None:
    """Return the same of this node's workers; for one of several nodes. Collective, with `server_hear_nodes`."""
    willing = _is_willing(job) and job.config.max_staleness is None
    return channel.worker_share_node_memory(_shapes(job), willing=willing)


def turns_of_update(job: Job, workers: int) -> int:
    """Return how many turns of a node with so many workers an update has at most."""
    updates = UPDATES + UPDATES_BY_NODE * job.workers / workers
    return max(workers, round(job.learning_rows * workers / job.workers / updates / job.turn_rows))


def has_server(memory: SharedMemory, job: Job) -> bool:
    """Tell whether the server is among those that share this memory."""
    return memory.size > job.workers


def _is_willing(job: Job) -> bool:
    return job.config.shared_memory == "auto" and not job.wide and compiled_loops.is_compiled()


def _shapes(job: Job) -> tuple[Shape, ...]:
    columns, float32, float64 = (job.column_count,), np.dtype(np.float32), np.dtype(np.float64)
    records = max(RECORDS, RECORDS_BY_WORKER * job.workers)
    return (
        (columns, float32),
        (columns, float32),
        (columns, float32),
        ((len(State),), float64),
        ((records, len(FIELDS)), float64),
        ((LOCK_LINES + 1, CACHE_LINE // 8), np.dtype(np.int64)),
        ((job.workers,), np.dtype(np.int64)),
        ((job.workers,), np.dtype(np.int64)),
    )
