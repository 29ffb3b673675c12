"""Rank 0's whole run: find the rows, announce the job, send the shards, serve, and leave the results."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpisgd import turn_cost
from mpisgd.beginning import Beginning, largest_mean_square, settled
from mpisgd.channel import Channel, Nodes
from mpisgd.command_line import training_values
from mpisgd.compiled_loops import Float
from mpisgd.config import Config
from mpisgd.console import Console
from mpisgd.crew import Crew
from mpisgd.data.dataset import Dataset, MemoryDataset, open_dataset
from mpisgd.errors import DataError, MpisgdError, RunError, UsageError
from mpisgd.generated import DEFAULT_ROWS, DEFAULT_TEST_ROWS, generate
from mpisgd.interrupt import Interrupt
from mpisgd.job import LEARN, NO_JOB, READY, Job
from mpisgd.messages import Begun, pack_rows_end, unpack_columns
from mpisgd.model import Model, load_model
from mpisgd.monitor import Monitor
from mpisgd.preprocessing import Preprocessing
from mpisgd.rank0_rows import (
    HeldOut,
    RowPlan,
    SampleSender,
    read_learning_rows,
    read_split,
    scatter_held_out,
    scatter_partition,
)
from mpisgd.rank0_server import serve
from mpisgd.results import announce_training, leave_results, log_training
from mpisgd.run_log import RunLog, make_run_directory
from mpisgd.scaling import agreed_scales
from mpisgd.settings import resolve
from mpisgd.shard import Shard
from mpisgd.shared_memory import SharedMemory
from mpisgd.shared_weights import SharedWeights, memory_for
from mpisgd.weights import ServerWeights

# Of the size of the weights that a rank holds at once: the asynchronous server its weights, their versions (8 bytes),
# counts, curvatures, average, scales and an update with its keys; before, sums in float64. Beside them, a reply for
# each worker where these are of all columns.
VECTORS = 16
GENERATED_NOTE = (
    "no --data: learning a generated set shaped like RCV1, made up and of no meaning."
    " The real one: python data/prepare_rcv1.py --download libsvm"
)


def train(channel: Channel, arguments: Sequence[str], environment: Mapping[str, str], interrupt: Interrupt) -> None:
    """Train on all ranks of the channel, from rank 0, with the settings of the command line and its like.

    Raises:
        MpisgdError: something was wrong; every worker has been told to leave.

    """
    with Console() as console:
        with _on_error(lambda: channel.server_announce(NO_JOB)), interrupt.immediate():
            config = resolve(training_values(arguments), environment)
            job, dataset, plan, initial, directory = _set_up(channel, config, console)
        channel.server_announce(job.to_json())
        with dataset:
            with _on_error(lambda: _end_rows(channel)), interrupt.immediate():
                held_out, samples = _send_rows(channel, job, dataset, plan)
                log = RunLog(directory)  # not before all rows are known to be good: it empties an earlier run's
            channel.server_announce(LEARN)
            memory = memory_for(channel, job) if config.mode == "async" else None
            by_messages = config.mode == "async" and memory is None
            nodes = channel.server_hear_nodes() if by_messages else {}
            scales = agreed_scales(job, channel.server_hear_leader, channel.server_hear_leader)
            job = job.with_scaling(scaled=scales is not None)
            if scales is not None:
                held_out.scale_columns(scales)
                initial /= scales
            announce_training(job, console)
            beginning = _beginning(channel, job, initial, by_messages=by_messages)
            if job.measures_turns:
                beginning = _turns_measured(channel, beginning, memory, nodes)
            merged = _merged_weights(channel, beginning, memory)
            begun = Begun(*channel.server_hear_leader(hurry=by_messages).tolist())
            schedule = beginning.job.schedule(begun.step_size)
            job = beginning.job.with_schedule(schedule)
            began = begun.at if memory is not None else channel.now() - begun.seconds
            monitor = Monitor(job, schedule, held_out.measured, log, console, interrupt, channel.now, began=began)
            log_training(job, dataset.name, monitor, list(nodes.values()))
            with np.errstate(all="ignore"):  # weights that diverge are noticed by their objective
                weights = serve(channel, beginning, monitor, Crew(channel, monitor, samples), merged, nodes)
            leave_results(job, dataset.classes, monitor, weights, scales, held_out, log, console)


def _beginning(channel: Channel, job: Job, weights: Float, *, by_messages: bool) -> Beginning:
    """Hear where learning begins, which the workers settle.

    The curvatures this rank knows only where it merges updates itself, which come `by_messages`. Elsewhere nobody waits
    for it: it lets the workers have the cores.
    """
    if job.wide:
        facts = _wide_facts(channel, job, weights)
        return settled(job, weights, facts, largest_mean_square(job, facts))
    channel.server_share_weights(weights)
    told = channel.server_hear_leader(hurry=by_messages)
    return settled(job, weights, told[1:], float(told[0]))


def _merged_weights(
    channel: Channel, beginning: Beginning, memory: SharedMemory | None
) -> SharedWeights | ServerWeights | None:
    """Return the weights that asynchronous turns are merged into; the clock of training waits until they are there."""
    if memory is not None:
        return SharedWeights(channel, beginning, memory)
    if beginning.job.config.mode == "sync":
        return None
    weights = ServerWeights(beginning.weights, beginning.curvatures)
    channel.server_announce(READY)
    return weights


def _turns_measured(channel: Channel, beginning: Beginning, memory: SharedMemory | None, nodes: Nodes) -> Beginning:
    """Return the same with turns as long as what the workers measure suggests."""
    turn_cost.serve(channel, beginning, memory, nodes)
    costs = channel.server_hear_leader(hurry=False)
    return beginning.with_turns_worth(turn_cost.worth_an_exchange(costs))


def _wide_facts(channel: Channel, job: Job, weights: Float) -> NDArray[np.float64]:
    """Return the sum of the workers' facts, where each has, and is given, the weights of its own columns alone."""
    told = channel.server_take_columns()
    facts = np.zeros(3 + job.column_count)
    for message in told.values():
        names, some = unpack_columns(message)
        facts[:3] += some[:3]
        facts[3 + names] += some[3:]  # a worker names a column once
    channel.server_announce(json.dumps([*facts[:3].tolist(), largest_mean_square(job, facts)]))
    for worker, message in told.items():
        channel.server_give_weights(worker, weights[unpack_columns(message)[0]])
    channel.wait_until_sent()
    return facts


@contextmanager
def _on_error(tell_workers: Callable[[], None]) -> Iterator[None]:
    """Let the workers, who wait for what is being made, know that it will not come."""
    try:
        yield
    except MpisgdError:
        tell_workers()
        raise


def _end_rows(channel: Channel) -> None:
    """Tell the workers that wait for rows, and those that have all of theirs already."""
    for worker in channel.workers:
        channel.server_send_rows(worker, pack_rows_end())
    channel.server_announce(NO_JOB)
    channel.wait_until_sent()


def _set_up(channel: Channel, config: Config, console: Console) -> tuple[Job, Dataset, RowPlan, Float, Path]:
    """Find everything that can be wrong before a row travels."""
    if config.done_file is not None:
        _remove_done_file(Path(config.done_file))
    dataset = _open(config, console)
    model = load_model(Path(config.initial_model)) if config.initial_model is not None else None
    if model is not None and config.scale_columns == "auto":
        config = replace(config, scale_columns=model.config.scale_columns)
    plan = RowPlan(dataset, config, len(channel.workers))
    row_length = float(dataset.row_lengths("train").mean())
    workers = len(channel.workers)
    job = Job.planned(
        config, dataset.column_count, plan.learning_rows, workers, row_length, held_out_rows=plan.held_out_rows
    )
    initial = _initial_weights(job, dataset, model)
    directory = make_run_directory(config.run_dir, force=config.force)
    return job, dataset, plan, initial, directory


def _remove_done_file(path: Path) -> None:
    try:
        path.touch()  # so that it is known now whether it can be written in the end
        path.unlink()
    except OSError as error:
        raise RunError(f"done file {path}: cannot write or remove it: {error.strerror}") from error


def _open(config: Config, console: Console) -> Dataset:
    if config.data is not None:
        return open_dataset(Path(config.data), split_for_text="train")
    console.say(GENERATED_NOTE)
    made = generate(DEFAULT_ROWS, DEFAULT_TEST_ROWS, config.seed)
    parts = {"train": (made.rows, made.labels), "test": (made.test_rows, made.test_labels)}
    return MemoryDataset("generated", made.rows.column_count, ("-1", "1"), parts)


def _initial_weights(job: Job, dataset: Dataset, model: Model | None) -> Float:
    """Return zeros, or a saved model's weights, float32 (column_count,)."""
    replies = job.workers if job.config.mode == "async" and not job.by_keys else 0
    needed = 4 * (VECTORS + replies) * job.column_count
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > memory:
        raise DataError(
            f"{dataset.name}: found {dataset.column_count} columns, expected as many weights to fit in memory:"
            f" a rank needs some {needed / 1e9:.0f} GB, this host has {memory / 1e9:.0f} GB"
        )
    if model is None:
        return np.zeros(job.column_count, np.float32)
    path = job.config.initial_model
    if model.feature_count != dataset.column_count:
        raise DataError(
            f"{path}: found a model of {model.feature_count} features, expected {dataset.column_count}"
            f" as in {dataset.name}"
        )
    if model.preprocessing != job.preprocessing:
        raise UsageError(
            f"{path}: found a model with {_words(model.preprocessing)}, expected {_words(job.preprocessing)} as set"
        )
    if model.config.scale_columns not in ("auto", job.config.scale_columns):
        raise UsageError(
            f"{path}: found a model with scale_columns {model.config.scale_columns}, expected"
            f" {job.config.scale_columns} as set: its penalty would be on other weights"
        )
    return model.vector()


def _words(preprocessing: Preprocessing) -> str:
    return ", ".join(f"{name} {str(value).lower()}" for name, value in asdict(preprocessing).items())


def _send_rows(channel: Channel, job: Job, dataset: Dataset, plan: RowPlan) -> tuple[HeldOut, SampleSender | None]:
    """Send the shards, or the first samples; read what is held out while the workers shuffle theirs.

    In lock step they measure together, so each is sent a part of that as well.
    """
    samples = None
    if job.config.sharding == "partition":
        nobodys = scatter_partition(channel, dataset, plan.owner)
        channel.wait_until_sent()
    else:
        learning, nobodys = read_learning_rows(dataset, plan.owner)
        samples = SampleSender(channel, learning, job.config.seed)
        for worker in channel.workers:
            samples.begin(worker)
        samples.finish()
    held_out = _held_out(dataset, plan.measured_split, nobodys, job.preprocessing)
    if job.config.mode == "sync":
        scatter_held_out(channel, held_out.measured)
        channel.wait_until_sent()
    return held_out, samples


def _held_out(dataset: Dataset, measured_split: str | None, nobodys: Shard, prepare: Preprocessing) -> HeldOut:
    """Return what is held out; measured are the training rows of nobody where the file has no split for it."""
    test = read_split(dataset, "test", prepare) if dataset.splits.get("test") else None
    if measured_split is None:
        return HeldOut(Shard(prepare.apply(nobodys.rows).narrow(), nobodys.labels), test)
    if measured_split == "test" and test is not None:
        return HeldOut(test, test)
    return HeldOut(read_split(dataset, measured_split, prepare), test)
