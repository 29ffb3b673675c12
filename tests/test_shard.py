"""A shard is the same however it was cut into blocks."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mpisgd.messages import pack_rows, unpack_rows
from mpisgd.preprocessing import Preprocessing
from mpisgd.shard import Shard, ShardBuilder
from mpisgd.sparse_rows import SparseRows
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
