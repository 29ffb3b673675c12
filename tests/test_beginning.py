"""Where learning begins: the bias and the step size that the rows suggest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mpisgd.beginning import (
    FACTORS,
    Beginning,
    best_step_size,
    largest_mean_square,
    row_facts,
    settled,
    step_sizes,
    tried_by,
    try_step_sizes,
)
from mpisgd.config import Config
from mpisgd.job import Job
from mpisgd.shard import Shard
from strategies import rows_from


def job(**settings: Any) -> Job:
    """Return a job for rows of four columns, the bias's among them where there is one."""
    features = 3 if settings.get("bias", True) else 4
    return Job.planned(Config(**settings), features, learning_rows=1000, workers=2, row_length=2.0)


def shard(rows: int, size: float = 1.0) -> Shard:
    """Return rows of norm `size` in one of two columns, with a bias column of ones; the column tells the label."""
    rng = np.random.default_rng(3)
    columns = rng.integers(0, 2, rows)
    made = rows_from([[(int(column), size)] for column in columns], 3).with_bias()
    return Shard(made, np.where(columns == 1, 1, -1).astype(np.float32))


def test_facts_are_of_the_rows_as_they_are_learnt_from():
    made = shard(50, size=2.0)
    in_columns = [4.0 * np.count_nonzero(made.labels == label) for label in (-1, 1)]
    np.testing.assert_allclose(
        row_facts(made), [50, 50 * (2.0**2 + 1), made.labels.sum(), *in_columns, 0, 50], rtol=1e-6
    )


def settle(a_job: Job, weights: NDArray[np.float32], facts: NDArray[np.float64]) -> Beginning:
    """Settle by the facts of all columns."""
    return settled(a_job, weights, facts, largest_mean_square(a_job, facts))


def sizes_for(a_job: Job, facts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the step sizes to try by the facts of all columns."""
    return step_sizes(a_job, facts, largest_mean_square(a_job, facts))


def facts_of(mean_squares: list[float]) -> NDArray[np.float64]:
    """Return the facts of ten rows whose labels add up to -8, the bias column left out."""
    return np.array([10.0, 20.0, -8.0, *(10 * square for square in mean_squares), 10.0])


@pytest.mark.parametrize(("mean_square", "expected"), [(0.0, 0.01), (0.002, 0.01), (0.3, 0.3), (40.0, 40.0)])
def test_the_bias_learns_as_fast_as_the_largest_column(mean_square: float, expected: float):
    found = settle(job(), np.zeros(4, np.float32), facts_of([0.0, mean_square, mean_square / 2]))
    assert found.job.bias_step == pytest.approx(expected)
    np.testing.assert_allclose(found.curvatures, [0, mean_square, mean_square / 2, expected], rtol=1e-6)


@pytest.mark.parametrize(("loss", "largest"), [("hinge", 1.0), ("squared_hinge", 2.0), ("logistic", 0.25)])
def test_curvatures_are_the_losses_and_without_a_bias_all_columns_alike(loss: Any, largest: float):
    found = settle(job(loss=loss, bias=False), np.zeros(4, np.float32), facts_of([1.0, 2.0, 3.0]))
    np.testing.assert_allclose(found.curvatures, largest * np.array([1, 2, 3, 1]), rtol=1e-6)


def test_the_bias_begins_at_the_mean_label():
    found = settle(job(), np.zeros(4, np.float32), facts_of([1.0, 1.0, 1.0]))
    np.testing.assert_allclose(found.weights, [0, 0, 0, -0.8], rtol=1e-6)


@pytest.mark.parametrize("settings", [{"bias": False}, {"initial_model": "model.h5"}])
def test_without_a_bias_or_with_a_model_the_weights_stay_theirs(settings: Any):
    weights = np.arange(4, dtype=np.float32)
    found = settle(job(**settings), weights, facts_of([1.0, 1.0, 1.0]))
    np.testing.assert_array_equal(found.weights, weights)


def chosen(made: Shard, **settings: Any) -> float:
    """Return the step size that one worker with these rows chooses."""
    a_job = job(**settings)
    facts = row_facts(made)
    beginning = settle(a_job, np.zeros(4, np.float32), facts)
    sizes = sizes_for(a_job, facts)
    with np.errstate(all="ignore"):
        return best_step_size(sizes, try_step_sizes(beginning, made, sizes, list(range(len(sizes)))))


@pytest.mark.parametrize("loss", ["hinge", "squared_hinge", "logistic"])
def test_rows_ten_times_as_long_get_steps_a_hundred_times_as_small(loss: Any):
    """But for the column of ones, which does not grow: squared norms of 1 + 1 and 100 + 1."""
    short, long = (chosen(shard(2000, size), loss=loss, bias=False, regularization=0.0) for size in (1.0, 10.0))
    assert short / long == pytest.approx(101 / 2)


def sums_of(rows: float, before: float, after: list[float]) -> NDArray[np.float64]:
    """Return the sums of a trial in which every size was judged on the same rows."""
    return rows * np.array([[1.0] * len(after), [before] * len(after), after])


def test_a_step_size_is_one_of_those_tried_and_finite_where_all_diverge():
    assert best_step_size(np.array([1.0, 2.0, 4.0]), sums_of(10.0, 1.0, [np.inf] * 3)) == 1.0


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ([0.9, 0.5, 0.2, 0.8], 4.0),  # the best is far better than those below it
        ([0.9, 0.27, 0.2, 0.8], 2.0),  # short of the best by less than a tenth of what it has learnt
        ([1.2, 1.3, 1.4, np.inf], 1.0),  # none learns anything
    ],
)
def test_the_smallest_step_size_nearly_as_good_as_the_best_is_taken(after: list[float], expected: float):
    assert best_step_size(np.array([1.0, 2.0, 4.0, 8.0]), sums_of(7.0, 1.0, after)) == expected


def test_a_step_size_is_judged_by_what_it_gains_on_its_own_rows():
    """The second size had the harder rows, and a third as many."""
    sums = np.array([[3.0, 1.0], [3 * 0.5, 0.9], [3 * 0.3, 0.4]])
    assert best_step_size(np.array([1.0, 2.0]), sums) == 2.0


@given(workers=st.integers(1, 40), tries=st.integers(1, 9), sample=st.integers(1, 2000))
def test_the_workers_together_try_every_size_and_none_tries_one_twice(workers: int, tries: int, sample: int):
    of_workers = [tried_by(worker, tries, workers * sample) for worker in range(1, workers + 1)]
    assert all(len(set(tried)) == len(tried) for tried in of_workers)
    times = np.bincount(np.concatenate(of_workers).astype(int), minlength=tries)
    assert times.min() >= min(workers, 2)
    assert times.max() - times.min() <= 1


def test_one_worker_tries_all_sizes_and_many_a_single_one_each():
    assert tried_by(1, 5, 2000) == [0, 1, 2, 3, 4]
    assert [len(tried_by(worker, 5, 8 * 2000)) for worker in range(1, 9)] == [2] * 8
    assert [len(tried_by(worker, 5, 10 * 2000)) for worker in range(1, 11)] == [1] * 10


@pytest.mark.parametrize("rows", [1, 2, 3, 5000])
def test_any_number_of_rows_will_do(rows: int):
    made = shard(rows)
    facts = row_facts(made)
    sizes = sizes_for(job(), facts)
    sums = try_step_sizes(settle(job(), np.zeros(4, np.float32), facts), made, sizes, [0, 3])
    assert sums.shape == (3, len(FACTORS))
    np.testing.assert_array_equal(sums[0], np.where(np.isin(np.arange(5), [0, 3]), min(2000, max(1, rows // 2)), 0))
    assert np.isfinite(sums).all()


def test_rows_without_elements_leave_the_step_size_at_one():
    empty = Shard(rows_from([[], []], 4), np.ones(2, np.float32))
    assert sizes_for(job(bias=False), row_facts(empty))[list(FACTORS).index(1.0)] == 1.0


def test_a_large_batch_goes_no_further_than_a_few_times_where_its_rows_want_the_largest_column():
    facts = facts_of([0.0, 0.5, 0.25])
    small, large = (sizes_for(job(batch_size=size), facts) for size in (1, 10_000))
    np.testing.assert_allclose(small, FACTORS / 2)  # squared norms of 2
    np.testing.assert_allclose(large, 4.0 / (10_000 * 0.5))
