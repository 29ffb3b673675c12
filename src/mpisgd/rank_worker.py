"""The worker: owns a shard of the rows and does the arithmetic.

    receive a shard, the initial weights and the step size
    repeat: take a turn of `iterations` mini-batch steps; exchange; stop when told
    tell the server goodbye
"""

from __future__ import annotations

import numpy as np

from mpisgd.channel import Channel
from mpisgd.compiled_loops import Float
from mpisgd.job import NO_JOB, Job, norm_facts
from mpisgd.learner import Learner, ShardFeed
from mpisgd.merging import Exchange
from mpisgd.messages import Bytes, ReplyHeader, UpdateHeader, largest_reply, pack_update, unpack_reply
from mpisgd.svm import ScaledVector
from mpisgd.weights import WorkerWeights


def work(channel: Channel) -> None:
    """Take part in one training run; returns when told to stop, or when the server found nothing to do."""
    announced = channel.worker_hear()
    if announced == NO_JOB:
        return
    job = Job.from_json(announced)
    shards = ShardFeed(channel, job)
    first = shards.take()
    if first is None:
        return
    initial = channel.worker_share_weights(job.column_count)
    job = job.with_learning_rate(channel.worker_sum(norm_facts(first)))
    learner = Learner(job, first, shards)
    with np.errstate(all="ignore"):  # weights that diverge are noticed, and reported, by the server
        (work_sync if job.config.mode == "sync" else work_async)(channel, job, learner, initial)
    channel.worker_leave()
    shards.drain()


def work_sync(channel: Channel, job: Job, learner: Learner, initial: Float) -> None:
    """Take turns in lock step: each round starts from the same weights and ends in one Allreduce.

    Changes that the threshold holds back stay in this worker's own weights, and so in its next turn's changes.
    """
    exchange = Exchange(job.column_count, len(channel.workers), job.config.merge)
    shared = initial
    local = ScaledVector(initial.copy())
    mine = exchange.buffer()
    rows_done, round_trip = 0, 0.0
    while True:
        rows = learner.turn(local, job.step_size(rows_done))
        changes = exchange.changes(mine)
        np.subtract(local.vector, shared, out=changes)
        changes *= np.float32(local.scale)
        withheld = _withhold(changes, job.config.gradient_threshold)
        if job.config.merge == "sqrt":
            np.not_equal(changes, 0, out=exchange.counts(mine), casting="unsafe")
        exchange.shared(mine)[:] = 0, np.log(local.scale)
        exchange.of_workers(mine)[channel.rank - 1] = rows, np.count_nonzero(changes), round_trip
        sent_at = channel.now()
        total = channel.worker_merge(mine)
        round_trip = channel.now() - sent_at
        exchange.merge(shared, total)
        if exchange.stops(total):
            return
        rows_done += exchange.rows(total)
        np.copyto(local.vector, shared)
        local.scale = 1.0
        if withheld is not None:
            local.vector += withheld


def _withhold(changes: Float, threshold: float) -> Float | None:
    """Zero the changes up to the threshold, in place, and return them; None without a threshold."""
    if threshold == 0:
        return None
    withheld = np.where(np.abs(changes) <= threshold, changes, np.float32(0))
    changes -= withheld
    return withheld


def work_async(channel: Channel, job: Job, learner: Learner, initial: Float) -> None:
    """Take turns at this worker's own pace: while an update and its reply travel, the next turn is computed.

    So a turn begins from the weights of the last reply plus this worker's own update under way.
    """
    weights = WorkerWeights(initial)
    mailbox = Mailbox(channel, job.column_count)
    heard = ReplyHeader(stop=False, version=0, rows=0, scale=1.0, log_folded=0.0)
    under_way = 0  # rows of the update under way
    while True:
        version = heard.version + mailbox.expecting
        rows = learner.turn(weights.local, job.step_size(heard.rows + under_way), mailbox.look)
        if mailbox.expecting:
            heard, columns, values = unpack_reply(mailbox.wait())
            if heard.stop:
                return
            weights.hear(heard, columns, values)
        turn = weights.take_turn(job.config.gradient_threshold)
        header = UpdateHeader(version, rows, turn.decay, mailbox.round_trip)
        mailbox.send(pack_update(header, turn.columns, turn.changes))
        under_way = rows


class Mailbox:
    """A worker's exchange with the server: one update under way at most, its reply looked for between steps."""

    def __init__(self, channel: Channel, column_count: int) -> None:
        self._channel = channel
        self._largest_reply = largest_reply(column_count)
        self._reply: Bytes | None = None
        self._sent_at = 0.0
        self.expecting = False
        self.round_trip = 0.0  # s, of the last update whose reply has come

    def send(self, update: Bytes) -> None:
        """Send an update on its way."""
        self._sent_at = self._channel.now()
        self.expecting = True
        self._channel.worker_send_update(update, self._largest_reply)

    def look(self) -> None:
        """Take the reply in if it has come."""
        if self.expecting and self._reply is None:
            self._reply = self._channel.worker_poll_reply()
            if self._reply is not None:
                self.round_trip = self._channel.now() - self._sent_at

    def wait(self) -> Bytes:
        """Return the reply to the update under way."""
        self._channel.wait_until(self._has_reply)
        reply, self._reply, self.expecting = self._reply, None, False
        assert reply is not None  # noqa: S101 - just waited for
        return reply

    def _has_reply(self) -> bool:
        self.look()
        return self._reply is not None
