"""Messages of rows and reports come out as they went in, and no two kinds of message are taken for each other."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mpisgd.messages import (
    ReportHeader,
    RowsHeader,
    Tag,
    pack_report,
    pack_rows,
    pack_rows_end,
    unpack_report,
    unpack_rows,
)
from mpisgd.shard import Shard
from slow_twin import dense
from strategies import examples, shards

counts = st.integers(0, 2**62)


def test_every_kind_of_message_has_a_tag_of_its_own() -> None:
    assert len({int(tag) for tag in Tag.__members__.values()}) == len(Tag.__members__)


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
@given(st.integers(1, 4), st.integers(0, 3), st.integers(1, 5), st.integers(0, 2))
def test_reports(workers: int, rounds: int, columns: int, vectors: int) -> None:
    numbers = np.random.default_rng(0).random(100, np.float32)
    round_trips, spent = numbers[: rounds * workers].reshape(rounds, workers), numbers[40 : 40 + 2 * workers]
    weights = numbers[90 : 90 + vectors * columns].reshape(vectors, columns)
    header = ReportHeader(1, 2, 2.5, 3, 4, 5, 0.625, 7, rounds, workers, in_memory=True, accuracy=0.75, objective=0.5)
    message = pack_report(header, round_trips, spent.reshape(workers, 2), list(weights))
    found, *arrays = unpack_report(message, columns)
    assert found == header
    for array, expected in zip(arrays, (round_trips, spent.reshape(workers, 2), weights), strict=True):
        np.testing.assert_array_equal(array, expected)
