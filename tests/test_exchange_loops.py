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
from mpisgd import compiled_loops, exchange_loops
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
    how = {"version": 1, "factor": 1.0, "turns": 1, "turn_size": TurnSize(0.75, 0.5, 0.25), "decay": 1.0} | how
    mine, changed_at, times, curvatures = vectors
    return exchange_loops.add_update(mine, changed_at, times, curvatures, columns, content, **how)


def pack(
    columns: Columns, mine: Any, base: Any, scale: float = 1.0, threshold: float = 0.0
) -> tuple[Content, int, NDArray[np.uint8]]:
    """Pack a turn; return its content, how many changes it has, and the room with some of what is behind it."""
    places = len(mine) if columns is None else len(columns)
    room = np.full(4 * places + 8, 7, np.uint8)
    content, changes = exchange_loops.pack_turn(columns, mine, base, scale, threshold, room[:-8])
    return content, changes, room


@examples
@given(st.none() | key_lists, vector, vector, st.lists(st.booleans(), min_size=COLUMNS, max_size=COLUMNS), thresholds)
def test_pack_turn(columns: Columns, mine: Any, base: Any, alike: list[bool], threshold: float) -> None:
    base[alike] = mine[alike]

    def packed(*vectors: Any) -> tuple[Any, ...]:
        content, number, room = pack(columns, *vectors, 0.75, threshold)
        assert (room[-8:] == 7).all()
        return (*columns_of(content), number)

    assert_same_both_ways(packed, mine, base)


@examples
@given(vector, vector, st.none() | key_lists, thresholds)
def test_what_is_packed_is_above_the_threshold_in_the_smaller_form_and_the_base_moves_on_just_there(
    mine: Any, base: Any, columns: Columns, threshold: float
) -> None:
    base[::2] = mine[::2]
    before, where = base.copy(), range(COLUMNS) if columns is None else columns.tolist()
    changes = np.where(np.isin(range(COLUMNS), where), mine - base, np.float32(0))
    sends = np.abs(changes) > threshold
    content, number, _ = pack(columns, mine, base, threshold=threshold)
    assert number == np.count_nonzero(changes)
    assert content.nbytes == min(4 * len(where), PAIR.itemsize * np.count_nonzero(sends))
    expected = np.where(sends, changes, np.float32(0))
    sparse = content_of(expected, columns, sparse=content.dtype == PAIR)
    assert content.tobytes() == sparse.tobytes()
    np.testing.assert_array_equal(base, np.where(sends, mine, before))


@pytest.mark.parametrize(
    ("columns", "expected"),
    [(None, pairs([1, 3], [np.nan, np.inf])), (at([0, 1, 3]), np.array([0, np.nan, np.inf], np.float32))],
)
def test_what_is_not_a_number_is_not_held_back(columns: Columns, expected: Content) -> None:
    mine, base = np.array([1, np.nan, 0, np.inf, 0, 0, 0], np.float32), np.zeros(COLUMNS, np.float32)

    def packed(*vectors: Any) -> tuple[Any, ...]:
        content, changes, _ = pack(columns, *vectors, threshold=4.0)
        assert content.dtype == expected.dtype
        for found, wanted in zip(columns_of(content), columns_of(expected), strict=True):
            np.testing.assert_array_equal(found, wanted)
        np.testing.assert_array_equal(vectors[1], [0, np.nan, 0, np.inf, 0, 0, 0])
        return (changes,)

    assert_same_both_ways(packed, mine, base)


@examples
@given(vector, key_lists)
def test_copy_at(mine: Any, columns: Any) -> None:
    out = np.empty(len(columns), np.float32)
    assert_same_both_ways(lambda *a: exchange_loops.copy_at(a[0], columns, a[1]), mine, out)
    exchange_loops.copy_at(mine, columns, out)
    np.testing.assert_array_equal(out, mine[columns])


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
@given(vector, changed, st.none() | key_lists, st.booleans(), st.integers(1, 5), st.sampled_from([1.0, 0.75]))
def test_add_update(mine: Any, changes: Any, columns: Columns, sparse: bool, turns: int, decay: float) -> None:
    content = content_of(changes, columns, sparse=sparse)

    def update(*vectors: Any) -> int:
        return add([*vectors], columns, content, version=9, factor=2.0, turns=turns, decay=decay)

    assert_same_both_ways(update, mine, np.arange(COLUMNS), np.ones(COLUMNS, np.float32), CURVATURES, rtol=1e-5)


@examples
@given(vector, vector, changed, st.none() | key_lists, st.booleans())
def test_take_in(base: Any, local: Any, heard: Any, columns: Columns, sparse: bool) -> None:
    content = content_of(heard, columns, sparse=sparse)
    assert_same_both_ways(lambda *a: exchange_loops.take_in(columns, content, a[0], a[1]), base, local)


@pytest.mark.parametrize("columns", [1, 8, 4_096, 10_007])
@pytest.mark.parametrize("share", [0.1, 0.9])
@pytest.mark.parametrize("turns", [1, 3])
def test_of_many_columns_which_are_taken_several_at_once(columns: int, share: float, turns: int) -> None:
    rng = np.random.default_rng(columns)
    mine, base, local, times, curved = rng.uniform(0.5, 2, size=(5, columns)).astype(np.float32)
    changes = np.where(rng.random(columns) < share, rng.normal(size=columns), 0).astype(np.float32)

    def add_all(*vectors: Any) -> tuple[Any, ...]:
        return add([*vectors], None, changes, version=9, factor=2.0, turns=turns, decay=0.75)

    assert_same_both_ways(add_all, mine, np.arange(columns), times, curved, rtol=1e-4)
    assert_same_both_ways(lambda *a: exchange_loops.take_in(None, changes, a[0], a[1]), base, local)
    changed = base + changes
    assert_same_both_ways(lambda *a: columns_of(pack(None, a[0], a[1], 0.5, 0.25)[0]), changed, base)
    some = rng.random(columns) < share
    some[0] = True

    def pick(*arrays: Any) -> tuple[Any, ...]:
        content = np.zeros(np.count_nonzero(some), PAIR)
        assert exchange_loops.pick_since(arrays[0], 2**40, arrays[1], content[1:]) is None
        assert exchange_loops.pick_since(arrays[0], 2**40, arrays[1], content) == len(content)
        np.testing.assert_array_equal(content["place"], np.flatnonzero(some))
        return columns_of(content)

    assert_same_both_ways(pick, 2**40 + some.astype(np.int64), mine)


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


def test_arrays_of_different_lengths_are_refused() -> None:
    short, long = np.zeros(COLUMNS - 1, np.float32), np.zeros(COLUMNS, np.float32)
    few, no_pairs = at([0, 1]), np.zeros(COLUMNS, PAIR)
    calls: list[Callable[[], object]] = [
        lambda: pack(None, long, short),
        lambda: pack(few, short, long),
        lambda: exchange_loops.pack_turn(None, long, long, 1.0, 0.0, np.zeros(4 * COLUMNS - 1, np.uint8)),
        lambda: exchange_loops.pack_turn(few, long, long, 1.0, 0.0, np.zeros(7, np.uint8)),
        lambda: exchange_loops.copy_at(long, few, long),
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
