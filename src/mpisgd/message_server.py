"""Async by messages: the server owns the weights, merges every update as it comes and answers it at once.

repeat: take whichever update has come, add it, answer with the weights that the worker needs, or later if it is too far
ahead of the others; when none has come, look for a reason to stop, measure, send samples
now and then: count the turns that were merged
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np

from mpisgd.averaging import made_for, snapshot
from mpisgd.channel import Channel, Nodes
from mpisgd.clocks import Clocks
from mpisgd.crew import Crew
from mpisgd.job import Job
from mpisgd.merging import turn_size
from mpisgd.messages import Bytes, Tag
from mpisgd.monitor import Monitor
from mpisgd.svm import ScaledVector
from mpisgd.turn_keys import ServerKeys
from mpisgd.turn_statistics import FIELDS, Record, RecordBook, Records, retold
from mpisgd.updates import Keys, ReplyHeader, ReplyRoom, unpack_update
from mpisgd.weights import ServerWeights

# A server that always finds another letter measures, sends samples and looks for a reason to stop after this many.
LETTERS_BEFORE_THE_REST = 16
RECORDS = 1_024  # of turns that are not counted yet


class Replied(NamedTuple):
    """What the last reply to a worker was like; at first there is none."""

    rows: int  # processed, as it was told
    bytes_down: int
    ahead: int  # turns ahead of the slowest, as it was told to go on


class MessageServer:
    """Answers the workers' updates one by one, and does the rest in between.

    A worker that must not get further ahead of the others is answered when these have caught up.
    """

    def __init__(
        self, channel: Channel, job: Job, weights: ServerWeights, monitor: Monitor, crew: Crew, nodes: Nodes
    ) -> None:
        self._channel, self._job, self._weights, self._nodes = channel, job, weights, nodes
        self._average = made_for(job, np.zeros(job.column_count, np.float32))
        self._monitor, self._crew = monitor, crew
        monitor.in_memory = False
        self._clocks = Clocks(channel.workers, job.config.max_staleness)
        self._heard = dict.fromkeys(channel.workers, 0)  # updates in the weights that each worker has
        self._keys = {worker: ServerKeys(job.column_count) for worker in channel.workers}
        self._rooms = {worker: ReplyRoom(job.column_count) for worker in channel.workers}
        self._replied = dict.fromkeys(channel.workers, Replied(rows=0, bytes_down=0, ahead=-1))
        self._unanswered: dict[int, Keys | None] = {}  # the workers that wait, and what they asked for
        self._of_node: dict[int, Records] = {}  # by the delegate: the turns in the update that comes next
        self._rows = 0  # processed, in the turns merged
        self._steps = {worker: job.even_steps(monitor.schedule, len(node)) for worker, node in nodes.items()}
        self._records = RecordBook(RECORDS)
        self._letters = 0

    def serve(self) -> ScaledVector:
        """Serve until every worker has gone; return the final weights."""
        self._channel.wait_until(self._crew.all_gone, self._work)
        self._crew.finish()
        return self._snapshot()

    def _work(self) -> bool:
        """See to one letter if there is any, and to the rest if there is none or it has waited for long."""
        letter = self._crew.look()
        if letter is not None:
            if letter.tag is Tag.UPDATE:
                self._merge(letter.worker, letter.content)
            elif letter.tag is Tag.TURNS:
                self._of_node[letter.worker] = letter.content.view(np.float64).reshape(-1, len(FIELDS))
            self._letters += 1
            if self._letters % LETTERS_BEFORE_THE_REST:
                return True
        self._monitor.check_limits(self._rows)
        sent, measured = self._crew.send_samples(), self._monitor.look(self._snapshot, self._rows)
        answered = self._answer_those_who_wait()
        return sent or measured or answered or letter is not None

    def _merge(self, worker: int, update: Bytes) -> None:
        """Merge a turn, and answer it if its worker need not wait for others, and those who need wait no longer.

        Or the turns of a node, and answer its delegate.
        """
        weights, keys, job = self._weights, self._keys[worker], self._job
        header, content, own, wanted = unpack_update(update)
        turns, staleness = self._of_node.pop(worker, None), weights.version - header.version
        of_node = None if turns is None else len(turns)
        replied, steps = self._replied[worker], self._steps[worker]
        step_size = steps.after(replied.rows).step_size(replied.rows)  # about what the turns were taken with
        steps.count(header.rows)
        size = turn_size(job, step_size, header.rows, header.moved)
        columns = keys.hear(header.turn, own)
        changes_sent, gains = weights.add(columns, content, header.decay, staleness, size, of_node)
        self._rows += header.rows
        bytes_up = len(update) + (0 if turns is None else turns.nbytes)
        record = Record(
            worker, header.rows, header.moved, staleness, changes_sent, header.changes, gains, bytes_up,
            replied.bytes_down, header.round_trip, header.computing, header.waiting, replied.ahead,
            self._channel.now(),
        )  # fmt: skip
        if turns is None:
            self._clocks.tick(worker)
            self._records.note(record)
        else:
            self._note_turns(turns, record)
        self._average.look(weights.current, self._rows)
        if job.is_done(self._rows):  # then the answer is to stop
            self._monitor.check_limits(self._rows)
        self._unanswered[worker] = keys.hear(header.wanted, wanted)
        self._answer_those_who_wait()
        if self._records.is_full:
            self._count()

    def _note_turns(self, turns: Records, update: Record) -> None:
        """Note the turns of a node, which came in this update of its delegate."""
        workers = self._nodes[update.worker]
        turns = retold(turns, workers, min(map(self._clocks.ahead, workers)), update)
        for worker, count in Counter(turns[:, FIELDS["worker"]].tolist()).items():
            self._clocks.tick(int(worker), count)
        self._records.note_all(turns)

    def _answer_those_who_wait(self) -> bool:
        """Answer the workers that need wait no longer; tell whether there were any."""
        over = self._monitor.stop_reason is not None
        ready = [worker for worker in self._unanswered if over or not self._clocks.must_wait(worker)]
        for worker in ready:
            self._reply(worker, self._unanswered.pop(worker), stop=over)
        return bool(ready)

    def _reply(self, worker: int, asked: Keys | None, *, stop: bool) -> None:
        weights, room = self._weights, self._rooms[worker]
        self._channel.server_reuse_reply(worker)
        values = weights.changes_since(self._heard[worker], room) if asked is None else weights.at(asked, room)
        told = ReplyHeader(stop, weights.version, self._rows, weights.current.scale, weights.log_folded)
        reply = room.seal(told, values)
        self._heard[worker] = weights.updates
        self._replied[worker] = Replied(self._rows, len(reply), self._clocks.ahead(worker))
        if stop:
            self._crew.tell(*self._nodes[worker])
        self._channel.server_reply(worker, reply)

    def _count(self) -> None:
        self._monitor.count_turns(self._records.take())

    def _snapshot(self) -> ScaledVector:
        self._count()
        return snapshot(self._average, self._weights.current)
