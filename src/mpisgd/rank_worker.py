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
from mpisgd.held_out_part import HeldOutPart
from mpisgd.job import NO_JOB, Job
from mpisgd.leader import Leader
from mpisgd.learner import Learner, ShardFeed
from mpisgd.merging import TurnFacts
from mpisgd.messages import Begun, pack_columns
from mpisgd.rounds import Rounds, rounds_for, shared_memory_for
from mpisgd.scaling import agreed_scales, column_sums, scale
from mpisgd.schedule import EvenSteps, Schedule
from mpisgd.shard import LearningShard, Shard
from mpisgd.shared_memory import SharedMemory
from mpisgd.shared_weights import has_server, memory_for, node_memory_for
from mpisgd.step_search import StepSearch, Trial, tried_by
from mpisgd.updates import Keys
from mpisgd.worker_exchange import WorkerExchange, exchange_for


def work(channel: Channel) -> None:
    """Take part in one training run; returns when told to stop, or when the server found nothing to do."""
    announced = channel.worker_hear()
    if announced == NO_JOB:
        return
    job = Job.from_json(announced)
    shards = ShardFeed(channel, job)
    sync = job.config.mode == "sync"
    first = shards.take()
    held_out = shards.take_held_out() if sync else None
    if channel.worker_hear() == NO_JOB or first is None:
        shards.drain()
        return
    memory = shared_memory_for(channel, job) if sync else (memory_for(channel, job) or node_memory_for(channel, job))
    shards.scales = _scales(channel, job, first)
    if shards.scales is not None:
        first = _scaled(first, held_out, shards.scales)
    job = job.with_scaling(scaled=shards.scales is not None)
    by_messages = not sync and (memory is None or not has_server(memory, job))
    beginning, search = _beginning(channel, job, first, shards.names, by_messages=by_messages)
    if job.measures_turns:
        costs = _sum_told(channel, turn_cost.measured(channel, beginning, first, memory, search.best))
        beginning = beginning.with_turns_worth(turn_cost.worth_an_exchange(costs))
    learner = Learner(beginning.job, first, shards)
    trial = Trial(beginning, first) if job.config.learning_rate is None else None
    with np.errstate(all="ignore"):  # weights that diverge are noticed by their objective
        if held_out is not None:
            _learn_in_lock_step(channel, beginning, memory, learner, held_out, search, trial)
        else:
            exchange = exchange_for(channel, beginning, memory, learner.keys())
            _, schedule = _begin(channel, beginning.job, search, trial)
            work_async(learner, exchange, beginning.job.even_steps(schedule))
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


def _scaled(first: LearningShard, held_out: Shard | None, scales: Float) -> LearningShard:
    """Return the shard with its columns scaled; it and the held-out rows are scaled in place."""
    scale(first.rows, scales)
    if held_out is not None:
        scale(held_out.rows, scales)
    return LearningShard.made_of(first)


def _sum_told(channel: Channel, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sum of all workers' numbers, which the leader tells the server as well."""
    total = channel.worker_sum(values)
    if channel.rank == LEADER:
        channel.leader_tell(total)
    return total


def _beginning(
    channel: Channel, job: Job, shard: LearningShard, names: Keys | None, *, by_messages: bool
) -> tuple[Beginning, StepSearch]:
    """Settle with all others where learning begins; of wide rows, for the columns of these names.

    The leader tells the server: where updates go to it `by_messages`, the facts of all columns.
    """
    facts = row_facts(shard)
    if names is None:
        weights = channel.worker_share_weights(job.column_count)
        facts = channel.worker_sum(facts)
        largest = largest_mean_square(job, facts)
        if channel.rank == LEADER:
            channel.leader_tell(np.concatenate([[largest], facts if by_messages else facts[:3]]))
    else:
        channel.worker_tell_columns(pack_columns(names, facts))
        *of_all, largest = json.loads(channel.worker_hear())
        facts[:3] = of_all
        weights = channel.worker_take_weights()
    return settled(job, weights, facts, largest), StepSearch(job, facts, largest)


def _begin(channel: Channel, job: Job, search: StepSearch, trial: Trial | None) -> tuple[float, Schedule]:
    """Start the clock of training, and settle the first step size with all others where there is a trial of it.

    The leader tells the server. Returns when the clock started, and the step sizes.
    """
    began = channel.now()
    size = job.config.learning_rate if trial is None else _step_size(channel, search, trial)
    assert size is not None  # noqa: S101 - without a trial it is the user's
    if channel.rank == LEADER:
        channel.leader_tell(np.array(Begun(began, channel.now() - began, size)))
    return began, job.schedule(size)


def _step_size(channel: Channel, search: StepSearch, trial: Trial) -> float:
    """Return the first step size, found with all others."""
    while search.to_try:
        tried = tried_by(channel.rank, len(search.to_try), search.rows)
        search.hear(channel.worker_sum(trial.of(search.sizes[search.to_try], tried)))
    return search.best


def _learn_in_lock_step(
    channel: Channel,
    beginning: Beginning,
    memory: SharedMemory | None,
    learner: Learner,
    held_out: Shard,
    search: StepSearch,
    trial: Trial | None,
) -> None:
    """Learn once all that it takes is there."""
    job, rounds = beginning.job, rounds_for(channel, beginning, memory)
    part = HeldOutPart(job, rounds, held_out)
    leader = Leader(channel, job, rounds) if channel.rank == LEADER else None
    began, schedule = _begin(channel, job, search, trial)
    if leader is not None:
        leader.begin(began)
    work_sync(channel, job, learner, rounds, part, schedule, leader)


def work_sync(
    channel: Channel,
    job: Job,
    learner: Learner,
    rounds: Rounds,
    part: HeldOutPart,
    schedule: Schedule,
    leader: Leader | None,
) -> None:
    """Take turns in lock step: each round starts from the same weights and ends with all turns merged into them.

    Changes that the threshold holds back stay in this worker's own weights, and so in its next turn's changes.
    """
    last = False
    while not last:
        step_size = schedule.step_size(rounds.rows)
        turn_began = channel.now()
        judged = part.judged()
        rows = learner.turn(rounds.local, step_size)
        computing = channel.now() - turn_began
        wants = (leader.wants_measuring, leader.wants_stop) if leader is not None else (False, False)
        turn = TurnFacts(*rows, 1 - rounds.local.scale, computing, rounds.round_trip, *judged, *wants)
        facts = rounds.merge(turn, step_size)
        last = facts.stop or job.is_done(rounds.rows)
        part.after_round(facts, last=last)
        if leader is not None:
            leader.after_round(facts, part.occasion)
    _end_sync(channel, leader)


def _end_sync(channel: Channel, leader: Leader | None) -> None:
    """Let the server have the last weights, and wait for its word that the run is over."""
    if leader is not None:
        leader.finish()
    orders_sent = int(channel.worker_hear())
    if leader is not None:
        leader.drain(orders_sent)


def work_async(learner: Learner, exchange: WorkerExchange, steps: EvenSteps) -> None:
    """Take turns at this worker's own pace, and exchange them in memory that ranks share or by messages."""
    while not exchange.stopped:
        before = learner.rows
        exchange.take_turn(learner, steps.after(exchange.rows))
        steps.count(learner.rows - before)
