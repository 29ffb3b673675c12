"""Sparse rows: checked CSR arrays, and what is done with them: pick rows, margins, weighted sums."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpisgd import compiled_loops
from mpisgd.compiled_loops import Float, Index, Rows
from mpisgd.errors import DataError

INT32_MAX = np.iinfo(np.int32).max
UINT16_MAX = np.iinfo(np.uint16).max


def pointer_dtype(elements: int) -> type[np.signedinteger[Any]]:
    """Return the dtype of row pointers to that many elements: int32, or int64 past 2^31."""
    return np.int32 if elements <= INT32_MAX else np.int64


def column_dtype(column_count: int) -> type[np.integer[Any]]:
    """Return the smallest dtype of columns that the loops take: uint16, or int32 for more than 65,536 columns."""
    return np.uint16 if column_count <= UINT16_MAX + 1 else np.int32


@dataclass(frozen=True, slots=True)
class SparseRows:
    """Rows in compressed sparse row (CSR) form.

    values        (elements,)  float32
    columns       (elements,)  int32, or uint16 where they are kept to compute with; 0 <= column < column_count
    row_pointers  (rows + 1,)  int32 (int64 past 2^31 elements); row i is the elements
                               row_pointers[i]:row_pointers[i + 1]. Absolute: a range of rows is a slice of them,
                               over the same values and columns.
    column_count  the width of the rows, whether or not the last columns occur
    """

    values: Float
    columns: Index
    row_pointers: Index
    column_count: int

    @property
    def arrays(self) -> Rows:
        """What loops take that are given all rows in one."""
        return Rows(self.row_pointers, self.columns, self.values, self.row_pointers.itemsize == 8)

    @classmethod
    def checked(
        cls,
        values: NDArray[Any],
        columns: NDArray[Any],
        row_pointers: NDArray[Any],
        column_count: int,
        *,
        where: str,
        first_row: int = 0,
    ) -> SparseRows:
        """Build rows from arrays of any integer and float dtype, or say what is wrong with them.

        `where` names the file in messages; `first_row` is the file's number of the first row here.

        Raises:
            DataError: pointers that decrease or do not fit, columns out of range, values that are not finite.

        """
        if column_count > INT32_MAX:
            raise DataError(f"{where}: found {column_count} columns, expected at most {INT32_MAX}")
        check_row_pointers(row_pointers, len(columns), where, first_row)
        if len(values) != len(columns):
            raise DataError(f"{where}: found {len(values)} values and {len(columns)} columns, expected as many")
        _check_elements(
            columns,
            (columns < 0) | (columns >= column_count),
            row_pointers,
            f"expected 0 <= column < {column_count}",
            f"{where}: column",
            first_row,
        )
        with np.errstate(over="ignore"):
            values32 = values.astype(np.float32, copy=False)
        _check_elements(
            values,
            ~np.isfinite(values32),
            row_pointers,
            "expected a finite 32-bit number",
            f"{where}: value",
            first_row,
        )
        pointers = row_pointers.astype(pointer_dtype(len(columns)), copy=False)
        return cls(values32, columns.astype(np.int32, copy=False), pointers, column_count)

    def __len__(self) -> int:
        return len(self.row_pointers) - 1

    @property
    def elements(self) -> int:
        """The number of stored elements in these rows."""
        return int(self.row_pointers[-1] - self.row_pointers[0])

    def part(self, start: int, stop: int) -> SparseRows:
        """Return the contiguous rows start:stop as a view; nothing is copied."""
        return SparseRows(self.values, self.columns, self.row_pointers[start : stop + 1], self.column_count)

    def compact(self) -> SparseRows:
        """Return these rows with arrays of their own size, pointers from 0; views where nothing is cut off."""
        start, stop = int(self.row_pointers[0]), int(self.row_pointers[-1])
        pointers = self.row_pointers if start == 0 else self.row_pointers - start
        return SparseRows(self.values[start:stop], self.columns[start:stop], pointers, self.column_count)

    def narrow(self) -> SparseRows:
        """Return these rows with columns of the smallest dtype: less to read."""
        columns = self.columns.astype(column_dtype(self.column_count), copy=False)
        return SparseRows(self.values, columns, self.row_pointers, self.column_count)

    def lengths(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.integer[Any]]:
        """Return the number of elements of each of these rows, of the shape of `rows`."""
        lengths: NDArray[np.integer[Any]] = self.row_pointers[rows + 1] - self.row_pointers[rows]
        return lengths

    def take(self, rows: NDArray[np.integer[Any]]) -> SparseRows:
        """Return a copy of any rows in any order, repeated ones included: the random row getter."""
        lengths = self.lengths(rows)
        elements = int(lengths.sum(dtype=np.int64))
        pointers = np.zeros(len(rows) + 1, pointer_dtype(elements))
        np.cumsum(lengths, out=pointers[1:])
        columns, values = np.empty(elements, self.columns.dtype), np.empty(elements, np.float32)
        compiled_loops.copy_rows(rows, self.row_pointers, self.columns, self.values, columns, values)
        return SparseRows(values, columns, pointers, self.column_count)

    def margins(self, weights: Float, start: int, stop: int) -> Float:
        """Return x_i . w for the rows start:stop, float32 of shape (stop - start,)."""
        out = np.empty(stop - start, np.float32)
        compiled_loops.multiply(self.row_pointers[start : stop + 1], self.columns, self.values, weights, out)
        return out

    def add_weighted_sum(self, coefficients: Float, start: int, weights: Float) -> None:
        """Add sum_i c_i x_i to `weights` in place, over the len(coefficients) rows from `start` on."""
        pointers = self.row_pointers[start : start + len(coefficients) + 1]
        compiled_loops.add_weighted_rows(pointers, self.columns, self.values, coefficients, weights)

    def squared_norms(self) -> NDArray[np.float64]:
        """Return ||x_i||^2 of every row, float64 of shape (rows,)."""
        norms = np.empty(len(self))
        compiled_loops.squared_norms(self.row_pointers, self.columns, self.values, norms)
        return norms

    def normalized(self) -> SparseRows:
        """Return the rows scaled to unit Euclidean norm; empty and all-zero rows stay as they are."""
        rows = self.compact()
        norms = np.sqrt(rows.squared_norms())
        factors = np.divide(1.0, norms, out=np.ones_like(norms), where=norms > 0)
        values = rows.values * np.repeat(factors, np.diff(rows.row_pointers))
        return SparseRows(values.astype(np.float32), rows.columns, rows.row_pointers, rows.column_count)

    def with_bias(self) -> SparseRows:
        """Return the rows with a column of ones added as the last, so that its weight is the bias."""
        rows = self.compact()
        elements = rows.elements + len(rows)
        pointers = rows.row_pointers + np.arange(len(rows) + 1, dtype=pointer_dtype(elements))
        old = np.ones(elements, np.bool_)
        old[pointers[1:] - 1] = False
        values, columns = np.ones(elements, np.float32), np.full(elements, rows.column_count, np.int32)
        values[old], columns[old] = rows.values, rows.columns
        return SparseRows(values, columns, pointers, rows.column_count + 1)


def concatenate(parts: list[SparseRows], column_count: int) -> SparseRows:
    """Join rows, one part after the other, into arrays of their own; no parts give no rows."""
    parts = [part.compact() for part in parts]
    kind = pointer_dtype(sum(part.elements for part in parts))
    lengths = [np.diff(part.row_pointers) for part in parts]
    pointers = np.zeros(sum(map(len, lengths)) + 1, kind)
    if parts:
        np.cumsum(np.concatenate(lengths), out=pointers[1:])
    return SparseRows(
        np.concatenate([np.empty(0, np.float32), *(part.values for part in parts)]),
        np.concatenate([np.empty(0, np.int32), *(part.columns for part in parts)]),
        pointers,
        column_count,
    )


def check_row_pointers(pointers: NDArray[Any], elements: int, where: str, first_row: int = 0) -> None:
    """Check that row pointers start at 0, never decrease and end at the number of elements.

    Raises:
        DataError: they do not; it says `where`, and the row, counted from `first_row`.

    """
    if len(pointers) == 0 or pointers[0] != 0:
        found = "none" if len(pointers) == 0 else str(pointers[0])
        raise DataError(f"{where}: first row pointer: found {found}, expected 0")
    drops = np.flatnonzero(pointers[1:] < pointers[:-1])
    if len(drops):
        row = int(drops[0])
        raise DataError(
            f"{where}: row {first_row + row}: row pointers decrease: found {pointers[row]} then"
            f" {pointers[row + 1]}, expected the second to be at least the first"
        )
    if pointers[-1] != elements:
        raise DataError(f"{where}: last row pointer: found {pointers[-1]}, expected the {elements} elements there are")


def _check_elements(
    found: NDArray[Any], wrong: NDArray[np.bool_], pointers: NDArray[Any], expected: str, what: str, first_row: int
) -> None:
    """Raise DataError that names the row of the first element marked wrong."""
    if wrong.any():
        place = int(np.argmax(wrong))
        row = int(np.searchsorted(pointers, place, side="right")) - 1
        raise DataError(f"{what} of row {first_row + row}: found {found[place]}, {expected}")
