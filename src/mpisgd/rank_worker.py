"""The worker: owns a shard of the rows and does the arithmetic.

receive a shard; settle with the others where learning begins
repeat: take a turn of `iterations` mini-batch steps; exchange; stop when told
tell the server goodbye
"""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray

from mpisgd import turn_cost
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
from mpisgd.messages import Settled, pack_columns
from mpisgd.rounds import rounds_for, shared_memory_for
from mpisgd.scaling import agreed_scales, column_sums, scale
from mpisgd.shard import LearningShard, Shard
from mpisgd.shared_memory import SharedMemory
from mpisgd.shared_weights import memory_for
from mpisgd.step_search import StepSearch, Trial, tried_by
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
    job = job.with_scaling(scaled=shards.scales is not None)
    beginning, began = _begin(channel, job, first, shards.names, by_messages=not sync and memory is None)
    if job.measures_turns:
        costs = _sum_told(channel, turn_cost.measured(channel, beginning, first, memory))
        beginning = beginning.with_turns_worth(turn_cost.worth_an_exchange(costs))
    learner = Learner(beginning.job, first, shards)
    with np.errstate(all="ignore"):  # weights that diverge are noticed, and reported, by the server
        if sync:
            work_sync(channel, beginning, began, learner, memory)
        else:
            work_async(channel, beginning, began, learner, memory)
    channel.worker_leave()
    if memory is not None:
        memory.free()
    if shards.renews:
        shards.drain()


def _scales(channel: Channel, job: Job, shard: Shard) -> Float | None:
    """Return the columns' scales, if they are to be scaled, settled with all others."""
    return agreed_scales(
        job,
        lambda: _sum_told(channel, column_sums(shard.first(SAMPLE_ROWS).rows)),
        lambda: _sum_told(channel, column_sums(shard.rows)),
    )


def _sum_told(channel: Channel, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sum of all workers' numbers, which the leader tells the server as well."""
    total = channel.worker_sum(values)
    if channel.rank == LEADER:
        channel.leader_tell(total)
    return total


def _begin(
    channel: Channel, job: Job, shard: LearningShard, names: Keys | None, *, by_messages: bool
) -> tuple[Beginning, float]:
    """Settle with all others where learning begins; of wide rows, for the columns of these names.

    The leader tells the server, and where updates go to it `by_messages` and it has them not yet, the facts of all
    columns, too. Returns it, and when all shards were in place.
    """
    facts = row_facts(shard)
    if names is None:
        shared = channel.worker_share_weights(job.column_count)
        facts = channel.worker_sum(facts)
        began, largest = channel.now(), largest_mean_square(job, facts)
    else:
        channel.worker_tell_columns(pack_columns(names, facts))
        *of_all, largest = json.loads(channel.worker_hear())
        began = channel.now()
        facts[:3] = of_all
        shared = channel.worker_take_weights()
    beginning = settled(job, shared, facts, largest)
    size = job.config.learning_rate
    if size is None:
        size = _step_size(channel, beginning, shard, StepSearch(job, facts, largest))
    if channel.rank == LEADER:
        channel.leader_tell(np.array(Settled(channel.now() - began, size, largest, *facts[:3])))
        if by_messages and names is None:
            channel.leader_tell(facts)
    return beginning.with_learning_rate(size), began


def _step_size(channel: Channel, beginning: Beginning, shard: LearningShard, search: StepSearch) -> float:
    """Return the first step size, found with all others."""
    trial = Trial(beginning, shard)
    while search.to_try:
        with np.errstate(all="ignore"):  # large ones may well diverge
            tried = tried_by(channel.rank, len(search.to_try), search.rows)
            found = trial.of(search.sizes[search.to_try], tried)
        search.hear(channel.worker_sum(found))
    return search.best


def work_sync(
    channel: Channel, beginning: Beginning, began: float, learner: Learner, memory: SharedMemory | None
) -> None:
    """Take turns in lock step: each round starts from the same weights and ends with all turns merged into them.

    Changes that the threshold holds back stay in this worker's own weights, and so in its next turn's changes. The
    clock of training started at `began`.
    """
    job, rounds = beginning.job, rounds_for(channel, beginning, memory)
    leader = Leader(channel, job, rounds, began) if channel.rank == LEADER else None
    stops = False
    while not (job.is_done(rounds.rows) or stops):
        step_size = job.step_size(rounds.rows)
        turn_began = channel.now()
        rows = learner.turn(rounds.local, step_size)
        computing = channel.now() - turn_began
        facts = rounds.merge(rows, computing, step_size, stop=leader is not None and leader.wants_stop)
        stops = facts.stop
        if leader is not None:
            leader.after_round(facts)
    _end_sync(channel, leader)


def _end_sync(channel: Channel, leader: Leader | None) -> None:
    """Let the server have the last weights, and wait for its word that the run is over."""
    if leader is not None:
        leader.finish()
    orders_sent = int(channel.worker_hear())
    if leader is not None:
        leader.drain(orders_sent)


def work_async(
    channel: Channel, beginning: Beginning, began: float, learner: Learner, memory: SharedMemory | None
) -> None:
    """Take turns at this worker's own pace, and exchange them in memory that all ranks share or by messages."""
    exchange = exchange_for(channel, beginning, memory, learner.keys(), began)
    while not exchange.stopped:
        exchange.take_turn(learner)
