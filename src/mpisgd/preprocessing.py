"""What is done to every row before the arithmetic; recorded in the model, so that prediction does the same."""

from __future__ import annotations

from dataclasses import dataclass

from mpisgd.sparse_rows import SparseRows


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Optional scaling to unit norm, then an optional last column of ones."""

    bias: bool
    normalize: bool

    def apply(self, rows: SparseRows) -> SparseRows:
        """Return the rows as the weights expect them."""
        if self.normalize:
            rows = rows.normalized()
        return rows.with_bias() if self.bias else rows

    def width(self, column_count: int) -> int:
        """Return the number of weights for rows of `column_count` features."""
        return column_count + self.bias
