"""What a run settles for itself before the rows travel."""

from __future__ import annotations

import math
from typing import Any

import pytest

from mpisgd.config import Config
from mpisgd.job import Job


def planned(rows: int, workers: int, *, columns: int = 1000, row_length: float = 50.0, **settings: Any) -> Config:
    return Job.planned(Config(**settings), columns, rows, workers, row_length).config


def test_what_the_user_set_stays():
    config = planned(10_000, 4, regularization=0.5, iterations=3)
    assert (config.regularization, config.iterations) == (0.5, 3)


def test_the_penalty_falls_with_the_rows():
    assert planned(1_000, 2).regularization == pytest.approx(1e-5)
    assert planned(1_000_000, 2).regularization == pytest.approx(1e-8)


@pytest.mark.parametrize(("workers", "exchanges"), [(1, 8), (2, 8), (3, 14), (8, 44)])
def test_more_workers_exchange_more_often(workers: int, exchanges: int):
    rows = 200_000
    turn = planned(rows, workers, batch_size=1).iterations
    assert rows / (turn * workers) == pytest.approx(exchanges, rel=0.01)


def test_a_turn_is_worth_its_exchange_but_no_longer_than_a_shard():
    """Of text, 1,000 rows are gone through in an exchange; ten million columns and 30 elements a row take a million.

    In lock step it is the geometric mean of that and of what learning wants, a 44th of a shard.
    """
    text = {"columns": 25_000, "row_length": 100, "batch_size": 1, "gradient_threshold": 1e-9}
    assert planned(200_000, 8, mode="async", **text).iterations == 1_000
    assert planned(200_000, 8, **text).iterations == pytest.approx(math.sqrt(1_000 * 25_000 / 44), abs=1)
    assert planned(100_000, 8, columns=10_000_000, row_length=30, batch_size=1).iterations == 12_500
    assert planned(16_000, 8, columns=10_000_000, row_length=30, batch_size=1).iterations == 2_000


@pytest.mark.parametrize(("rows", "workers", "expected"), [(8, 8, 1), (10**9, 2, 98_304 // 8)])
def test_turns_have_a_batch_at_least_and_do_not_last_for_ever(rows: int, workers: int, expected: int):
    assert planned(rows, workers).iterations == expected


def test_rows_without_elements_can_be_planned_for():
    assert planned(1_000, 2, row_length=0.0).iterations >= 1
