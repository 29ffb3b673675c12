"""The loops of the asynchronous exchange do the same compiled and in NumPy, and refuse arrays that do not fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from both_ways import COLUMNS, CURVATURES, assert_same_both_ways, changed, vector
from exchange import at, pairs
from mpisgd import compiled_loops, exchange_loops, vector_loops
from mpisgd.exchange_loops import PAIR, Columns, Content
from mpisgd.vector_loops import TurnSize
from strategies import examples

pytestmark = pytest.mark.skipif(not compiled_loops.is_compiled(), reason="no C compiler: nothing to compare")

key_lists = st.sets(st.integers(0, COLUMNS - 1)).map(lambda columns: at(sorted(columns)))
thresholds = st.sampled_from([0.0, 0.5, 8.0])


def columns_of(content: Content) -> tuple[Any, ...]:
    """Return a content as arrays that can be compared."""
    return (content["place"].copy(), content["value"].copy()) if content.dtype == PAIR else (content.copy(),)


def content_of(changes: NDArray[np.float32], columns: Columns, *, sparse: bool) -> Content:
    """Return changes of all columns as a message has them, at these columns only: values, or pairs where not 0."""
    changes = changes if columns is None else changes[columns]
    places = np.flatnonzero(changes)
    return pairs(places, changes[places]) if sparse else changes


def server() -> list[NDArray[Any]]:
    """Return a server's vectors of COLUMNS entries."""
    return [np.zeros(COLUMNS, np.float32), np.zeros(COLUMNS, np.int64), *np.zeros((2, COLUMNS), np.float32)]


def add(vectors: list[NDArray[Any]], columns: Columns, content: Content, **how: Any) -> tuple[int, float]:
    how = {"version": 1, "factor": 1.0, "turns": 1, "turn_size": TurnSize(0.75, 0.5, 0.25), "shrinking": 0.0} | how
    mine, changed_at, times, curvatures = vectors
    return exchange_loops.add_update(mine, changed_at, times, curvatures, columns, content, **how)


@examples
@given(key_lists, vector, vector, st.sampled_from([1.0, 0.75]), thresholds)
def test_subtract_at_columns(columns: Any, mine: Any, base: Any, scale: float, threshold: float) -> None:
    base[::2] = mine[::2]
    changes = np.empty(len(columns), np.float32)
    assert_same_both_ways(
        lambda *a: vector_loops.subtract(a[1], a[2], scale, threshold, a[3], a[0]), columns, mine, base, changes
    )


def test_what_is_not_a_number_is_not_held_back() -> None:
    mine, changes = np.array([1, np.nan, 7, np.inf], np.float32), np.empty(3, np.float32)
    found = vector_loops.subtract(mine, np.zeros(4, np.float32), 1.0, 4.0, changes, at([0, 1, 3]))
    assert found == (2, 3)
    np.testing.assert_array_equal(changes, [0, np.nan, np.inf])


@examples
@given(changed, vector, vector, st.none() | key_lists, st.booleans())
def test_pack_changes(changes: Any, mine: Any, base: Any, columns: Columns, sparse: bool) -> None:
    changes = changes if columns is None else changes[columns]
    expected = content_of(changes, None, sparse=sparse)

    def pack(*arrays: Any) -> tuple[Any, ...]:
        content = np.zeros_like(expected)
        exchange_loops.pack_changes(columns, arrays[0], arrays[1], arrays[2], content)
        assert content.tobytes() == expected.tobytes()
        return columns_of(content)

    assert_same_both_ways(pack, changes, mine, base)


@examples
@given(changed, vector, vector, key_lists)
def test_the_base_is_moved_on_just_where_something_is_sent(changes: Any, mine: Any, base: Any, columns: Any) -> None:
    before, content = base.copy(), pairs(range(COLUMNS), np.zeros(COLUMNS))
    exchange_loops.pack_changes(columns, changes[columns], mine, base, content)
    sent = np.isin(range(COLUMNS), columns) & (changes != 0)
    np.testing.assert_array_equal(base, np.where(sent, mine, before))


versions = st.lists(st.integers(0, 3), min_size=COLUMNS, max_size=COLUMNS)


@examples
@given(versions, st.integers(0, 3), vector, st.integers(0, COLUMNS))
def test_pick_since(changed_at: list[int], version: int, mine: Any, room: int) -> None:
    """None where there is too little room."""
    expected = [j for j in range(COLUMNS) if changed_at[j] > version]

    def pick(*arrays: Any) -> tuple[Any, ...]:
        content = np.zeros(room, PAIR)
        count = exchange_loops.pick_since(arrays[0], version, arrays[1], content)
        assert count == (None if len(expected) > room else len(expected))
        if count is None:
            return (None,)
        assert content["place"][:count].tolist() == expected
        return columns_of(content[:count])

    assert_same_both_ways(pick, np.array(changed_at, np.int64), mine)


@examples
@given(vector, changed, st.none() | key_lists, st.booleans(), st.integers(1, 5), st.sampled_from([0.0, 0.25]))
def test_add_update(mine: Any, changes: Any, columns: Columns, sparse: bool, turns: int, shrinking: float) -> None:
    content = content_of(changes, columns, sparse=sparse)

    def update(*vectors: Any) -> int:
        return add([*vectors], columns, content, version=9, factor=2.0, turns=turns, shrinking=shrinking)

    assert_same_both_ways(update, mine, np.arange(COLUMNS), np.ones(COLUMNS, np.float32), CURVATURES, rtol=1e-5)


@examples
@given(vector, vector, changed, st.none() | key_lists, st.booleans())
def test_take_in(base: Any, local: Any, heard: Any, columns: Columns, sparse: bool) -> None:
    content = content_of(heard, columns, sparse=sparse)
    assert_same_both_ways(lambda *a: exchange_loops.take_in(columns, content, a[0], a[1]), base, local)


# --- what does not fit


@pytest.mark.parametrize(
    ("columns", "places"),
    [
        (None, [0, COLUMNS]),
        (None, [-1]),
        (None, [2, -(2**31), 1]),
        (None, [2**31 - 1]),
        (at([4, 2]), [1, 2]),
        (at([4, 2]), [0, -1]),
        (at([]), [0]),
    ],
)
def test_places_of_a_message_are_checked_before_anything_is_written(columns: Columns, places: list[int]) -> None:
    content = pairs(places, np.ones(len(places)))
    base, local = np.zeros(COLUMNS, np.float32), np.ones(COLUMNS, np.float32)
    with pytest.raises(ValueError, match="arrays do not fit: place out of range"):
        exchange_loops.take_in(columns, content, base, local)
    np.testing.assert_array_equal([base, local], [np.zeros(COLUMNS), np.ones(COLUMNS)])
    vectors = server()
    with pytest.raises(ValueError, match="arrays do not fit: place out of range"):
        add(vectors, columns, content)
    np.testing.assert_array_equal(vectors, np.zeros((4, COLUMNS)))


@pytest.mark.parametrize("columns", [None, at([1, 4, 5])])
def test_more_pairs_than_there_is_room_for_are_refused(columns: Columns) -> None:
    mine, base = np.ones(3 if columns is None else COLUMNS, np.float32), np.zeros(COLUMNS, np.float32)
    base = base[: len(mine)]
    changes, content = np.ones(3, np.float32), pairs(range(4), np.zeros(4))
    with pytest.raises(ValueError, match="arrays do not fit: room for pairs"):
        exchange_loops.pack_changes(columns, changes, mine, base, content[:2])
    np.testing.assert_array_equal(content[2:], pairs([2, 3], [0, 0]))
    changes[1] = 0
    exchange_loops.pack_changes(columns, changes, mine, base, content[:2])
    np.testing.assert_array_equal(content, pairs([0, 2, 2, 3], [1, 1, 0, 0]))


def test_arrays_of_different_lengths_are_refused() -> None:
    short, long = np.zeros(COLUMNS - 1, np.float32), np.zeros(COLUMNS, np.float32)
    few, no_pairs = at([0, 1]), np.zeros(COLUMNS, PAIR)
    calls: list[Callable[[], object]] = [
        lambda: vector_loops.subtract(long, short, 1.0, 0.0, long[:2], few),
        lambda: vector_loops.subtract(long, long, 1.0, 0.0, long, few),
        lambda: exchange_loops.pack_changes(None, long, long, short, no_pairs),
        lambda: exchange_loops.pack_changes(None, short, long, long, no_pairs),
        lambda: exchange_loops.pack_changes(None, long, long, long, short),
        lambda: exchange_loops.pack_changes(few, long, long, long, no_pairs),
        lambda: exchange_loops.pack_changes(few, long[:2], long, long, long[:3]),
        lambda: exchange_loops.pick_since(np.zeros(1, np.int64), 0, long, no_pairs),
        lambda: add(server(), None, short),
        lambda: add(server(), few, short),
        lambda: add([short, *server()[1:]], few, long[:2]),
        lambda: add([*server()[:3], short], few, long[:2]),
        lambda: exchange_loops.take_in(None, short, long, long),
        lambda: exchange_loops.take_in(few, long, long, long),
        lambda: exchange_loops.take_in(few, long[:2], long, short),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="arrays do not fit"):
            call()
