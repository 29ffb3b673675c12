"""A worker's own copy of weights in memory that ranks share (see `shared_weights`), and the record of its next turn."""

from __future__ import annotations

import math

import numpy as np

from mpisgd.compiled_loops import Float
from mpisgd.hogwild_loops import Own
from mpisgd.svm import ScaledVector
from mpisgd.turn_statistics import FIELDS


class Copy:
    """A worker's own weights.

    local  what it learns with
    base   the vector as it was at the last exchange, but for what was not sent then, float32 (column_count,)
    own    see `hogwild_loops.Own`
    record of the turn that comes next, see `turn_statistics.Record`
    """

    def __init__(self, initial: Float, worker: int) -> None:
        self.local = ScaledVector(initial.copy())
        self.base = initial.copy()
        self.own = np.zeros(len(Own))
        self.own[Own.SCALE_SENT] = 1
        self.worker = worker
        self.record = np.zeros(len(FIELDS))
        self.note(worker=worker, ahead=-1)

    @property
    def rows(self) -> int:
        """The rows that all workers had processed at the last exchange, as far as known here."""
        return int(self.own[Own.ROWS])

    def note(self, **facts: float) -> None:
        """Write these fields of the record."""
        for name, number in facts.items():
            self.record[FIELDS[name]] = number

    def noted(self, name: str) -> float:
        """Return a field of the record."""
        return float(self.record[FIELDS[name]])

    def fold(self, log_folded: float) -> None:
        """Fold so much of the scale into the vectors as the server has, as the log of all."""
        factor = math.exp(log_folded - self.own[Own.LOG_FOLDED])
        self.local.vector *= np.float32(factor)
        self.base *= np.float32(factor)
        self.own[Own.LOG_FOLDED] = log_folded
