"""A worker's shard, put together from the blocks it comes in."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mpisgd.compiled_loops import Float, Index
from mpisgd.messages import RowsHeader
from mpisgd.preprocessing import Preprocessing
from mpisgd.sparse_rows import SparseRows, column_dtype, pointer_dtype

COPY_ELEMENTS = 1_000_000  # at a time, so that what is needed beside the rows stays small


@dataclass(frozen=True, slots=True)
class Shard:
    """The rows a worker learns from, in random order and with labels +1 or -1, float32 (rows,)."""

    rows: SparseRows
    labels: Float

    def first(self, rows: int) -> Shard:
        """Return the first rows, or all if there are fewer, as views."""
        return Shard(self.rows.part(0, min(rows, len(self.rows))), self.labels[:rows])

    def renumbered(self) -> tuple[Shard, NDArray[np.int32]]:
        """Return the same rows with the columns that occur numbered from 0, and what these were, in order.

        The rows are int32 columns of this shard's own, and are written over.
        """
        names = np.unique(self.rows.columns).astype(np.int32, copy=False)
        columns = self.rows.columns
        for start in range(0, len(columns), COPY_ELEMENTS):
            some = columns[start : start + COPY_ELEMENTS]
            some[:] = np.searchsorted(names, some)
        narrow = columns.astype(column_dtype(len(names)), copy=False)
        return Shard(SparseRows(self.rows.values, narrow, self.rows.row_pointers, len(names)), self.labels), names

    def shuffled(self, rng: np.random.Generator) -> Shard:
        """Return a copy in random order, so that contiguous mini-batches are random ones."""
        order = rng.permutation(len(self.rows))
        return Shard(self.rows.take(order), self.labels[order])


@dataclass(frozen=True, slots=True)
class LearningShard(Shard):
    """A shard ready to be learnt from, with what every pass needs of it.

    squared_norms  ||x_i||^2 of every row, bias column and all, float32 (rows,)
    """

    squared_norms: Float

    @classmethod
    def made_of(cls, shard: Shard) -> LearningShard:
        """Return the same rows in the same order."""
        with np.errstate(over="ignore"):  # of values from 1e19 on: their rows take no steps
            squared_norms = shard.rows.squared_norms().astype(np.float32)
        return cls(shard.rows, shard.labels, squared_norms)

    @classmethod
    def shuffled_from(cls, shard: Shard, rng: np.random.Generator) -> LearningShard:
        """Return a copy of a shard in random order."""
        return cls.made_of(shard.shuffled(rng))


@dataclass(slots=True)
class ShardBuilder:
    """Takes blocks as they arrive, preprocesses them and copies them to their place; no block is kept.

    The first block's header says how large the shard will be, so the arrays are made once, at their size
    and with the narrowest columns: they are read in every pass.
    """

    preprocessing: Preprocessing
    _shard: Shard | None = None
    _rows: int = field(default=0)
    _elements: int = field(default=0)

    def add(self, header: RowsHeader, block: SparseRows, labels: Float) -> Shard | None:
        """Add a block; return the shard when this was its last, and be ready for the next shard."""
        block = self.preprocessing.apply(block).compact()
        if self._shard is None:
            self._shard = self._empty_shard(header, block.column_count)
        rows, shard = self._shard.rows, self._shard
        stop_row, stop_element = self._rows + len(block), self._elements + block.elements
        rows.values[self._elements : stop_element] = block.values
        rows.columns[self._elements : stop_element] = block.columns
        rows.row_pointers[self._rows + 1 : stop_row + 1] = block.row_pointers[1:]
        rows.row_pointers[self._rows + 1 : stop_row + 1] += self._elements
        shard.labels[self._rows : stop_row] = labels
        self._rows, self._elements = stop_row, stop_element
        if self._rows < header.shard_rows:
            return None
        self._shard, self._rows, self._elements = None, 0, 0
        return shard

    def _empty_shard(self, header: RowsHeader, column_count: int) -> Shard:
        elements = header.shard_elements + header.shard_rows * self.preprocessing.bias
        pointers: Index = np.zeros(header.shard_rows + 1, pointer_dtype(elements))
        columns = np.empty(elements, column_dtype(column_count))
        rows = SparseRows(np.empty(elements, np.float32), columns, pointers, column_count)
        return Shard(rows, np.empty(header.shard_rows, np.float32))
