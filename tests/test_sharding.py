"""Who gets which rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpisgd.sharding import NOBODY, choose_validation, partition, sample_size
from strategies import examples

seeds = st.integers(0, 2**32)


@examples
@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(1, 9), seeds)
def test_every_row_but_those_held_out_is_one_workers(held_out: list[bool], workers: int, seed: int) -> None:
    mask = np.array(held_out)
    owner = partition(mask, workers, np.random.default_rng(seed))
    assert len(owner) == len(mask)
    np.testing.assert_array_equal(owner == NOBODY, mask)
    sizes = np.bincount(owner[~mask], minlength=workers)
    assert len(sizes) == workers
    assert sizes.sum() == np.count_nonzero(~mask)
    assert sizes.max() - sizes.min() <= 1


def test_a_partition_is_random_and_the_same_for_the_same_seed() -> None:
    held_out = np.zeros(1000, np.bool_)
    first, again, other = (partition(held_out, 4, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.count_nonzero(first == other) < 500
    # neighbours are not dealt out in turn
    assert 150 < np.count_nonzero(np.diff(first) == 0) < 350


@pytest.mark.parametrize(
    ("rows", "expected"),
    [(1, 1), (2, 1), (10, 1), (29, 1), (31, 2), (100, 5), (23_149, 1157), (200_000, 5_000), (804_414, 5_000)],
)
def test_a_twentieth_is_held_out_at_least_one_and_at_most_ten_thousand(rows: int, expected: int) -> None:
    held_out = choose_validation(rows, np.random.default_rng(0))
    assert held_out.dtype == np.bool_
    assert (len(held_out), held_out.sum()) == (rows, expected)


def test_the_rows_held_out_are_random() -> None:
    first, other = (np.flatnonzero(choose_validation(1000, np.random.default_rng(seed))) for seed in (1, 2))
    assert len(np.intersect1d(first, other)) < 25
    assert first.max() - first.min() > 500


@pytest.mark.parametrize(("rows", "workers", "expected"), [(1, 1, 1), (3, 4, 1), (16, 4, 2), (17, 4, 2), (1000, 8, 62)])
def test_a_sample_is_half_of_a_workers_share(rows: int, workers: int, expected: int) -> None:
    assert sample_size(rows, workers) == expected
