"""SciPy's compiled CSR loops without the matrix object around them: the only place that touches them.

`scipy.sparse._sparsetools` is private to SciPy, and building a `csr_matrix` for every mini-batch makes a step
three to seven times slower than calling the loop it ends in. `tests/test_sparse_rows.py` holds each function
here to SciPy's public way; should a SciPy release move the private module, the public way below takes over.

All three take absolute row pointers: `row_pointers[i]:row_pointers[i + 1]` are row i's places in the whole
`columns` and `values`, so a range of rows is a slice of the pointers and nothing else is copied.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.signedinteger[Any]]
Float = NDArray[np.float32]

_sparsetools: Any
try:
    from scipy.sparse import _sparsetools
except ImportError:  # pragma: no cover - no SciPy release lacks it yet
    _sparsetools = None


def multiply(row_pointers: Index, columns: Index, values: Float, weights: Float, out: Float) -> None:
    """Add X w to `out`: out[i] += sum_j x_ij w_j.

    Shapes: row_pointers (rows + 1,), weights (column_count,), out (rows,). All floats are float32.
    """
    if _sparsetools is None:  # pragma: no cover
        out += _matrix(row_pointers, columns, values, len(weights)) @ weights
    else:
        _sparsetools.csr_matvec(len(out), len(weights), row_pointers, columns, values, weights, out)


def add_weighted_rows(row_pointers: Index, columns: Index, values: Float, coefficients: Float, weights: Float) -> None:
    """Add X^T c to `weights`: w_j += sum_i c_i x_ij.

    X in CSR form is X^T in CSC form, so SciPy's column loop runs over our rows.
    Shapes: row_pointers (rows + 1,), coefficients (rows,), weights (column_count,). All floats are float32.
    """
    if _sparsetools is None:  # pragma: no cover
        weights += _matrix(row_pointers, columns, values, len(weights)).T @ coefficients
    else:
        _sparsetools.csc_matvec(len(weights), len(coefficients), row_pointers, columns, values, coefficients, weights)


def copy_rows(
    rows: Index, row_pointers: Index, columns: Index, values: Float, out_columns: Index, out_values: Float
) -> None:
    """Write the named rows, one after the other, into `out_columns` and `out_values`.

    `rows` must have the dtype of `row_pointers` and `columns`; the outputs hold as many elements as the rows.
    """
    if _sparsetools is None:  # pragma: no cover
        chosen = _matrix(row_pointers, columns, values, int(columns.max(initial=0)) + 1)[rows]
        out_columns[:], out_values[:] = chosen.indices, chosen.data
    else:
        _sparsetools.csr_row_index(len(rows), rows, row_pointers, columns, values, out_columns, out_values)


def _matrix(row_pointers: Index, columns: Index, values: Float, column_count: int) -> Any:  # pragma: no cover
    """Return the same rows as SciPy's public matrix object."""
    from scipy.sparse import csr_matrix  # noqa: PLC0415 - only where the private loops are missing

    start, stop = int(row_pointers[0]), int(row_pointers[-1])
    shape = (len(row_pointers) - 1, column_count)
    return csr_matrix((values[start:stop], columns[start:stop], row_pointers - start), shape=shape)
