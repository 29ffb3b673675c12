"""The worker: owns a shard of the rows and does the arithmetic.

receive a shard; settle with the others where learning begins
repeat: take a turn of `iterations` mini-batch steps; exchange; stop when told
tell the server goodbye
"""

from __future__ import annotations

import numpy as np

from mpisgd import vector_loops
from mpisgd.beginning import Beginning, best_step_size, row_facts, settled, step_sizes, try_step_sizes
from mpisgd.channel import LEADER, Channel
from mpisgd.compiled_loops import Float
from mpisgd.job import NO_JOB, Job
from mpisgd.leader import Leader
from mpisgd.learner import Learner, ShardFeed
from mpisgd.merging import Exchange
from mpisgd.messages import UpdateHeader, largest_reply, pack_update, unpack_reply
from mpisgd.shard import Shard
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
    if channel.worker_hear() == NO_JOB or first is None:
        shards.drain()
        return
    beginning = _begin(channel, job, first)
    learner = Learner(beginning.job, first, shards)
    with np.errstate(all="ignore"):  # weights that diverge are noticed, and reported, by the server
        (work_sync if job.config.mode == "sync" else work_async)(channel, beginning, learner)
    channel.worker_leave()
    if shards.renews:
        shards.drain()


def _begin(channel: Channel, job: Job, shard: Shard) -> Beginning:
    """Settle with all others where learning begins."""
    shared = channel.worker_share_weights(job.column_count)
    facts = channel.worker_sum(row_facts(shard))
    beginning = settled(job, shared, facts)
    size = job.config.learning_rate
    if size is None:
        sizes = step_sizes(job, facts)
        with np.errstate(all="ignore"):  # the largest may well diverge
            tried = try_step_sizes(beginning, shard, sizes)
        size = best_step_size(sizes, channel.worker_sum(tried))
    return beginning.with_learning_rate(size)


def work_sync(channel: Channel, beginning: Beginning, learner: Learner) -> None:
    """Take turns in lock step: each round starts from the same weights and ends in one Allreduce.

    Changes that the threshold holds back stay in this worker's own weights, and so in its next turn's changes.
    """
    job, shared = beginning.job, beginning.weights
    exchange = Exchange(len(channel.workers), job.config.merge, beginning.curvatures)
    leader = Leader(channel, job) if channel.rank == LEADER else None
    local = ScaledVector(shared.copy())
    threshold = job.config.gradient_threshold
    rows_done, round_trip = 0, 0.0
    while not (job.is_done(rows_done) or exchange.stops):
        step_size = job.step_size(rows_done)
        rows = learner.turn(local, step_size)
        changes_sent = vector_loops.subtract(local.vector, shared, local.scale, threshold, exchange.changes)
        withheld = None
        if threshold > 0:
            sent = exchange.changes != 0
            withheld = np.where(sent, np.float32(0), (local.vector - shared) * np.float32(local.scale))
        mine, total = exchange.buffers(
            channel.rank,
            rows=rows,
            changes_sent=changes_sent,
            round_trip=round_trip,
            log_decay=float(np.log(local.scale)),
            stop=leader is not None and leader.wants_stop,
        )
        sent_at = channel.now()
        channel.worker_merge(mine, total)
        round_trip = channel.now() - sent_at
        exchange.merge(shared, step_size)
        rows_done += int(exchange.turns[:, 0].sum(dtype=np.float64))
        if leader is not None:
            leader.after_round(shared, exchange, mine.nbytes)
        np.copyto(local.vector, shared)
        local.scale = 1.0
        if withheld is not None:
            local.vector += withheld
    _end_sync(channel, leader, shared)


def _end_sync(channel: Channel, leader: Leader | None, shared: Float) -> None:
    """Let the server have the last weights, and wait for its word that the run is over."""
    if leader is not None:
        leader.finish(shared)
    orders_sent = int(channel.worker_hear())
    if leader is not None:
        leader.drain(orders_sent)


def work_async(channel: Channel, beginning: Beginning, learner: Learner) -> None:
    """Take turns at this worker's own pace: while an update and its reply travel, the next turn is computed.

    The reply is taken in between two steps, as soon as it is there, so the rest of the turn has fresher weights.
    """
    job = beginning.job
    mailbox = Mailbox(channel, job, WorkerWeights(beginning.weights))
    while True:
        version, rows_known = mailbox.version, mailbox.rows
        rows = learner.turn(mailbox.weights.local, job.step_size(rows_known), mailbox.look)
        mailbox.wait()
        if mailbox.stopped:
            return
        mailbox.send_turn(version, rows)


class Mailbox:
    """A worker's exchange with the server, one update under way at most, and its copy of the weights."""

    def __init__(self, channel: Channel, job: Job, weights: WorkerWeights) -> None:
        self._channel = channel
        self._threshold = job.config.gradient_threshold
        self._largest_reply = largest_reply(job.column_count)
        self._sent_at: float | None = None  # of the update under way
        self._round_trip = 0.0  # s, of the last update whose reply has come
        self.weights = weights
        self.version = 0  # of the server's weights that these contain, the update under way counted in
        self.rows = 0  # processed by all workers as far as known, the update under way counted in
        self.stopped = False

    def send_turn(self, version: int, rows: int) -> None:
        """Send what changed in a turn of `rows` rows that began from that version; waits for nothing."""
        turn = self.weights.take_turn(self._threshold)
        header = UpdateHeader(version, rows, turn.decay, self._round_trip)
        self._sent_at = self._channel.now()
        self._channel.worker_send_update(pack_update(header, turn.columns, turn.changes), self._largest_reply)
        self.version += 1
        self.rows += rows

    def look(self) -> bool:
        """Take in the reply if one is due and has come; tell whether one is still due."""
        if self._sent_at is None:
            return False
        if (content := self._channel.worker_poll_reply()) is None:
            return True
        self._round_trip, self._sent_at = self._channel.now() - self._sent_at, None
        header, columns, values = unpack_reply(content)
        self.stopped, self.version, self.rows = header.stop, header.version, header.rows
        self.weights.hear(header, columns, values)
        return False

    def wait(self) -> None:
        """Wait for the reply to the update under way, if there is one."""
        self._channel.wait_until(lambda: not self.look())
