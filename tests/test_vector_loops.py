"""The loops over vectors of the weights do the same compiled and in NumPy, and refuse arrays that do not fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mpisgd import compiled_loops, vector_loops
from strategies import examples, ordinary, vectors

COLUMNS = 7
vector = vectors(COLUMNS, ordinary)
changed = vectors(COLUMNS, st.just(0.0) | ordinary)
pytestmark = pytest.mark.skipif(not compiled_loops.is_compiled(), reason="no C compiler: nothing to compare")

Arrays = list[Any]


def assert_same_both_ways(call: Callable[..., Any], *arrays: Any, rtol: float = 0.0) -> None:
    """Call it compiled and not, each with arrays of its own; what it returns and what it leaves must be the same."""
    found: list[Arrays] = []
    for loops in (vector_loops._kernel, None):
        copies = [array.copy() if isinstance(array, np.ndarray) else array for array in arrays]
        with mock.patch.object(vector_loops, "_kernel", loops):
            returned = call(*copies)
        found.append([*(returned if isinstance(returned, tuple) else (returned,)), *copies])
    for compiled, plain in zip(*found, strict=True):
        if compiled is not None:
            np.testing.assert_allclose(compiled, plain, rtol=rtol, atol=1e-7 if rtol else 0)


@examples
@given(vector, vector, st.sampled_from([1.0, 0.75]), st.sampled_from([0.0, 0.5, 8.0]))
def test_subtract(mine: Any, shared: Any, scale: float, threshold: float) -> None:
    shared[::2] = mine[::2]
    assert_same_both_ways(
        lambda *a: vector_loops.subtract(a[0], a[1], scale, threshold, a[2]), mine, shared, np.empty_like(mine)
    )


def test_what_is_not_a_number_is_not_held_back() -> None:
    mine, changes = np.array([np.nan, np.inf, 1], np.float32), np.empty(3, np.float32)
    assert vector_loops.subtract(mine, np.zeros(3, np.float32), 1.0, 4.0, changes) == 2
    np.testing.assert_array_equal(changes, [np.nan, np.inf, 0])


@examples
@given(vector, vectors(COLUMNS, st.floats(0.125, 1, width=32)), vector, st.floats(-3, 0))
def test_merge(weights: Any, gains: Any, changes: Any, log_decay: float) -> None:
    assert_same_both_ways(lambda *a: vector_loops.merge(*a, log_decay), weights, gains, changes, rtol=1e-5)


@examples
@given(vector, vector, st.floats(0, 1), st.sampled_from([1.0, 0.25]))
def test_blend(average: Any, weights: Any, share: float, scale: float) -> None:
    assert_same_both_ways(lambda *a: vector_loops.blend(*a, share, scale), average, weights, rtol=1e-5)


def room() -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    return np.empty(COLUMNS, np.int32), np.empty(COLUMNS, np.float32)


@examples
@given(changed, vector, vector)
def test_pick_changes(changes: Any, mine: Any, base: Any) -> None:
    assert_same_both_ways(lambda *a: vector_loops.pick_changes(*a, *room()), changes, mine, base)


@examples
@given(st.lists(st.integers(0, 3), min_size=COLUMNS, max_size=COLUMNS), st.integers(0, 3), vector)
def test_pick_since(versions: list[int], version: int, mine: Any) -> None:
    changed_at = np.array(versions, np.int64)
    assert_same_both_ways(lambda *a: vector_loops.pick_since(a[0], version, a[1], *room()), changed_at, mine)


def named(changes: NDArray[np.float32], *, whole: bool) -> tuple[NDArray[np.int32] | None, NDArray[np.float32]]:
    """Return changes as a message has them: of all columns, or of those that change."""
    columns = np.flatnonzero(changes).astype(np.int32)
    return (None, changes) if whole else (columns, changes[columns])


CURVATURES = np.array([0, 1e-4, 0.01, 1, 7, 1e38, np.inf], np.float32)


@pytest.mark.parametrize("turns", [1, 3])
@pytest.mark.parametrize("turn_size", [1e-6, 2.5, 1e6])
def test_damping(turns: int, turn_size: float) -> None:
    assert_same_both_ways(
        lambda *a: vector_loops.damping(a[0], turn_size, turns, a[1]),
        CURVATURES,
        np.empty(COLUMNS, np.float32),
        rtol=1e-6,
    )


@examples
@given(vector, changed, st.booleans(), st.integers(1, 5), st.sampled_from([0.0, 0.25]))
def test_add_update(mine: Any, changes: Any, whole: bool, turns: int, shrinking: float) -> None:
    columns, values = named(changes, whole=whole)

    def add(*arrays: Any) -> int:
        return vector_loops.add_update(
            *arrays, columns, values, version=9, factor=2.0, turns=turns, turn_size=0.5, shrinking=shrinking
        )

    assert_same_both_ways(add, mine, np.arange(COLUMNS), np.ones(COLUMNS, np.float32), CURVATURES, rtol=1e-5)


@examples
@given(vector, vector, changed, st.booleans())
def test_take_in(base: Any, local: Any, heard: Any, whole: bool) -> None:
    columns, values = named(heard, whole=whole)
    assert_same_both_ways(lambda *a: vector_loops.take_in(columns, values, *a), base, local)


@pytest.mark.parametrize(
    ("columns", "values", "what"),
    [([0, 7], 2, "column out of range"), ([-1], 1, "column out of range"), ([0], 2, "columns and values")],
)
def test_columns_of_a_message_are_checked_first(columns: list[int], values: int, what: str) -> None:
    base, local = np.zeros(COLUMNS, np.float32), np.ones(COLUMNS, np.float32)
    with pytest.raises(ValueError, match=f"arrays do not fit: {what}"):
        vector_loops.take_in(np.array(columns, np.int32), np.ones(values, np.float32), base, local)
    np.testing.assert_array_equal([base, local], [np.zeros(COLUMNS), np.ones(COLUMNS)])


def added(columns: NDArray[np.int32] | None, changes: NDArray[np.float32]) -> int:
    """Add an update to a server's vectors of COLUMNS entries."""
    vectors = np.zeros(COLUMNS, np.float32), np.zeros(COLUMNS, np.int64), *np.zeros((2, COLUMNS), np.float32)
    return vector_loops.add_update(
        *vectors, columns, changes, version=1, factor=1.0, turns=1, turn_size=1.0, shrinking=0.0
    )


def test_vectors_of_different_lengths_are_refused() -> None:
    short, long = np.zeros(COLUMNS - 1, np.float32), np.zeros(COLUMNS, np.float32)
    calls: list[Callable[[], object]] = [
        lambda: vector_loops.subtract(long, short, 1.0, 0.0, long),
        lambda: vector_loops.merge(long, long, short, 0.0),
        lambda: vector_loops.blend(long, short, 0.5, 1.0),
        lambda: vector_loops.damping(long, 1.0, 2, short),
        lambda: added(None, short),
        lambda: added(np.array([COLUMNS], np.int32), np.ones(1, np.float32)),
        lambda: vector_loops.pick_changes(long, long, long, np.zeros(1, np.int32), long),
        lambda: vector_loops.pick_since(np.zeros(1, np.int64), 0, long, *room()),
        lambda: vector_loops.take_in(None, short, long, long),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="arrays do not fit"):
            call()
