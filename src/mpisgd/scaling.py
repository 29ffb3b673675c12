"""Columns of very different sizes, brought to one size while they are learnt.

A gradient step moves a weight in proportion to its column's elements, the margins move by their square: where one
step size has to serve columns of very different sizes, it is too large for some and far too small for others. So each
column j is multiplied by a scale s_j, and what is learnt, w'_j, stands for w_j = s_j w'_j: w.x stays what it is. Scales
are powers of two, so that not a bit of it changes. The penalty is then that of w'.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mpisgd.compiled_loops import Float
from mpisgd.job import Job
from mpisgd.shard import COPY_ELEMENTS
from mpisgd.sparse_rows import SparseRows

# Standard deviation, over all elements, of the binary logarithm of their columns' sizes: columns differ from their mean
# by a factor of two. Of tf-idf text it is 0.6, and there the sizes mean something: scaling RCV1 loses 0.004. Of
# log-normal column sizes (a factor of e) it is 1.4, and without scaling 50 passes end 0.07 below LIBLINEAR.
UNEVEN = 1.0
LARGEST_EXPONENT = 40  # of a scale: what is learnt must stay finite in float32

Sums = NDArray[np.float64]


def may_scale(job: Job) -> bool:
    """Tell whether columns may have to be scaled; of wide rows no rank knows all columns."""
    return job.config.scale_columns != "never" and not job.wide


def agreed_scales(job: Job, sample_sums: Callable[[], Sums], all_sums: Callable[[], Sums]) -> Float | None:
    """Return the scale of each column, if they are to be scaled; the same on every rank, as all ask for the same sums.

    Each returns the workers' `column_sums` added up, over a sample of their rows and over all of them.
    """
    if not may_scale(job) or (job.config.scale_columns == "auto" and not are_uneven(job, sample_sums())):
        return None
    return column_scales(job, all_sums())


def column_sums(rows: SparseRows) -> Sums:
    """Return the number of each column's elements and the sum of their squares, float64 (2 column_count,)."""
    rows = rows.compact()
    counts, squares = np.zeros(rows.column_count), np.zeros(rows.column_count)
    at_a_time = max(COPY_ELEMENTS, rows.column_count)
    for start in range(0, rows.elements, at_a_time):
        columns = rows.columns[start : start + at_a_time]
        values = rows.values[start : start + at_a_time].astype(np.float64)
        counts += np.bincount(columns, minlength=rows.column_count)
        squares += np.bincount(columns, values * values, rows.column_count)
    return np.concatenate([counts, squares])


def are_uneven(job: Job, sums: Sums) -> bool:
    """Tell whether the columns' sizes differ so much that they are to be scaled, by sums over a sample of all rows."""
    counts, sizes = _sizes(job, sums)
    known = sizes > 0
    if not known.any():
        return False
    logarithms = np.log2(sizes[known])
    spread = np.average((logarithms - _typical(counts, sizes)) ** 2, weights=counts[known])
    return float(spread) > UNEVEN**2


def column_scales(job: Job, sums: Sums) -> Float:
    """Return the scale of each column, float32 (column_count,), by sums over all shards; 1 where nothing is known.

    With it a column's elements have about the geometric mean of the sizes of all, which one column of huge ones does
    not move. The bias column stays as it is. With sample sharding the shards are the first samples.
    """
    counts, sizes = _sizes(job, sums)
    exponents, known = np.zeros(len(sizes)), sizes > 0
    if known.any():
        exponents[known] = _typical(counts, sizes) - np.log2(sizes[known])
    scales = np.exp2(np.rint(exponents).clip(-LARGEST_EXPONENT, LARGEST_EXPONENT))
    return np.concatenate([scales, np.ones(job.column_count - len(scales))]).astype(np.float32)


def scale(rows: SparseRows, scales: Float) -> None:
    """Multiply the rows' elements by their columns' scales, in place."""
    rows = rows.compact()
    for start in range(0, rows.elements, COPY_ELEMENTS):
        some = slice(start, start + COPY_ELEMENTS)
        rows.values[some] *= scales[rows.columns[some]]


def _sizes(job: Job, sums: Sums) -> tuple[Sums, Sums]:
    """Return the number of elements of each column but the bias, and their root mean square, 0 where there are none."""
    counts, squares = (part[: job.feature_count] for part in np.split(sums, 2))
    return counts, np.sqrt(np.divide(squares, counts, out=np.zeros_like(squares), where=counts > 0))


def _typical(counts: Sums, sizes: Sums) -> float:
    """Return the mean binary logarithm of the sizes that are not 0, each as often as its column has elements."""
    known = sizes > 0
    return float(np.average(np.log2(sizes[known]), weights=counts[known]))
