"""The loops over vectors of the weights do the same compiled and in NumPy, and refuse arrays that do not fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from both_ways import COLUMNS, CURVATURES, assert_same_both_ways, vector
from mpisgd import compiled_loops, vector_loops
from mpisgd.vector_loops import TurnSize
from strategies import examples

LARGEST = np.minimum(CURVATURES, np.finfo(np.float32).max)  # as large as they get
pytestmark = pytest.mark.skipif(not compiled_loops.is_compiled(), reason="no C compiler: nothing to compare")


@examples
@given(vector, vector, st.sampled_from([1.0, 0.75]), st.sampled_from([0.0, 0.5, 8.0]))
def test_subtract(mine: Any, shared: Any, scale: float, threshold: float) -> None:
    shared[::2] = mine[::2]
    assert_same_both_ways(
        lambda *a: vector_loops.subtract(a[0], a[1], scale, threshold, a[2]), mine, shared, np.empty_like(mine)
    )


def test_what_is_not_a_number_is_not_held_back() -> None:
    mine, changes = np.array([np.nan, np.inf, 1], np.float32), np.empty(3, np.float32)
    assert vector_loops.subtract(mine, np.zeros(3, np.float32), 1.0, 4.0, changes) == (2, 3)
    np.testing.assert_array_equal(changes, [np.nan, np.inf, 0])


products = st.sampled_from([0.0, 1e-6, 2.5, 1e6])
turn_sizes = st.builds(TurnSize, products, products, st.sampled_from([0.0, 0.5, np.inf]))


@examples
@given(vector, vector, turn_sizes, st.integers(1, 3), st.floats(0, 3))
def test_merge(weights: Any, changes: Any, turn_size: TurnSize, turns: int, shrinking: float) -> None:
    changes[::3] = 0
    assert_same_both_ways(
        lambda *a: vector_loops.merge(*a, LARGEST, turn_size=turn_size, turns=turns, shrinking=shrinking),
        weights,
        changes,
        rtol=1e-5,
    )


@examples
@given(st.lists(vector, min_size=1, max_size=4), vector, st.sampled_from([0.0, 0.5]), st.integers(0, COLUMNS))
def test_merge_turns(locals_: list[Any], weights: Any, threshold: float, cut: int) -> None:
    shrinkings = np.arange(len(locals_)) / 64

    def merge(*arrays: Any) -> tuple[Any, ...]:
        arrays[0][:, ::2] = arrays[1][::2]
        return vector_loops.merge_turns(
            *arrays,
            slice(cut, COLUMNS),
            shrinkings,
            threshold=threshold,
            curvatures=LARGEST[::-1].copy(),
            turn_size=TurnSize(0.5, 0.25, 0.25),
        )

    assert_same_both_ways(merge, np.array(locals_), weights, rtol=1e-5)


def test_more_columns_than_a_block_in_longer_rows_are_all_merged() -> None:
    rng, columns = np.random.default_rng(3), 5_000
    locals_ = rng.normal(size=(3, columns + 8)).astype(np.float32)
    weights, curvatures = rng.normal(size=columns).astype(np.float32), rng.random(columns, np.float32)
    merge = lambda *a: vector_loops.merge_turns(  # noqa: E731 - twice
        *a, slice(1, columns - 1), np.zeros(3), threshold=0.5, curvatures=curvatures, turn_size=TurnSize(2.0, 1.0, 0.1)
    )
    assert_same_both_ways(merge, locals_, weights, rtol=1e-4)
    size = TurnSize(2.0, 1.0, 0.1)
    merge_sum = lambda *a: vector_loops.merge(*a, curvatures, turn_size=size, turns=3, shrinking=0.01)  # noqa: E731
    assert_same_both_ways(merge_sum, weights, locals_[0, :columns].copy(), rtol=1e-4)


@examples
@given(vector, vector, st.floats(0, 1), st.sampled_from([1.0, 0.25]))
def test_blend(average: Any, weights: Any, share: float, scale: float) -> None:
    assert_same_both_ways(lambda *a: vector_loops.blend(*a, share, scale), average, weights, rtol=1e-5)


def turns_merged(locals_: Any, weights: Any, part: slice) -> object:
    """Merge the turns of two workers."""
    curvatures = np.zeros(COLUMNS, np.float32)
    return vector_loops.merge_turns(
        locals_, weights, part, np.zeros(2), threshold=0.0, curvatures=curvatures, turn_size=TurnSize(1.0, 1.0, 0.0)
    )


def test_vectors_of_different_lengths_are_refused() -> None:
    short, long = np.zeros(COLUMNS - 1, np.float32), np.zeros(COLUMNS, np.float32)
    calls: list[Callable[[], object]] = [
        lambda: vector_loops.subtract(long, short, 1.0, 0.0, long),
        lambda: vector_loops.merge(long, long, short, turn_size=TurnSize(1.0, 1.0, 0.0), turns=2, shrinking=0.0),
        lambda: turns_merged(np.zeros((2, COLUMNS), np.float32), short, slice(0, 1)),
        lambda: turns_merged(np.zeros((2, COLUMNS), np.float32)[:, 1:].copy(), long, slice(0, 1)),
        lambda: turns_merged(np.zeros((2, COLUMNS), np.float32), long, slice(0, COLUMNS + 1)),
        lambda: turns_merged(np.zeros((2, COLUMNS), np.float32), long, slice(2, 1)),
        lambda: vector_loops.blend(long, short, 0.5, 1.0),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="arrays do not fit"):
            call()
