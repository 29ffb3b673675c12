"""A shard is the same however it was cut into blocks."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpisgd import shard as shard_module
from mpisgd.messages import pack_rows, unpack_rows
from mpisgd.preprocessing import Preprocessing
from mpisgd.shard import Shard, ShardBuilder
from mpisgd.sparse_rows import SparseRows, column_dtype
from slow_twin import dense
from strategies import examples, ordinary, shards

preprocessings = st.builds(Preprocessing, st.booleans(), st.booleans())


def built(builder: ShardBuilder, shard: Shard, cuts: list[int]) -> Shard:
    """Return the shard that the builder makes of the blocks between the cuts; none comes before the last."""
    ends = sorted({0, len(shard.rows), *(cut for cut in cuts if cut < len(shard.rows))})
    found = None
    for start, stop in pairwise(ends):
        assert found is None
        message = pack_rows(
            shard.rows.part(start, stop), shard.labels[start:stop], len(shard.rows), shard.rows.elements
        )
        found = builder.add(*unpack_rows(message, shard.rows.column_count))
    assert found is not None
    return found


@examples
@given(shards(ordinary, min_rows=1), shards(ordinary, min_rows=1), preprocessings, st.lists(st.integers(1, 8)))
def test_blocks_make_the_shard_that_the_whole_makes_and_so_does_the_next(
    first: Shard, second: Shard, preprocessing: Preprocessing, cuts: list[int]
) -> None:
    builder = ShardBuilder(preprocessing)
    for shard in (first, second):
        found = built(builder, shard, cuts)
        whole = preprocessing.apply(shard.rows)
        SparseRows.checked(
            found.rows.values, found.rows.columns, found.rows.row_pointers, whole.column_count, where="test"
        )
        assert found.rows.column_count == whole.column_count == preprocessing.width(shard.rows.column_count)
        np.testing.assert_array_equal(dense(found.rows), dense(whole))
        np.testing.assert_array_equal(found.labels, shard.labels)


@examples
@given(shards(), st.integers(0, 100))
def test_shuffling_keeps_every_row_with_its_label(shard: Shard, seed: int) -> None:
    shuffled = shard.shuffled(np.random.default_rng(seed))
    before, after = (sorted(np.column_stack([dense(s.rows), s.labels]).tolist()) for s in (shard, shuffled))
    assert before == after


def test_shuffling_changes_the_order() -> None:
    rows = SparseRows(np.arange(50, dtype=np.float32), np.zeros(50, np.int32), np.arange(51, dtype=np.int32), 1)
    shuffled = Shard(rows, np.ones(50, np.float32)).shuffled(np.random.default_rng(0))
    assert np.count_nonzero(shuffled.rows.values == rows.values) < 10


WIDE_COLUMNS = [3, 70_000, 70_001, 1_234_567, 2_999_999]  # where a narrow shard's columns are in a wide one


def widened(rows: SparseRows) -> SparseRows:
    columns = np.array(WIDE_COLUMNS, np.int32)[rows.columns]
    return SparseRows(rows.values, columns, rows.row_pointers, 3_000_000)


@pytest.mark.parametrize("at_a_time", [1, 3, shard_module.COPY_ELEMENTS])
@pytest.mark.parametrize("bias", [True, False])
@examples
@given(shards(ordinary, min_rows=1))
def test_renumbered_rows_are_the_same_by_the_names_of_their_columns(at_a_time: int, bias: bool, shard: Shard) -> None:
    preprocessing = Preprocessing(bias, normalize=False)
    wide = built(ShardBuilder(preprocessing), Shard(widened(shard.rows.compact()), shard.labels), [])
    columns_before = wide.rows.columns.tolist()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_module, "COPY_ELEMENTS", at_a_time)
        found, names = wide.renumbered()
    assert names.dtype == np.int32
    assert names.tolist() == sorted(set(columns_before))
    assert names[found.rows.columns].tolist() == columns_before
    assert found.rows.columns.dtype == column_dtype(len(names)) == np.uint16
    assert not bias or names[-1] == 3_000_000
    narrow = dense(preprocessing.apply(shard.rows))  # (rows, 5 or fewer, and the bias)
    kept = np.searchsorted([*WIDE_COLUMNS[: shard.rows.column_count], *[3_000_000] * bias], names)
    np.testing.assert_array_equal(dense(found.rows), narrow[:, kept])
    assert not np.delete(narrow, kept, axis=1).any()
    np.testing.assert_array_equal(found.labels, shard.labels)
    SparseRows.checked(found.rows.values, found.rows.columns, found.rows.row_pointers, len(names), where="test")


def test_more_columns_than_the_narrow_type_has_stay_as_they_are() -> None:
    count = 65_537
    columns = np.arange(count, dtype=np.int32)[::-1] * 40 + 7
    pointers = np.array([0, count], np.int32)
    shard = Shard(SparseRows(np.ones(count, np.float32), columns, pointers, 3_000_000), np.ones(1, np.float32))
    found, names = shard.renumbered()
    assert found.rows.columns.dtype == np.int32
    assert found.rows.column_count == count
    np.testing.assert_array_equal(found.rows.columns, np.arange(count)[::-1])
    np.testing.assert_array_equal(names, np.arange(count) * 40 + 7)


def test_rows_of_nothing_have_no_columns() -> None:
    rows = SparseRows(np.empty(0, np.float32), np.empty(0, np.int32), np.zeros(4, np.int32), 3_000_000)
    found, names = Shard(rows, np.ones(3, np.float32)).renumbered()
    assert (len(found.rows), found.rows.column_count, len(names)) == (3, 0, 0)
