"""The first step size: which ones are tried, by whom, and when a larger one is taken."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mpisgd.beginning import largest_mean_square, row_facts
from mpisgd.job import Job
from mpisgd.shard import Shard
from mpisgd.step_search import FACTORS, StepSearch, Trial, tried_by
from starts import facts_of, job, settle, shard
from strategies import rows_from


def search_for(a_job: Job, facts: NDArray[np.float64]) -> StepSearch:
    return StepSearch(a_job, facts, largest_mean_square(a_job, facts))


def chosen(made: Shard, **settings: Any) -> float:
    """Return the step size that one of two workers would choose by these rows alone."""
    a_job, facts = job(**settings), row_facts(made)
    search, trial = search_for(a_job, facts), Trial(settle(a_job, np.zeros(4, np.float32), facts), made)
    with np.errstate(all="ignore"):
        while search.to_try:
            sizes = search.sizes[search.to_try]
            search.hear(trial.of(sizes, list(range(len(sizes)))))
    return search.best


@pytest.mark.parametrize("loss", ["hinge", "squared_hinge", "logistic"])
def test_rows_ten_times_as_long_get_steps_a_hundred_times_as_small(loss: Any):
    """But for the column of ones, which does not grow: squared norms of 1 + 1 and 100 + 1."""
    short, long = (chosen(shard(2000, size), loss=loss, bias=False, regularization=0.0) for size in (1.0, 10.0))
    assert short / long == pytest.approx(101 / 2)


def found(after: list[float]) -> tuple[float, int]:
    """Return the factor found, and how many were tried, where these are the objectives after each; 1 before."""
    search, tries = search_for(job(), facts_of([1.0, 1.0, 1.0])), 0
    while search.to_try:
        tries += len(search.to_try)
        of_tried = [after[number] for number in search.to_try]
        search.hear(7.0 * np.array([[1.0] * len(of_tried), [1.0] * len(of_tried), of_tried]).ravel())
    return search.best / search.sizes[0], tries


@pytest.mark.parametrize(
    ("after", "factor", "tries"),
    [
        ([0.9, 0.5, 0.2, 0.8, 0.1], 4.0, 4),  # each is far better than the one before, up to the third
        ([0.9, 0.27, 0.2, 0.1, 0.1], 2.0, 3),  # the third is better by less than a tenth of what it has learnt
        ([0.9, 0.5, 0.3, 0.2, 0.1], 16.0, 5),  # there are no more
        ([1.2, 1.3, 1.1, 0.5, 0.5], 1.0, 2),  # the second is worse
        ([1.2, 1.1, 1.0, 1.0, 1.0], 4.0, 4),  # less is lost
        ([np.inf] * 5, 1.0, 2),
    ],
)
def test_the_step_size_is_doubled_for_as_long_as_that_learns_more(after: list[float], factor: float, tries: int):
    with np.errstate(all="ignore"):
        assert found(after) == (factor, tries)


def test_a_step_size_is_judged_by_what_it_gains_on_its_own_rows():
    """The second size had the harder rows, and a third as many."""
    search = search_for(job(), facts_of([1.0, 1.0, 1.0]))
    search.hear(np.array([[3.0, 1.0], [3 * 0.5, 0.9], [3 * 0.3, 0.4]]).ravel())
    assert search.best == search.sizes[1]


@given(workers=st.integers(1, 40), tries=st.integers(1, 9), sample=st.integers(1, 2000))
def test_the_workers_together_try_every_size_and_none_tries_one_twice(workers: int, tries: int, sample: int):
    of_workers = [tried_by(worker, tries, workers * sample) for worker in range(1, workers + 1)]
    assert all(len(set(tried)) == len(tried) for tried in of_workers)
    times = np.bincount(np.concatenate(of_workers).astype(int), minlength=tries)
    assert times.min() >= min(workers, 2)
    assert times.max() - times.min() <= 1


def test_two_workers_try_all_sizes_and_more_share_them():
    assert [tried_by(worker, 2, 2 * 2000) for worker in (1, 2)] == [[0, 1], [0, 1]]
    assert [len(tried_by(worker, 2, 4 * 2000)) for worker in range(1, 5)] == [1] * 4


@pytest.mark.parametrize(("workers", "rows", "judged"), [
    (2, 1, 1), (2, 2, 1), (2, 3, 1), (2, 5000, 1000), (1, 1, 1), (1, 3, 1), (1, 4, 2), (1, 100, 50), (1, 5000, 2000),
])  # fmt: skip
def test_any_number_of_rows_will_do(workers: int, rows: int, judged: int):
    """One worker alone judges by two samples."""
    made = shard(rows)
    facts = row_facts(made)
    begins = settle(dataclasses.replace(job(), workers=workers), np.zeros(4, np.float32), facts)
    trial = Trial(begins, made)
    sums = trial.of(search_for(job(), facts).sizes, [0, 3]).reshape(3, -1)
    np.testing.assert_array_equal(sums[0], np.where(np.isin(np.arange(5), [0, 3]), judged, 0))
    assert np.isfinite(sums).all()


def test_rows_without_elements_leave_the_step_size_at_one():
    empty = Shard(rows_from([[], []], 4), np.ones(2, np.float32))
    assert search_for(job(bias=False), row_facts(empty)).best == 1.0


def test_a_large_batch_goes_no_further_than_a_few_times_where_its_rows_want_the_largest_column():
    facts = facts_of([0.0, 0.5, 0.25])
    small, large = (search_for(job(batch_size=size), facts).sizes for size in (1, 10_000))
    np.testing.assert_allclose(small, FACTORS / 2)  # squared norms of 2
    np.testing.assert_allclose(large, 4.0 / (10_000 * 0.5))
