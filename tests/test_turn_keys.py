"""The keys of turns: those of a worker's rows, told once, and remembered by the server."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpisgd import exchange_loops
from mpisgd.sparse_rows import SparseRows
from mpisgd.turn_keys import ServerKeys, WorkerKeys
from mpisgd.updates import ALL_COLUMNS, Keys
from strategies import examples, rows_from, sparse_rows

some_rows = sparse_rows(min_rows=1)
turn_sizes = st.integers(1, 8)


def keys_of(*columns: int) -> Keys:
    return np.array(columns, np.int32)


def turns_of(rows: SparseRows, turn_rows: int) -> list[list[int]]:
    """Return the columns of each turn's rows, in order."""
    pointers = rows.row_pointers.tolist()
    by_row = [rows.columns[start:stop].tolist() for start, stop in pairwise(pointers)]
    return [
        sorted({column for row in by_row[start : start + turn_rows] for column in row})
        for start in range(0, len(by_row), turn_rows)
    ]


@examples
@given(some_rows, turn_sizes, st.booleans())
def test_a_turn_has_the_columns_of_its_rows(rows: SparseRows, turn_rows: int, compiled: bool) -> None:
    expected = turns_of(rows, turn_rows)
    with pytest.MonkeyPatch.context() as patch:
        if not compiled:
            patch.setattr(exchange_loops, "_kernel", None)
        keys = WorkerKeys(rows, turn_rows)
    assert [keys.of(turn).tolist() for turn in range(len(expected))] == expected
    assert all(keys.of(turn).dtype == np.int32 for turn in range(len(expected)))


@examples
@given(some_rows, turn_sizes)
def test_the_turns_of_a_pass_cover_the_shards_columns(rows: SparseRows, turn_rows: int) -> None:
    keys = WorkerKeys(rows, turn_rows)
    found = {column for turn in range(-(-len(rows) // turn_rows)) for column in keys.of(turn).tolist()}
    assert found == set(rows.columns[rows.row_pointers[0] : rows.row_pointers[-1]].tolist())


@examples
@given(some_rows, turn_sizes, st.lists(st.integers(0, 5), max_size=12))
def test_a_turns_keys_are_told_once(rows: SparseRows, turn_rows: int, asked: list[int]) -> None:
    expected, keys = turns_of(rows, turn_rows), WorkerKeys(rows, turn_rows)
    told = set()
    for number in asked:
        turn = number % len(expected)
        news = keys.to_tell(turn)
        assert (None if news is None else news.tolist()) == (None if turn in told else expected[turn])
        told.add(turn)
        assert keys.of(turn).tolist() == expected[turn]


def test_keys_are_told_by_the_servers_names() -> None:
    """Where the worker has numbered the columns of its shard anew."""
    keys = WorkerKeys(rows_from([[(0, 1.0), (2, 1.0)], [(1, 1.0)]], 3), 1, keys_of(5, 70, 900))
    np.testing.assert_array_equal(keys.of(0), [0, 2])
    for turn, expected in ((0, [5, 900]), (1, [70])):
        np.testing.assert_array_equal(keys.to_tell(turn), expected)
        assert keys.to_tell(turn) is None


@pytest.mark.parametrize(("rows", "wanted"), [(1, [0]), (2, [1, 0]), (3, [1, 2, 0]), (5, [1, 2, 3, 4, 0])])
def test_what_is_wanted_is_the_next_turn_that_can_still_have_it(rows: int, wanted: list[int]) -> None:
    """After the last turn of a pass comes the first; while an update travels, a turn is computed without its reply."""
    keys = WorkerKeys(rows_from([[(0, 1.0)]] * rows, 1), turn_rows=1)
    assert [keys.wanted_with(turn, overlaps=False) for turn in range(rows)] == wanted
    assert [keys.wanted_with(turn, overlaps=True) for turn in range(rows)] == [wanted[turn] for turn in wanted]


# --- the server


def test_the_server_remembers_what_it_heard() -> None:
    keys, buffer = ServerKeys(10), keys_of(0, 4, 9)
    np.testing.assert_array_equal(keys.hear(1, buffer), [0, 4, 9])
    buffer[:] = 7  # what comes next is received in the same place
    np.testing.assert_array_equal(keys.hear(2, keys_of(3)), [3])
    np.testing.assert_array_equal(keys.hear(1, None), [0, 4, 9])
    np.testing.assert_array_equal(keys.hear(2, None), [3])


def test_all_columns_need_no_keys() -> None:
    assert ServerKeys(10).hear(ALL_COLUMNS, None) is None


@pytest.mark.parametrize(("columns", "found"), [((0, 10), "0 to 10"), ((-1,), "-1 to 0"), ((3, 2**31 - 1), "0 to")])
def test_columns_that_do_not_exist_are_refused(columns: tuple[int, ...], found: str) -> None:
    keys = ServerKeys(10)
    keys.hear(0, keys_of(5))
    with pytest.raises(ValueError, match=f"keys of a turn: found {found}.* of 10 columns"):
        keys.hear(0, keys_of(*columns))
    np.testing.assert_array_equal(keys.hear(0, None), [5])


@examples
@given(some_rows, turn_sizes, st.lists(st.booleans(), max_size=12))
def test_both_ends_know_the_same(rows: SparseRows, turn_rows: int, overlaps: list[bool]) -> None:
    """As a worker sends its turns one after the other, each with the one it wants."""
    mine, servers = WorkerKeys(rows, turn_rows), ServerKeys(rows.column_count)
    for number, overlap in enumerate(overlaps):
        turn = number % -(-len(rows) // turn_rows)
        wanted = mine.wanted_with(turn, overlaps=overlap)
        for one in (turn, wanted):
            np.testing.assert_array_equal(servers.hear(one, mine.to_tell(one)), mine.of(one))
