"""Scaling columns: what it does to their sizes, when it is done, and that nothing but the sizes changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpisgd.config import Config
from mpisgd.job import Job
from mpisgd.scaling import are_uneven, column_scales, column_sums, may_scale, scale
from mpisgd.sparse_rows import SparseRows
from mpisgd.turns import WIDE
from strategies import examples, ordinary, rows_from, sparse_rows


def job(rows: SparseRows, **settings: Any) -> Job:
    """Return a job for these rows, without a bias column unless there is to be one."""
    config = Config(**{"bias": False, **settings})
    return Job(config, rows.column_count - config.bias, max(1, len(rows)))


def copied(rows: SparseRows) -> SparseRows:
    return SparseRows(rows.values.copy(), rows.columns, rows.row_pointers, rows.column_count)


def of_sizes(sizes: list[float], bias: bool = False) -> SparseRows:
    """Return a hundred rows with one element of each size, up or down, in as many columns."""
    rng = np.random.default_rng(0)
    rows = rows_from(
        [[(j, size * rng.choice([-1, 1])) for j, size in enumerate(sizes)] for _ in range(100)], len(sizes)
    )
    return rows.with_bias() if bias else rows


@examples
@given(sparse_rows(ordinary))
def test_sums_are_those_of_each_column(rows: SparseRows) -> None:
    counts, squares = np.split(column_sums(rows), 2)
    compact = rows.compact()
    for column in range(rows.column_count):
        values = compact.values[compact.columns == column].astype(np.float64)
        assert counts[column] == len(values)
        assert squares[column] == pytest.approx(np.sum(values**2), rel=1e-12)


@examples
@given(sparse_rows(ordinary), st.data())
def test_margins_keep_their_bits_when_the_weights_take_the_scales(rows: SparseRows, data: st.DataObject) -> None:
    weights = np.array([data.draw(ordinary) for _ in range(rows.column_count)], np.float32)
    scaled, scales = copied(rows), column_scales(job(rows), column_sums(rows))
    scale(scaled, scales)
    np.testing.assert_array_equal(scaled.margins(weights, 0, len(rows)), rows.margins(weights * scales, 0, len(rows)))


@examples
@given(st.lists(st.floats(-30, 30), min_size=1, max_size=8), st.booleans())
def test_columns_come_to_about_the_mean_size_of_all(exponents: list[float], bias: bool) -> None:
    rows = of_sizes([2.0**exponent for exponent in exponents], bias)
    scales = column_scales(job(rows, bias=bias), column_sums(rows))
    if bias:
        assert scales[-1] == 1
    scale(rows, scales)
    counts, squares = np.split(column_sums(rows), 2)
    sizes = np.log2(np.sqrt(squares / counts))[: len(exponents)]
    clipped = abs(np.mean(exponents) - np.array(exponents)) > 40
    assert (abs(sizes - np.mean(exponents))[~clipped] <= 0.51).all()
    assert (abs(np.log2(scales[: len(exponents)]))[clipped] == 40).all()


def test_one_column_of_huge_elements_leaves_the_others_about_as_they_are() -> None:
    rows = rows_from([[(0, 1e9), *((j, 0.125) for j in range(1, 76))] for _ in range(9)], 76)
    scales = column_scales(job(rows), column_sums(rows))
    assert set(scales[1:].tolist()) <= {1.0, 2.0}
    assert 0.1 < 1e9 * scales[0] < 0.25


def test_columns_without_elements_or_of_zeros_stay_as_they_are() -> None:
    rows = rows_from([[(0, 3.0), (1, 0.0)], [(0, -3.0)]], 3)
    np.testing.assert_array_equal(column_scales(job(rows), column_sums(rows)), [1, 1, 1])
    nothing = rows_from([[], []], 2)
    np.testing.assert_array_equal(column_scales(job(nothing), column_sums(nothing)), [1, 1])


@pytest.mark.parametrize(
    ("sizes", "uneven"),
    [([1.0, 1.0], False), ([1.0, 3.9], False), ([1.0, 4.2], True), ([1e-3, 1.0, 1e3], True), ([0.0, 2.0], False)],
)
@pytest.mark.parametrize("bias", [True, False])
def test_sizes_are_uneven_from_a_factor_of_two_about_their_mean(sizes: list[float], uneven: bool, bias: bool) -> None:
    rows = of_sizes(sizes, bias)
    assert are_uneven(job(rows, bias=bias), column_sums(rows)) == uneven


def test_rows_without_elements_are_not_uneven() -> None:
    nothing = rows_from([[], []], 2)
    assert not are_uneven(job(nothing), column_sums(nothing))


@pytest.mark.parametrize(("columns", "asked", "may"), [(5, "auto", True), (5, "never", False), (WIDE, "auto", False)])
def test_columns_are_scaled_where_a_rank_knows_all(columns: int, asked: Any, may: bool) -> None:
    planned = Job.planned(Config(mode="async", iterations=1, scale_columns=asked), columns, 1_000, 2, 1.0)
    assert may_scale(planned) == may


def test_wide_rows_are_not_treated_as_such_where_they_are_to_be_scaled() -> None:
    planned = Job.planned(Config(mode="async", iterations=1, scale_columns="always"), WIDE, 1_000, 2, 1.0)
    assert may_scale(planned)
    assert not planned.wide
