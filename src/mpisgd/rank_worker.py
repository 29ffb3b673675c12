"""The worker: owns a shard of the rows and does the arithmetic.

receive a shard; settle with the others where learning begins
repeat: take a turn of `iterations` mini-batch steps; exchange; stop when told
tell the server goodbye
"""

from __future__ import annotations

import json

import numpy as np

from mpisgd import turn_cost, vector_loops
from mpisgd.beginning import (
    SAMPLE_ROWS,
    Beginning,
    largest_mean_square,
    row_facts,
    settled,
)
from mpisgd.channel import LEADER, Channel
from mpisgd.compiled_loops import Float
from mpisgd.job import NO_JOB, Job
from mpisgd.leader import Leader
from mpisgd.learner import Learner, ShardFeed
from mpisgd.messages import pack_columns
from mpisgd.rounds import rounds_for, shared_memory_for
from mpisgd.scaling import agreed_scales, column_sums, scale
from mpisgd.shard import LearningShard, Shard
from mpisgd.shared_memory import SharedMemory
from mpisgd.shared_weights import memory_for
from mpisgd.step_search import StepSearch, Trial, tried_by
from mpisgd.svm import ScaledVector
from mpisgd.updates import Keys
from mpisgd.worker_exchange import exchange_for


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
    sync = job.config.mode == "sync"
    memory = shared_memory_for(channel, job) if sync else memory_for(channel, job)
    shards.scales = _scales(channel, job, first)
    if shards.scales is not None:
        scale(first.rows, shards.scales)
        first = LearningShard.made_of(first)
    beginning = _begin(channel, job.with_scaling(scaled=shards.scales is not None), first, shards.names)
    if job.measures_turns:
        costs = channel.worker_sum(turn_cost.measured(channel, beginning, first, memory))
        beginning = beginning.with_turns_worth(turn_cost.worth_an_exchange(costs))
    learner = Learner(beginning.job, first, shards)
    with np.errstate(all="ignore"):  # weights that diverge are noticed, and reported, by the server
        if sync:
            work_sync(channel, beginning, learner, memory)
        else:
            work_async(channel, beginning, learner, memory)
    channel.worker_leave()
    if memory is not None:
        memory.free()
    if shards.renews:
        shards.drain()


def _scales(channel: Channel, job: Job, shard: Shard) -> Float | None:
    """Return the columns' scales, if they are to be scaled, settled with all others."""
    return agreed_scales(
        job,
        lambda: channel.worker_sum(column_sums(shard.first(SAMPLE_ROWS).rows)),
        lambda: channel.worker_sum(column_sums(shard.rows)),
    )


def _begin(channel: Channel, job: Job, shard: LearningShard, names: Keys | None) -> Beginning:
    """Settle with all others where learning begins; of wide rows, for the columns of these names."""
    facts = row_facts(shard)
    if names is None:
        shared = channel.worker_share_weights(job.column_count)
        facts = channel.worker_sum(facts)
        largest = largest_mean_square(job, facts)
    else:
        channel.worker_tell_columns(pack_columns(names, facts))
        *of_all, largest = json.loads(channel.worker_hear())
        facts[:3] = of_all
        shared = channel.worker_take_weights()
    beginning = settled(job, shared, facts, largest)
    size = job.config.learning_rate
    if size is None:
        search, trial = StepSearch(job, facts, largest), Trial(beginning, shard)
        while search.to_try:
            with np.errstate(all="ignore"):  # large ones may well diverge
                tried = tried_by(channel.rank, len(search.to_try), facts[0])
                found = trial.of(search.sizes[search.to_try], tried)
            search.hear(channel.worker_sum(found))
        size = search.best
    return beginning.with_learning_rate(size)


def work_sync(channel: Channel, beginning: Beginning, learner: Learner, memory: SharedMemory | None) -> None:
    """Take turns in lock step: each round starts from the same weights and ends with all turns merged into them.

    Changes that the threshold holds back stay in this worker's own weights, and so in its next turn's changes.
    """
    job, rounds = beginning.job, rounds_for(channel, beginning, memory)
    shared, exchange = rounds.weights, rounds.exchange
    leader = Leader(channel, job, rounds) if channel.rank == LEADER else None
    local = ScaledVector(shared.copy())
    threshold = job.config.gradient_threshold
    rows_done, round_trip = 0, 0.0
    while not (job.is_done(rows_done) or exchange.stops):
        step_size = job.step_size(rows_done)
        began = channel.now()
        rows = learner.turn(local, step_size)
        computing = channel.now() - began
        changes_sent, changes = vector_loops.subtract(local.vector, shared, local.scale, threshold, exchange.changes)
        withheld = None
        if threshold > 0:
            sent = exchange.changes != 0
            withheld = np.where(sent, np.float32(0), (local.vector - shared) * np.float32(local.scale))
        exchange.fill_slots(
            channel.rank,
            rows=rows,
            changes_sent=changes_sent,
            changes=changes,
            round_trip=round_trip,
            computing=computing,
            log_decay=float(np.log(local.scale)),
            stop=leader is not None and leader.wants_stop,
        )
        round_trip = rounds.merge(step_size)
        rows_done += int(exchange.turns[:, 0].sum(dtype=np.float64))
        if leader is not None:
            leader.after_round()
        np.copyto(local.vector, shared)
        local.scale = 1.0
        if withheld is not None:
            local.vector += withheld
    _end_sync(channel, leader)


def _end_sync(channel: Channel, leader: Leader | None) -> None:
    """Let the server have the last weights, and wait for its word that the run is over."""
    if leader is not None:
        leader.finish()
    orders_sent = int(channel.worker_hear())
    if leader is not None:
        leader.drain(orders_sent)


def work_async(channel: Channel, beginning: Beginning, learner: Learner, memory: SharedMemory | None) -> None:
    """Take turns at this worker's own pace, and exchange them in memory that all ranks share or by messages."""
    exchange = exchange_for(channel, beginning, memory, learner.keys())
    while not exchange.stopped:
        exchange.take_turn(learner)
