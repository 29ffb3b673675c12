"""Messages come out as they went in, and none is larger than it need be."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mpisgd.messages import (
    ReplyHeader,
    RowsHeader,
    Tag,
    UpdateHeader,
    dense_is_smaller,
    largest_reply,
    pack_reply,
    pack_rows,
    pack_rows_end,
    pack_update,
    unpack_reply,
    unpack_rows,
    unpack_update,
)
from mpisgd.shard import Shard
from slow_twin import dense
from strategies import examples, shards, vectors

counts = st.integers(0, 2**62)
numbers = st.floats(allow_nan=False)
float32s = st.floats(width=32, allow_nan=False)
update_headers = st.builds(UpdateHeader, version=counts, rows=counts, decay=numbers, round_trip=numbers)
reply_headers = st.builds(
    ReplyHeader, stop=st.booleans(), version=counts, rows=counts, scale=numbers, log_folded=numbers
)

Content = tuple[NDArray[np.integer[Any]] | None, NDArray[np.float32]]


@st.composite
def contents(draw: st.DrawFn) -> Content:
    """Columns with their values, none of either among them, or the values of all columns."""
    columns = draw(st.none() | st.lists(st.integers(0, 2**31 - 1), max_size=8))
    values = draw(vectors(draw(st.integers(0, 8)) if columns is None else len(columns), float32s))
    return None if columns is None else np.array(columns, np.int32), values


def assert_same(found: Content, sent: Content) -> None:
    for now, before in zip(found, sent, strict=True):
        assert (now is None) == (before is None)
        if now is not None:
            np.testing.assert_array_equal(now, before)
    assert found[1].dtype == np.float32


def test_every_kind_of_message_has_a_tag_of_its_own() -> None:
    assert len({int(tag) for tag in Tag.__members__.values()}) == len(Tag.__members__)


@examples
@given(update_headers, contents())
def test_updates(header: UpdateHeader, content: Content) -> None:
    found, *rest = unpack_update(pack_update(header, *content))
    assert found == header
    assert_same((rest[0], rest[1]), content)


@examples
@given(reply_headers, contents())
def test_replies(header: ReplyHeader, content: Content) -> None:
    found, *rest = unpack_reply(pack_reply(header, *content))
    assert found == header
    assert_same((rest[0], rest[1]), content)


def test_an_update_of_nothing_is_not_one_of_everything() -> None:
    header = UpdateHeader(version=1, rows=0, decay=1.0, round_trip=0.0)
    empty = np.empty(0, np.float32)
    _, columns, changes = unpack_update(pack_update(header, np.empty(0, np.int32), empty))
    assert columns is not None
    assert len(columns) == len(changes) == 0
    _, columns, changes = unpack_update(pack_update(header, None, empty))
    assert columns is None


@examples
@given(shards(), counts, counts)
def test_rows(shard: Shard, shard_rows: int, shard_elements: int) -> None:
    rows = shard.rows
    message = pack_rows(rows, shard.labels, shard_rows, shard_elements)
    header, found, labels = unpack_rows(message, rows.column_count)
    assert header == RowsHeader(len(rows), rows.elements, shard_rows, shard_elements, ended=False)
    assert found.column_count == rows.column_count
    np.testing.assert_array_equal(dense(found), dense(rows))
    np.testing.assert_array_equal(labels, shard.labels)


def test_the_end_of_rows() -> None:
    header, rows, labels = unpack_rows(pack_rows_end(), 5)
    assert header.ended
    assert len(rows) == len(labels) == 0


@examples
@given(st.integers(0, 40), st.data())
def test_the_smaller_of_the_two_forms_is_chosen(column_count: int, data: st.DataObject) -> None:
    columns = data.draw(st.integers(0, column_count))
    header = ReplyHeader(stop=False, version=1, rows=1, scale=1.0, log_folded=0.0)
    sparse = pack_reply(header, np.arange(columns, dtype=np.int32), np.ones(columns, np.float32))
    whole = pack_reply(header, None, np.ones(column_count, np.float32))
    chosen = whole if dense_is_smaller(columns, column_count) else sparse
    assert len(chosen) == min(len(sparse), len(whole))
    assert len(chosen) <= largest_reply(column_count) == len(whole)


def test_a_dense_vector_is_little_more_than_its_numbers() -> None:
    assert largest_reply(1000) - 4 * 1000 <= 64
    header = UpdateHeader(version=1, rows=1, decay=1.0, round_trip=0.0)
    assert len(pack_update(header, None, np.ones(1000, np.float32))) - 4 * 1000 <= 64
