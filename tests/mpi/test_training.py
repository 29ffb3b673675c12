"""Whole training runs on the ranks of this job, held to the slow twin and to what every run must keep."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
from mpi4py import MPI
from runs import SMALL, run

from mpisgd import rank_worker, training
from mpisgd.channel import SERVER, Channel
from mpisgd.config import Config
from mpisgd.data.dataset import Block, MemoryDataset, open_dataset
from mpisgd.errors import DataError
from mpisgd.interrupt import Interrupt
from mpisgd.messages import pack_rows
from mpisgd.preprocessing import Preprocessing
from mpisgd.rank0_rows import RowPlan
from mpisgd.sharding import NOBODY
from mpisgd.turns import turn_rows
from slow_twin import twin_run, twin_sync

pytestmark = pytest.mark.mpi(min_size=2)
SYNC, ASYNC = ("--mode", "sync"), ("--mode", "async")
BY_MESSAGES = ("--shared-memory", "never")
ALL_WAYS = pytest.mark.parametrize("way", [SYNC, ASYNC, (*SYNC, *BY_MESSAGES), (*ASYNC, *BY_MESSAGES)], ids=" ".join)


def test_two_sync_runs_with_one_seed_have_the_same_bits(channel: Channel, tmp_path: Path, data: Path):
    for sharding in ("partition", "sample"):
        arguments = ("--data", str(data), "--seed", "4", "--sharding", sharding, "--patience", "2")
        first = run(channel, tmp_path / f"{sharding}1", *arguments)
        second = run(channel, tmp_path / f"{sharding}2", *arguments)
        other = run(channel, tmp_path / f"{sharding}3", *arguments, "--seed", "5")
        if first and second and other:
            np.testing.assert_array_equal(first.weights, second.weights)
            assert not np.array_equal(first.weights, other.weights)


@ALL_WAYS
@pytest.mark.parametrize("sharding", ["partition", "sample"])
def test_every_worker_is_told_once_and_gone_once(channel, tmp_path, data, way, sharding):
    result = run(channel, tmp_path / "run", "--data", str(data), *way, "--sharding", sharding, *SMALL)
    if result:
        names = [event["event"] for event in result.events]
        assert names[0] == "training"
        assert names[-1] == "finished"
        for name in ("worker_told", "worker_gone"):
            told = [event["worker"] for event in result.events if event["event"] == name]
            assert sorted(told) == list(channel.workers)
        for worker in channel.workers:
            of_worker = [event["event"] for event in result.events if event.get("worker") == worker]
            assert of_worker == ["worker_told", "worker_gone"]


@ALL_WAYS
def test_what_was_counted_is_what_was_done(channel, tmp_path, data, way):
    result = run(channel, tmp_path / "run", "--data", str(data), *way, *SMALL)
    if result:
        last = result.metrics[-1]
        workers, turn = len(channel.workers), 4 * 5
        assert last["rows"] <= last["updates"] * turn
        assert last["passes"] == pytest.approx(last["rows"] / 285)  # 5 % of 300 rows are held out
        assert 3 <= last["passes"] < 3 + 2 * workers * turn / 285
        assert [line["rows"] for line in result.metrics] == sorted(line["rows"] for line in result.metrics)
        assert last["bytes_up"] > 0
        assert last["bytes_down"] > 0
        assert last["staleness_max"] >= (0 if "sync" in way or workers == 1 else 1)
        assert last["round_trip_p99"] >= last["round_trip_p50"] > 0


@ALL_WAYS
@pytest.mark.parametrize("iterations", ["2", "1000"])
def test_measuring_at_fixed_times_goes_on_to_the_end(channel, tmp_path, data, way, iterations):
    """In lock step the server asks for each: a question that meets a pass must not be lost, and some turns end one."""
    limits = ("--eval-interval", "0.001", "--passes", "none", "--max-seconds", "0.5", "--patience", "none")
    result = run(channel, tmp_path / "run", "--data", str(data), *way, *limits, "--iterations", iterations)
    if result:
        seconds = [line["seconds"] for line in result.metrics if line["occasion"] == "time"]
        assert max(seconds) > 0.3


@ALL_WAYS
def test_the_target_ends_a_run(channel, tmp_path, data, way):
    arguments = ("--data", str(data), *way, "--target-accuracy", "0.6", "--passes", "none")
    result = run(channel, tmp_path / "run", *arguments)
    if result:
        shutdown = next(event for event in result.events if event["event"] == "shutdown")
        assert shutdown["reason"] == "target_accuracy"
        assert any(line["accuracy"] >= 0.6 for line in result.metrics)


@pytest.mark.parametrize("memory", ["auto", "never"])
@pytest.mark.parametrize("option", [(), ("--scale-columns", "never"), ("--sharding", "sample")], ids=" ".join)
def test_workers_in_lock_step_measure_what_the_server_measures_in_the_end(channel, tmp_path, uneven, memory, option):
    """The longer run begins with the shorter one."""
    arguments = ("--data", str(uneven), *SYNC, "--shared-memory", memory, *SMALL, *option)
    for passes in (1, 2):
        longer = run(channel, tmp_path / f"longer{passes}", *arguments, "--passes", "4")
        shorter = run(channel, tmp_path / f"shorter{passes}", *arguments, "--passes", str(passes))
        if longer and shorter:
            measured, last = longer.metrics[passes - 1], shorter.metrics[-1]
            assert (measured["occasion"], last["occasion"]) == ("pass", "end")
            for name in ("rows", "passes", "updates", "changes", "accuracy", "merge_weight"):
                assert measured[name] == last[name]
            assert measured["objective"] == pytest.approx(last["objective"], rel=1e-5)


@ALL_WAYS
def test_the_weights_kept_are_those_that_were_best_after_a_pass(channel, tmp_path, data, way):
    arguments = ("--data", str(data), *way, *SMALL, "--learning-rate", "30", "--no-averaging")
    early = (*arguments, "--patience", "3", "--passes", "40")
    result = run(channel, tmp_path / "run", *early)
    if result:
        best = min(result.metrics, key=lambda line: line["objective"])
        assert result.events[-1]["kept_passes"] == best["passes"]
        assert "async" in way or best["passes"] < result.metrics[-1]["passes"]  # as the same seed ends the same way
        dataset = open_dataset(data, split_for_text="train")
        config = config_of(tmp_path / "run")
        held_out = np.flatnonzero(RowPlan(dataset, config, len(channel.workers)).owner == NOBODY)
        (block,) = dataset.blocks("train")
        rows = Preprocessing(config.bias, config.normalize).apply(block.rows).take(held_out)
        margins = rows.margins(result.weights, 0, len(rows)) * block.labels[held_out]
        assert np.mean(margins > 0) == best["accuracy"] == result.events[-1]["measured"]
        penalty = config.regularization / 2 * np.dot(result.weights, result.weights)
        assert penalty + np.maximum(0, 1 - margins).mean() == pytest.approx(best["objective"], rel=1e-4)


@ALL_WAYS
def test_a_threshold_sends_less_and_still_learns(channel, tmp_path, data, way):
    arguments = ("--data", str(data), *way, "--passes", "20", "--patience", "none")
    everything = run(channel, tmp_path / "all", *arguments)
    large_only = run(channel, tmp_path / "large", *arguments, "--gradient-threshold", "0.02")
    if everything and large_only:
        assert large_only.metrics[-1]["changes_sent"] < 0.9 * everything.metrics[-1]["changes_sent"]
        margins = [s.rows.margins(large_only.weights, 0, len(s.rows)) * s.labels for s in large_only.shards]
        assert np.mean(np.concatenate(margins) > 0) > 0.75


def config_of(directory: Path) -> Config:
    """The run's own resolved config, its learning rate settled."""
    values = tomllib.loads((directory / "config.toml").read_text())
    return Config(**{name: None if value == "none" else value for name, value in values.items()})


def as_by_the_twin(memory: str, threshold: str, loss: str) -> tuple[str, ...]:
    """The settings of a run that the serial twin computes as well."""
    exchange = ("--shared-memory", memory, "--gradient-threshold", threshold)
    return *SMALL, *exchange, "--loss", loss, "--regularization", "0.001"


@pytest.mark.parametrize("threshold", ["0", "0.003"])
@pytest.mark.parametrize("merge", ["mean", "sum", "damped"])
@pytest.mark.parametrize("loss", ["hinge", "logistic"])
@pytest.mark.parametrize("memory", ["auto", "never"])
def test_sync_equals_the_serial_computation_of_the_same_merging(
    channel, tmp_path, data, merge, threshold, loss, memory
):
    """In memory that the workers share, and by Allreduce."""
    options = ("--data", str(data), "--merge", merge, *as_by_the_twin(memory, threshold, loss))
    result = run(channel, tmp_path / "run", *options)
    if result:
        assert result.events[-1]["in_memory"] == (memory == "auto" and len(channel.workers) > 1)
        gains = {"mean": 1 / len(channel.workers), "sum": 1.0}
        if merge in gains:
            assert result.metrics[-1]["merge_weight"] == pytest.approx(gains[merge], rel=1e-5)
        config = config_of(tmp_path / "run")
        shards = [shard.rows for shard in result.shards], [shard.labels for shard in result.shards]
        np.testing.assert_allclose(
            result.last, twin_sync(*shards, config, 285, result.events[0]["bias_step"]), rtol=1e-3, atol=2e-5
        )


@ALL_WAYS
@pytest.mark.parametrize("sharding", ["partition", "sample"])
def test_turns_may_be_as_long_as_exchanges_are_found_to_take(channel, tmp_path, data, way, sharding):
    arguments = ("--data", str(data), *way, "--sharding", sharding, "--batch-size", "2")
    result = run(channel, tmp_path / "run", *arguments, "--iterations", "auto")
    if result:
        config = config_of(tmp_path / "run")
        workers, length = len(channel.workers), 4.5
        bounds = [turn_rows(config, 30, 285, workers, length, worth_it) for worth_it in (0, 1e9)]
        assert bounds[0] <= 2 * config.iterations <= bounds[1] + 2
        assert config.iterations == result.events[0]["iterations"]


@ALL_WAYS
@pytest.mark.parametrize("sharding", ["partition", "sample"])
def test_columns_of_uneven_sizes_are_learnt_scaled_and_left_as_they_are(channel, tmp_path, uneven, way, sharding):
    options = ("--data", str(uneven), *way, "--sharding", sharding, "--no-bias", *SMALL, "--passes", "20")
    result = run(channel, tmp_path / "run", *options)
    if result:
        assert result.events[0]["scale_columns"] == "always"
        learnt = result.last != 0
        scales = result.weights[learnt] / result.last[learnt]
        np.testing.assert_array_equal(scales, np.exp2(np.rint(np.log2(scales))))
        dataset = open_dataset(uneven, split_for_text="train")
        (block,) = dataset.blocks("train")
        right = block.rows.margins(result.weights, 0, len(block.rows)) * block.labels > 0
        assert np.mean(right) > 0.85
        held_out = RowPlan(dataset, config_of(tmp_path / "run"), len(channel.workers)).owner == NOBODY
        assert np.mean(right[held_out]) == result.metrics[-1]["accuracy"]
        if "sync" in way and sharding == "partition":
            shards = [shard.rows for shard in result.shards], [shard.labels for shard in result.shards]
            expected = twin_sync(*shards, config_of(tmp_path / "run"), 285, 1.0)
            np.testing.assert_allclose(result.last, expected, rtol=1e-3, atol=2e-5)
    model = ("--initial-model", str(tmp_path / "run" / "model.h5"), "--learning-rate", "1e-12", "--regularization", "0")
    again = run(channel, tmp_path / "again", *options, *model)
    if result and again:
        assert again.events[0]["scale_columns"] == "always"
        np.testing.assert_allclose(again.weights, result.weights, rtol=1e-4)


@pytest.mark.skipif(MPI.COMM_WORLD.size != 2, reason="with one worker alone is async the serial program")
@pytest.mark.parametrize("iterations", ["4", "40"])
@pytest.mark.parametrize("threshold", ["0", "0.003"])
@pytest.mark.parametrize("loss", ["hinge", "squared_hinge", "logistic"])
@pytest.mark.parametrize("memory", ["auto", "never"])
def test_async_with_one_worker_equals_the_serial_twin(channel, tmp_path, data, memory, loss, threshold, iterations):
    options = ("--data", str(data), *ASYNC, *as_by_the_twin(memory, threshold, loss), "--iterations", iterations)
    result = run(channel, tmp_path / "run", *options)
    if result:
        (shard,) = result.shards
        config = config_of(tmp_path / "run")
        by_keys = result.events[0]["by_keys"]
        assert by_keys == (iterations == "4" and threshold == "0")
        bias_step = result.events[0]["bias_step"]
        expected = twin_run([shard.rows], [shard.labels], config, 285, bias_step, by_keys=by_keys)
        np.testing.assert_allclose(result.last, expected, rtol=1e-3, atol=2e-5)
        assert result.metrics[-1]["staleness_max"] == 0


@pytest.mark.parametrize("sharding", ["partition", "sample"])
@pytest.mark.parametrize("rows_read", [0, 150, 300])
def test_rows_that_cannot_be_read_on_send_every_worker_home(channel, tmp_path, data, monkeypatch, sharding, rows_read):
    """However far the rows have come: workers may have none of theirs, some, or all."""

    def failing(self, split, **_):
        rows, labels = self._parts[split]
        yield Block(rows.part(0, rows_read), labels[:rows_read], 0)
        raise DataError("rows.svm: the disk is gone")

    monkeypatch.setattr(MemoryDataset, "blocks", failing)
    fails_as_the_disk_is_gone(channel, tmp_path, "--data", str(data), "--sharding", sharding)


@pytest.mark.parametrize("blocks_sent", [0, 1, 2])
def test_held_out_rows_that_cannot_be_sent_send_every_worker_home(channel, tmp_path, data, monkeypatch, blocks_sent):
    """All workers have their shards then; some wait for their part of these."""

    def failing(channel, held_out):
        for block, worker in zip(range(blocks_sent), channel.workers, strict=False):
            part = held_out.first(1 + block)
            packed = pack_rows(part.rows, part.labels, 2, 2 * part.rows.elements)
            channel.server_send_rows(worker, packed)
        raise DataError("rows.svm: the disk is gone")

    monkeypatch.setattr(training, "scatter_held_out", failing)
    fails_as_the_disk_is_gone(channel, tmp_path, "--data", str(data), "--mode", "sync")


def fails_as_the_disk_is_gone(channel: Channel, tmp_path: Path, *options: str) -> None:
    """Run with rows that end with this error: rank 0 says so and leaves nothing, the workers leave."""
    arguments = (*options, *SMALL)
    if channel.rank == SERVER:
        with pytest.raises(DataError, match="the disk is gone"):
            training.train(channel, [*arguments, "--run-dir", str(tmp_path / "run")], {}, Interrupt())
        assert not (tmp_path / "run" / "model.h5").exists()
    else:
        rank_worker.work(channel)
