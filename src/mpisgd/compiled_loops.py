"""The loops over rows, where nearly all time is spent: our kernel, or SciPy's and NumPy's where it was not compiled.

`_kernel` is made from `_kernel.c` when the package is installed, if there is a C compiler. Without it the program does
the same some ten times more slowly: with SciPy's compiled loops, called without the matrix object around them, which
takes longer to build than a mini-batch to multiply. Those are private to SciPy, and this is the only place that touches
them; `tests/test_sparse_rows.py` and `tests/test_svm.py` hold both ways to each other and to SciPy's public one.

Functions of rows take absolute row pointers: `row_pointers[i]:row_pointers[i + 1]` are row i's places in the whole
`columns` and `values`, so a range of rows is a slice of the pointers and nothing else is copied. Columns are int32 or
uint16, pointers int32 or int64, all floats float32.
"""

import functools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.integer[Any]]
Float = NDArray[np.float32]
LARGEST_FLOAT = float(np.finfo(np.float32).max)


class Rows(NamedTuple):
    """All rows of a shard in one, with arrays as all functions here take; `wide`: the pointers are int64."""

    row_pointers: Index
    columns: Index
    values: Float
    wide: bool


COPY_ROWS = 65_536  # at a time, so that what is needed beside the rows stays small

_kernel: Any
try:
    from mpisgd import _kernel
except ImportError:
    _kernel = None


def is_compiled() -> bool:
    """Tell whether the package's own kernel is there."""
    return _kernel is not None


def multiply(row_pointers: Index, columns: Index, values: Float, weights: Float, out: Float) -> None:
    """Write X w to `out`: out[i] = sum_j x_ij w_j.

    Shapes: row_pointers (rows + 1,), weights (column_count,), out (rows,).
    """
    if _kernel is not None:
        _kernel.multiply(row_pointers, columns, values, _wide(row_pointers), weights, out)
        return
    out[:] = 0
    for first in range(0, len(out), COPY_ROWS):
        some = out[first : first + COPY_ROWS]
        arrays = _for_scipy(row_pointers[first : first + len(some) + 1], columns, values)
        _scipy().csr_matvec(len(some), len(weights), *arrays, weights, some)


def judge(
    row_pointers: Index, columns: Index, values: Float, labels: Float, vector: Float, scale: float, *, loss: int
) -> tuple[int, float]:
    """Return how many rows are predicted right, and the sum of the losses, as `svm.Objective.judge` does.

    Needs the kernel. Shapes: row_pointers (rows + 1,), labels (rows,), vector (column_count,). `loss` is its place in
    `svm.LOSSES`.
    """
    found: tuple[int, float] = _kernel.judge(
        row_pointers, columns, values, _wide(row_pointers), labels, vector, scale, loss
    )
    return found


def add_weighted_rows(row_pointers: Index, columns: Index, values: Float, coefficients: Float, weights: Float) -> None:
    """Add X^T c to `weights`: w_j += sum_i c_i x_ij. Only the way without a kernel needs it.

    X in CSR form is X^T in CSC form, so SciPy's column loop runs over our rows.
    Shapes: row_pointers (rows + 1,), coefficients (rows,), weights (column_count,).
    """
    pointers, columns, values = _for_scipy(row_pointers, columns, values)
    _scipy().csc_matvec(len(weights), len(coefficients), pointers, columns, values, coefficients, weights)


def copy_rows(
    rows: NDArray[np.integer[Any]],
    row_pointers: Index,
    columns: Index,
    values: Float,
    out_columns: Index,
    out_values: Float,
) -> None:
    """Write the named rows, one after the other, into `out_columns` and `out_values`, which they fill."""
    rows = rows.astype(np.int64, copy=False)
    if _kernel is not None:
        _kernel.copy_rows(rows, row_pointers, columns, values, _wide(row_pointers), out_columns, out_values)
        return
    at = 0
    for some in np.split(rows, range(COPY_ROWS, len(rows), COPY_ROWS)):
        starts = row_pointers[some].astype(np.int64)
        lengths = row_pointers[some + 1] - starts
        ends = np.cumsum(lengths)
        stop = at + int(ends[-1] if len(ends) else 0)
        places = np.arange(stop - at) + np.repeat(starts - (ends - lengths), lengths)
        out_columns[at:stop], out_values[at:stop] = columns[places], values[places]
        at = stop


def squared_norms(row_pointers: Index, columns: Index, values: Float, out: NDArray[np.float64]) -> None:
    """Write the squared norm of every row to `out`, float64 (rows,)."""
    if _kernel is not None:
        _kernel.squared_norms(row_pointers, columns, values, _wide(row_pointers), out)
        return
    for first in range(0, len(out), COPY_ROWS):
        pointers = row_pointers[first : first + COPY_ROWS + 1].astype(np.int64)
        squares = np.square(values[pointers[0] : pointers[-1]], dtype=np.float64)
        sums = np.concatenate([[0.0], np.cumsum(squares)])[pointers - pointers[0]]
        out[first : first + COPY_ROWS] = np.diff(sums)


def minibatch_steps(
    row_pointers: Index,
    columns: Index,
    values: Float,
    labels: Float,
    squared_norms: Float,
    start: int,
    stop: int,
    batch_size: int,
    vector: Float,
    scale: float,
    *,
    smallest_scale: float,
    step_size: float,
    regularization: float,
    loss: int,
    bias_step: float,
    has_bias: bool,
) -> tuple[int, float, int]:
    """Take the mini-batch steps of the rows start:stop, as `svm.Objective.minibatch_step` does; needs the kernel.

    Changes `vector` in place; returns the row after the last one taken, the new scale, and how many rows took a step.
    Ends early after the step that brings the scale below `smallest_scale`. `loss` is its place in `svm.LOSSES`.
    """
    batch_size = max(1, min(batch_size, stop - start))
    margins = np.empty(batch_size, np.float32)
    taken: tuple[int, float, int] = _kernel.minibatch_steps(
        row_pointers, columns, values, _wide(row_pointers), labels, squared_norms, start, stop,
        batch_size, margins, vector, scale, smallest_scale, step_size, regularization, loss, bias_step, has_bias,
    )  # fmt: skip
    return taken


@functools.cache
def _scipy() -> Any:
    """Return SciPy's compiled loops; importing them takes longer than NumPy, so only who needs them does."""
    from scipy.sparse import _sparsetools  # noqa: PLC0415 - as said

    return _sparsetools


def _wide(row_pointers: Index) -> bool:
    return row_pointers.itemsize == 8


def _for_scipy(row_pointers: Index, columns: Index, values: Float) -> tuple[Index, Index, Float]:
    """Return the same rows with pointers and columns of one dtype, int32, as SciPy wants them."""
    if row_pointers.dtype == columns.dtype == np.int32:
        return row_pointers, columns, values
    start, stop = int(row_pointers[0]), int(row_pointers[-1])
    pointers = (row_pointers - start).astype(np.int32, copy=False)
    return pointers, columns[start:stop].astype(np.int32, copy=False), values[start:stop]
