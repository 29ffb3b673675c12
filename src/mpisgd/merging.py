"""How the workers' turns become one vector in lock step.

Each of the P workers leaves its turn with decay a_k (the penalty's factor on all weights) and changes d_k, so
that its own weights would be a_k w + d_k. Summed over the workers by one Allreduce: L = sum log a_k,
D = sum d_k, and, where the rule asks, c_j, the number of workers that changed column j. Then
    w_j <- exp(g_j L) w_j + g_j D_j
with g_j = 1/P (mean: the mean of the workers' weights, as the original did; rare columns hardly move),
g_j = 1 (sum: as if the turns had followed one another) or g_j = 1 / sqrt(max(1, c_j)) (sqrt: as the sum for a
column that one worker changed, more cautious the more workers moved it the same way). Shrinking by the same g_j
as the changes keeps the point where penalty and losses balance, whatever the rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mpisgd.compiled_loops import Float
from mpisgd.config import Merge

WORKER_SLOTS = 3  # rows, changes sent, round trip (s), one triple a worker
SHARED_SLOTS = 2  # stop, sum of log decays


@dataclass(frozen=True, slots=True)
class Exchange:
    """The layout of the float32 buffer that one Allreduce sums: changes, counts, slots of the workers.

    Rank 0 adds nothing but its word to stop; a worker writes its own slots and leaves the others 0.
    """

    column_count: int
    workers: int
    rule: Merge

    def buffer(self) -> Float:
        """Return a buffer of zeros."""
        parts = 2 if self.rule == "sqrt" else 1
        slots = SHARED_SLOTS + WORKER_SLOTS * self.workers
        return np.zeros(parts * self.column_count + slots, np.float32)

    def changes(self, buffer: Float) -> Float:
        """Return the view of the changes of the weights, (column_count,)."""
        return buffer[: self.column_count]

    def counts(self, buffer: Float) -> Float:
        """Return the view of who changed which column, (column_count,); for the rule sqrt alone."""
        return buffer[self.column_count : 2 * self.column_count]

    def shared(self, buffer: Float) -> Float:
        """Return the view [stop, sum of log decays]."""
        start = len(buffer) - SHARED_SLOTS - WORKER_SLOTS * self.workers
        return buffer[start : start + SHARED_SLOTS]

    def of_workers(self, buffer: Float) -> Float:
        """Return the view [rows, changes sent, round trip] by worker, (workers, 3)."""
        return buffer[len(buffer) - WORKER_SLOTS * self.workers :].reshape(self.workers, WORKER_SLOTS)

    def stops(self, total: Float) -> bool:
        """Tell whether rank 0 said that this round was the last."""
        return bool(self.shared(total)[0])

    def rows(self, total: Float) -> int:
        """Return the rows that all workers processed in the round."""
        return int(self.of_workers(total)[:, 0].sum(dtype=np.float64))

    def merge(self, weights: Float, total: Float) -> None:
        """Apply the summed buffer to `weights` in place; the same on every rank."""
        log_decay = self.shared(total)[1]
        gain: Any  # of every column, or of all alike; float32
        if self.rule == "sqrt":
            gain = 1 / np.sqrt(np.maximum(self.counts(total), 1))
        else:
            gain = np.float32(1 / self.workers if self.rule == "mean" else 1)
        if log_decay:
            weights *= np.exp(gain * log_decay)
        weights += gain * self.changes(total)
