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
from strategies import examples, vectors

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


@examples
@given(vector, vectors(COLUMNS, st.floats(0.125, 1, width=32)), vector, st.floats(-3, 0))
def test_merge(weights: Any, gains: Any, changes: Any, log_decay: float) -> None:
    assert_same_both_ways(lambda *a: vector_loops.merge(*a, log_decay), weights, gains, changes, rtol=1e-5)


@examples
@given(vector, vector, st.floats(0, 1), st.sampled_from([1.0, 0.25]))
def test_blend(average: Any, weights: Any, share: float, scale: float) -> None:
    assert_same_both_ways(lambda *a: vector_loops.blend(*a, share, scale), average, weights, rtol=1e-5)


@pytest.mark.parametrize("turns", [1, 3])
@pytest.mark.parametrize("turn_size", [1e-6, 2.5, 1e6])
def test_damping(turns: int, turn_size: float) -> None:
    assert_same_both_ways(
        lambda *a: vector_loops.damping(a[0], turn_size, turns, a[1]),
        CURVATURES,
        np.empty(COLUMNS, np.float32),
        rtol=1e-6,
    )


def test_vectors_of_different_lengths_are_refused() -> None:
    short, long = np.zeros(COLUMNS - 1, np.float32), np.zeros(COLUMNS, np.float32)
    calls: list[Callable[[], object]] = [
        lambda: vector_loops.subtract(long, short, 1.0, 0.0, long),
        lambda: vector_loops.merge(long, long, short, 0.0),
        lambda: vector_loops.blend(long, short, 0.5, 1.0),
        lambda: vector_loops.damping(long, 1.0, 2, short),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="arrays do not fit"):
            call()
