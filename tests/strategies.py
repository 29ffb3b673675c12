"""Hypothesis strategies that several test files share."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from hypothesis import Phase, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mpisgd.shard import Shard
from mpisgd.sparse_rows import SparseRows
from mpisgd.turn_statistics import Record

# Enough to find what these tests look for, in a suite that is run often. No deadline: machines are busy. No
# explanation of what failed: it takes minutes.
examples = settings(max_examples=40, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink])

Floats = st.SearchStrategy[float]

# Sums of products of a few of these are exact in float32, so results can be compared bit for bit.
eighths = st.integers(-64, 64).map(lambda n: n / 8)
# Numbers with all their bits, of ordinary size.
ordinary = st.builds(
    lambda sign, significand, exponent: sign * significand * 2.0**exponent,
    st.sampled_from([1, -1]),
    st.integers(2**23, 2**24 - 1),
    st.integers(-28, -22),
)
# Any size whose square float32 still knows.
wide = st.floats(2.0**-60, 2.0**60, width=32).flatmap(lambda x: st.sampled_from([x, -x]))

losses = st.sampled_from(["hinge", "squared_hinge", "logistic"])


def rows_from(
    row_lists: list[list[tuple[int, float]]], column_count: int, kind: type[np.signedinteger[Any]] = np.int32
) -> SparseRows:
    """Return rows given as lists of (column, value)."""
    pairs = [pair for row in row_lists for pair in row]
    return SparseRows(
        np.array([value for _, value in pairs], np.float32),
        np.array([column for column, _ in pairs], np.int32),
        np.cumsum([0, *map(len, row_lists)]).astype(kind),
        column_count,
    )


@st.composite
def sparse_rows(
    draw: st.DrawFn,
    values: Floats = eighths,
    *,
    min_rows: int = 0,
    max_rows: int = 6,
    column_count: int | None = None,
    cut: bool = True,
) -> SparseRows:
    """Rows with int32 or int64 pointers, int32 or uint16 columns, these up or down, empty rows among them.

    With `cut` they may be a part of larger arrays, so that the pointers do not begin at 0.
    """
    width = draw(st.integers(1, 5)) if column_count is None else column_count
    # One number a row says which columns are in it.
    masks = draw(st.lists(st.integers(0, 2**width - 1), min_size=min_rows, max_size=max_rows + 2 * cut))
    columns = [[j for j in range(width) if mask >> j & 1][:: draw(st.sampled_from([1, -1]))] for mask in masks]
    found = iter(draw(vectors(sum(map(len, columns)), values)).tolist())
    kind = draw(st.sampled_from([np.int32, np.int64]))
    rows = rows_from([[(j, next(found)) for j in row] for row in columns], width, kind)
    rows = dataclasses.replace(rows, columns=rows.columns.astype(draw(st.sampled_from([np.int32, np.uint16]))))
    start = draw(st.integers(0, min(2, len(rows) - min_rows))) if cut else 0
    return rows.part(start, len(rows) - draw(st.integers(0, 1)) * (cut and len(rows) - start > min_rows))


def vectors(length: int, values: Floats = eighths) -> st.SearchStrategy[NDArray[np.float32]]:
    """Float32 vectors of this length."""
    return st.lists(values, min_size=length, max_size=length).map(lambda v: np.array(v, np.float32))


def labels(rows: int) -> st.SearchStrategy[NDArray[np.float32]]:
    """As many labels +1 or -1."""
    return vectors(rows, st.sampled_from([1.0, -1.0]))


@st.composite
def shards(draw: st.DrawFn, values: Floats = eighths, **options: Any) -> Shard:
    """Rows with their labels."""
    rows = draw(sparse_rows(values, **options))
    return Shard(rows, draw(labels(len(rows))))


def record_of(**known: Any) -> Record:
    """Return the record of a turn of worker 1, 0 in all that is not said."""
    return Record(**{**dict.fromkeys(Record._fields, 0), "worker": 1, **known})
