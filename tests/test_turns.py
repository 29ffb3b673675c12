"""How long turns are, and when they exchange their own columns alone."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpisgd.config import Config
from mpisgd.job import Job
from mpisgd.turns import (
    BY_KEYS_AND_WORKER,
    FEWEST_BY_KEYS,
    FEWEST_EXCHANGES,
    LONGEST_TURN,
    MOST_BY_KEYS,
    WIDE,
    are_by_keys,
    first_turn_rows,
    turn_rows,
)
from strategies import examples

ASYNC = Config(mode="async")
configs = st.builds(Config, mode=st.sampled_from(["sync", "async"]), sharding=st.sampled_from(["partition", "sample"]))
column_counts, row_counts = st.integers(1, 50_000_000), st.integers(1_000, 100_000_000)
row_lengths = st.floats(0, 10_000)
many = st.integers(4, 1_000)  # who need no more exchanges than they have at least


def fewest_by_keys(workers: int) -> float:
    return FEWEST_BY_KEYS + BY_KEYS_AND_WORKER * workers


@examples
@given(configs, st.floats(1, 1e6), column_counts, row_lengths)
def test_keys_are_for_async_turns_of_the_same_few_elements(
    config: Config, rows: float, columns: int, row_length: float
) -> None:
    few = rows * row_length < MOST_BY_KEYS * columns
    suits = config.mode == "async" and config.sharding == "partition"
    suits = suits and (config.gradient_threshold == 0 or columns >= WIDE)
    assert are_by_keys(config, rows, columns, row_length) == (few and suits)


@pytest.mark.parametrize(("rows", "by_keys"), [(39, True), (40, False)])
def test_few_elements_are_those_of_few_columns(rows: int, by_keys: bool) -> None:
    assert are_by_keys(ASYNC, rows, 1_000, 100.0) == by_keys
    assert not are_by_keys(Config(), rows, 1_000, 100.0)
    assert not are_by_keys(Config(mode="async", sharding="sample"), rows, 1_000, 100.0)


@examples
@given(configs, column_counts, row_counts, st.integers(1, 1_000), row_lengths)
def test_a_turn_is_a_shard_at_most_and_never_without_end(
    config: Config, columns: int, rows: int, workers: int, row_length: float
) -> None:
    found = turn_rows(config, columns, rows, workers, row_length)
    assert 0 < found <= min(rows / workers, LONGEST_TURN)


@examples
@given(configs, st.integers(1, WIDE - 1), row_counts, many, row_lengths)
def test_many_workers_exchange_so_often_at_least(
    config: Config, columns: int, rows: int, workers: int, row_length: float
) -> None:
    shard = rows / workers
    found = turn_rows(config, columns, rows, workers, row_length)
    assert found <= shard / FEWEST_EXCHANGES * (1 + 1e-9)
    if are_by_keys(config, found, columns, row_length):
        assert found <= shard / fewest_by_keys(workers) * (1 + 1e-9)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_an_exchange_that_is_worth_little_is_made_all_the_same(mode: str) -> None:
    """Of so many columns and so few rows that no turn is worth an exchange of what it costs."""
    shard, workers = 320, 128
    config = Config(mode=mode)  # type: ignore[arg-type]
    exchanges = FEWEST_EXCHANGES if mode == "sync" else fewest_by_keys(workers)
    assert turn_rows(config, WIDE - 1, shard * workers, workers, 5.0) == pytest.approx(shard / exchanges)


@examples
@given(configs, column_counts, row_counts, st.integers(1, 1_000), row_lengths, st.floats(0, 1e9), st.floats(0, 1e9))
def test_the_dearer_an_exchange_is_found_the_longer_turns_are(
    config: Config, columns: int, rows: int, workers: int, row_length: float, worth: float, more: float
) -> None:
    """Between the bounds of those whose exchanges cost nothing, or everything; in lock step more slowly."""
    lengths = [
        turn_rows(config, columns, rows, workers, row_length, worth_it) for worth_it in (0, worth, worth + more, 1e18)
    ]
    assert lengths == sorted(lengths)
    assert lengths[0] <= turn_rows(config, columns, rows, workers, row_length) <= lengths[-1]
    between = worth if config.mode == "async" else math.sqrt(worth * lengths[0])
    assert lengths[1] == pytest.approx(min(max(lengths[0], between), lengths[-1]))


def test_in_lock_step_a_turn_of_wide_rows_may_be_a_whole_shard() -> None:
    assert turn_rows(Config(), WIDE, 320 * 128, 128, 5.0) == 320
    assert turn_rows(ASYNC, WIDE, 320 * 128, 128, 5.0) == pytest.approx(320 / fewest_by_keys(128))


@pytest.mark.parametrize(("mode", "sharding"), [("async", "partition"), ("async", "sample"), ("sync", "partition")])
@pytest.mark.parametrize("columns", [WIDE - 1, WIDE])
@pytest.mark.parametrize("iterations", [1, 1_000_000, None])
def test_a_worker_has_only_its_own_columns_of_wide_rows_by_keys(
    mode: str, sharding: str, columns: int, iterations: int | None
) -> None:
    config = Config(mode=mode, sharding=sharding, iterations=iterations)  # type: ignore[arg-type]
    job = Job.planned(config, columns, 20_000, 2, 50.0)
    assert job.by_keys == (mode == "async" and sharding == "partition" and iterations != 1_000_000)
    assert job.wide == (job.by_keys and columns == WIDE)
    assert Job.from_json(job.to_json()) == job


@examples
@given(configs, column_counts, row_counts, st.integers(1, 1_000), row_lengths, st.none() | st.integers(1, 1_000))
def test_turns_begin_short_where_they_exchange_all_columns_and_nothing_is_set(
    config: Config, columns: int, rows: int, workers: int, row_length: float, iterations: int | None
) -> None:
    job = Job.planned(dataclasses.replace(config, iterations=iterations), columns, rows, workers, row_length)
    if iterations is not None or job.by_keys:
        assert job.first_iterations is None
    else:
        assert job.first_iterations == math.ceil(first_turn_rows(columns, row_length) / config.batch_size)


@pytest.mark.parametrize(("batch_size", "iterations"), [(8, 2), (1, 16), (16, 1), (17, 1), (200, 1)])
def test_rounding_up_to_whole_batches_leaves_the_fewest_exchanges(batch_size: int, iterations: int) -> None:
    """Of shards of 164 rows, unless a single batch is longer than their tenth part."""
    job = Job.planned(Config(batch_size=batch_size), 47_236, 20_975, workers=128, row_length=68.6)
    assert job.iterations == iterations
