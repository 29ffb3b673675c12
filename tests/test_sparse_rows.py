"""Sparse rows do what SciPy's public matrices and dense NumPy do, from either of the two kinds of loops."""

from __future__ import annotations

import itertools
import shutil
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from both_ways import Loops, either_way, without_kernel
from mpisgd import compiled_loops
from mpisgd.errors import DataError
from mpisgd.sparse_rows import INT32_MAX, SparseRows, concatenate, pointer_dtype
from slow_twin import dense
from strategies import examples, rows_from, sparse_rows, vectors, wide


def public(rows: SparseRows) -> Any:
    """Return the rows as SciPy's public matrix."""
    packed = rows.compact()
    return csr_matrix((packed.values, packed.columns, packed.row_pointers), shape=(len(rows), rows.column_count))


def is_sound(rows: SparseRows) -> bool:
    """Tell whether the arrays are such as `checked` lets in, of their own size."""
    SparseRows.checked(rows.values, rows.columns, rows.row_pointers, rows.column_count, where="test")
    kinds = rows.values.dtype, rows.columns.dtype, rows.row_pointers.dtype
    return kinds in itertools.product([np.float32], [np.int32, np.uint16], [np.int32, np.int64])


@st.composite
def rows_and_vector(draw: st.DrawFn, along: str) -> tuple[SparseRows, NDArray[np.float32]]:
    rows = draw(sparse_rows())
    return rows, draw(vectors(len(rows) if along == "rows" else rows.column_count))


# --- the loops against SciPy's public way


@pytest.mark.skipif(shutil.which("cc") is None and shutil.which("gcc") is None, reason="no C compiler on this machine")
def test_where_there_is_a_compiler_the_kernel_was_built() -> None:
    """Its building may fail without failing the installation, and all other tests would pass without it."""
    assert compiled_loops.is_compiled()


@either_way
@examples
@given(rows_and_vector("columns"))
def test_multiply(loops: Loops, case: tuple[SparseRows, NDArray[np.float32]]) -> None:
    rows, weights = case
    out = np.full(len(rows), np.nan, np.float32)
    with loops():
        compiled_loops.multiply(rows.row_pointers, rows.columns, rows.values, weights, out)
    np.testing.assert_array_equal(out, public(rows) @ weights)


@examples
@given(rows_and_vector("rows"))
def test_add_weighted_rows(case: tuple[SparseRows, NDArray[np.float32]]) -> None:
    rows, coefficients = case
    weights = np.full(rows.column_count, 0.5, np.float32)
    with without_kernel():
        compiled_loops.add_weighted_rows(rows.row_pointers, rows.columns, rows.values, coefficients, weights)
    np.testing.assert_array_equal(weights, np.float32(0.5) + public(rows).T @ coefficients)


@either_way
@examples
@given(sparse_rows(min_rows=1), st.data())
def test_copy_rows(loops: Loops, rows: SparseRows, data: st.DataObject) -> None:
    chosen = np.array(data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=12)), np.intp)
    expected = public(rows)[chosen]
    columns, values = np.empty(expected.nnz, rows.columns.dtype), np.empty(expected.nnz, np.float32)
    with loops(), mock.patch.object(compiled_loops, "COPY_ROWS", 5):
        compiled_loops.copy_rows(chosen, rows.row_pointers, rows.columns, rows.values, columns, values)
    np.testing.assert_array_equal(columns, expected.indices)
    np.testing.assert_array_equal(values, expected.data)


# --- the rows against dense NumPy


@examples
@given(sparse_rows(min_rows=1), st.data())
def test_take(rows: SparseRows, data: st.DataObject) -> None:
    chosen = np.array(data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=12)), np.intp)
    taken = rows.take(chosen)
    assert is_sound(taken)
    np.testing.assert_array_equal(dense(taken), dense(rows)[chosen])


@examples
@given(sparse_rows(), st.data())
def test_part_is_a_view_and_compact_its_own_size(rows: SparseRows, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(rows)))
    stop = data.draw(st.integers(start, len(rows)))
    part = rows.part(start, stop)
    packed = part.compact()
    assert part.values is rows.values
    assert is_sound(packed)
    assert len(packed.values) == packed.elements == part.elements
    np.testing.assert_array_equal(dense(part), dense(rows)[start:stop])
    np.testing.assert_array_equal(dense(packed), dense(rows)[start:stop])


@examples
@given(st.lists(sparse_rows(column_count=5, max_rows=4), max_size=4))
def test_concatenate(parts: list[SparseRows]) -> None:
    joined = concatenate(parts, 5)
    assert is_sound(joined)
    np.testing.assert_array_equal(dense(joined), np.concatenate([np.empty((0, 5)), *map(dense, parts)]))


@examples
@given(sparse_rows())
def test_with_bias_adds_a_last_column_of_ones(rows: SparseRows) -> None:
    biased = rows.with_bias()
    assert is_sound(biased)
    np.testing.assert_array_equal(dense(biased), np.column_stack([dense(rows), np.ones(len(rows))]))


@examples
@given(rows_and_vector("columns"), st.data())
def test_margins_of_some_rows(case: tuple[SparseRows, NDArray[np.float32]], data: st.DataObject) -> None:
    rows, weights = case
    start = data.draw(st.integers(0, len(rows)))
    stop = data.draw(st.integers(start, len(rows)))
    np.testing.assert_array_equal(rows.margins(weights, start, stop), (dense(rows) @ weights)[start:stop])


@examples
@given(rows_and_vector("rows"), st.data())
def test_add_weighted_sum_of_some_rows(case: tuple[SparseRows, NDArray[np.float32]], data: st.DataObject) -> None:
    rows, coefficients = case
    start = data.draw(st.integers(0, len(rows)))
    stop = data.draw(st.integers(start, len(rows)))
    weights = np.ones(rows.column_count, np.float32)
    rows.add_weighted_sum(coefficients[start:stop], start, weights)
    np.testing.assert_array_equal(weights, 1 + dense(rows)[start:stop].T @ coefficients[start:stop])


@examples
@given(sparse_rows(wide))
def test_squared_norms_of_rows_of_any_size(rows: SparseRows) -> None:
    np.testing.assert_allclose(rows.squared_norms(), np.square(dense(rows)).sum(axis=1), rtol=1e-12)


@examples
@given(sparse_rows(wide))
def test_normalized_rows_of_any_size_have_unit_norm(rows: SparseRows) -> None:
    full = dense(rows)
    norms = np.linalg.norm(full, axis=1, keepdims=True)
    expected = np.divide(full, norms, out=np.zeros_like(full), where=norms > 0)
    np.testing.assert_allclose(dense(rows.normalized()), expected, rtol=1e-6, atol=1e-30)


def test_normalized_leaves_rows_of_zeros_and_none_as_they_are() -> None:
    rows = rows_from([[(0, 0.0), (1, 0.0)], [], [(1, 3.0), (0, 4.0)]], 2)
    np.testing.assert_allclose(dense(rows.normalized()), [[0, 0], [0, 0], [0.8, 0.6]], rtol=1e-7)


@pytest.mark.parametrize("value", [1e-42, 1e-20, 1e20, 3e38])
def test_normalized_takes_every_finite_number(value: float) -> None:
    rows = rows_from([[(0, value)], [(0, -value), (1, value)]], 2)
    half = np.sqrt(0.5)
    np.testing.assert_allclose(dense(rows.normalized()), [[1, 0], [-half, half]], rtol=1e-5)


# --- what is let in


def test_pointers_are_32_bits_while_they_fit() -> None:
    assert pointer_dtype(INT32_MAX) is np.int32
    assert pointer_dtype(INT32_MAX + 1) is np.int64


def test_more_columns_than_32_bits_count_are_refused() -> None:
    nothing = np.zeros(0, np.float32)
    with pytest.raises(DataError, match="found 2147483648 columns, expected at most 2147483647"):
        SparseRows.checked(nothing, nothing.astype(np.int64), np.zeros(1, np.int64), 2**31, where="test")


@pytest.mark.skipif(not compiled_loops.is_compiled(), reason="there was no C compiler: nothing to check")
@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"row_pointers": np.array([0, 3], np.int32)}, "pointers past the end"),
        ({"row_pointers": np.array([], np.int32)}, "row pointers"),
        ({"values": np.ones(1, np.float32)}, "columns and values"),
        ({"out": np.ones(2, np.float32)}, "out"),
    ],
)
def test_the_kernel_refuses_arrays_that_do_not_fit(changed: dict[str, Any], what: str) -> None:
    arrays = {
        "row_pointers": np.array([0, 2], np.int32),
        "columns": np.array([0, 1], np.int32),
        "values": np.ones(2, np.float32),
        "weights": np.ones(2, np.float32),
        "out": np.ones(1, np.float32),
    }
    with pytest.raises(ValueError, match=f"arrays do not fit: {what}"):
        compiled_loops.multiply(**{**arrays, **changed})


@examples
@given(sparse_rows(cut=False), st.sampled_from([np.int8, np.uint16, np.int64]), st.sampled_from([np.float64, np.int16]))
def test_checked_takes_any_integer_and_float_dtype(rows: SparseRows, kind: Any, value_kind: Any) -> None:
    values = rows.values.astype(value_kind)
    checked = SparseRows.checked(
        values, rows.columns.astype(kind), rows.row_pointers.astype(kind), rows.column_count, where="test"
    )
    assert is_sound(checked)
    np.testing.assert_array_equal(checked.values, values.astype(np.float32))
    np.testing.assert_array_equal(checked.columns, rows.columns)
    np.testing.assert_array_equal(checked.row_pointers, rows.row_pointers)


BAD_ARRAYS: dict[str, tuple[list[float], list[int], list[int], list[str]]] = {
    "no pointers": ([], [], [], ["first row pointer", "found none", "expected 0"]),
    "pointers from 1": ([1, 2], [0, 1], [1, 2], ["first row pointer", "found 1", "expected 0"]),
    "pointers decrease": ([1, 2], [0, 1], [0, 2, 1, 2], ["row 101", "decrease", "found 2 then 1"]),
    "pointers too short": ([1, 2], [0, 1], [0, 1], ["last row pointer", "found 1", "the 2 elements"]),
    "pointers too long": ([1, 2], [0, 1], [0, 3], ["last row pointer", "found 3", "the 2 elements"]),
    "a value too few": ([1], [0, 1], [0, 2], ["found 1 values and 2 columns", "as many"]),
    "negative column": ([1, 2], [0, -1], [0, 1, 2], ["column of row 101", "found -1", "column < 3"]),
    "column too large": ([1, 2], [0, 3], [0, 1, 1, 2], ["column of row 102", "found 3", "column < 3"]),
    "not a number": ([1, np.nan], [0, 1], [0, 0, 2], ["value of row 101", "found nan", "finite"]),
    "infinite": ([-np.inf, 1], [0, 1], [0, 2], ["value of row 100", "found -inf", "finite"]),
    "too large for 32 bits": ([1, 1e39], [0, 1], [0, 2], ["value of row 100", "found 1e+39", "32-bit"]),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bad_arrays_are_told_with_place_found_and_expected(case: str) -> None:
    values, columns, pointers, parts = BAD_ARRAYS[case]
    with pytest.raises(DataError) as caught:
        SparseRows.checked(
            np.array(values, np.float64),
            np.array(columns, np.int64),
            np.array(pointers, np.int64),
            3,
            where="rows.h5",
            first_row=100,
        )
    message = str(caught.value)
    assert "\n" not in message
    assert [part for part in ["rows.h5", *parts] if part not in message] == []
