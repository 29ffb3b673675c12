"""How the workers' turns become one vector in lock step.

Each of the P workers leaves its turn with decay a_k (the penalty's factor on all weights) and changes d_k, so
that its own weights would be a_k w + d_k. Summed over the workers by one Allreduce: L = sum log a_k,
D = sum d_k, and, where the rule asks, c_j, the number of workers that changed column j. Then
    w_j <- exp(g_j L) w_j + g_j D_j
with g_j = 1/P (mean: the mean of the workers' weights, as the original did; rare columns hardly move),
g_j = 1 (sum: as if the turns had followed one another) or g_j = 1 / sqrt(max(1, c_j)) (sqrt: as the sum for a
column that one worker changed, more cautious the more workers moved it the same way). Shrinking by the same g_j
as the changes keeps the point where penalty and losses balance, whatever the rule.

How many workers change a column is much the same in every round, so c_j is counted in the first round and then in every
COUNT_EVERY-th: counting would otherwise double what travels.
"""

from __future__ import annotations

import numpy as np

from mpisgd import vector_loops
from mpisgd.compiled_loops import Float
from mpisgd.config import Merge

COUNT_EVERY = 8  # rounds
WORKER_SLOTS = 3  # rows and changes sent (both exact up to 2^24), round trip (s), one triple a worker
SHARED_SLOTS = 2  # stop, sum of log decays


class Exchange:
    """A worker's end of the Allreduce: the float32 buffer it adds, the sum, and the merging of the sum.

    A buffer is changes (column_count), slots, and in a round that counts the counts (column_count). A worker writes its
    own slots and leaves those of others 0. Nothing is allocated from round to round.

    changes  the view of this worker's changes of the weights, float32 (column_count,); written before `buffers`
    """

    def __init__(self, column_count: int, workers: int, rule: Merge) -> None:
        self._columns, self._workers = column_count, workers
        self._counts = rule == "sqrt" and workers > 1
        slots = SHARED_SLOTS + WORKER_SLOTS * workers
        parts = 2 if self._counts else 1
        self._mine = np.zeros(parts * column_count + slots, np.float32)
        self._total = np.zeros_like(self._mine)
        self._short = column_count + slots
        self._gains = np.full(column_count, 1 / workers if rule == "mean" else 1, np.float32)
        self._round = 0
        self.changes = self._mine[:column_count]

    def buffers(
        self, worker: int, *, rows: int, changes_sent: int, round_trip: float, log_decay: float, stop: bool
    ) -> tuple[Float, Float]:
        """Complete this worker's part of the round; return what to add and where the sum goes.

        `worker` counts from 1. `stop` is the word of one worker, which all hear, that this round is the last.
        """
        self._shared(self._mine)[:] = stop, log_decay
        self._of_workers(self._mine)[worker - 1] = rows, changes_sent, round_trip
        if not self._is_counting():
            return self._mine[: self._short], self._total[: self._short]
        np.not_equal(self.changes, 0, out=self._mine[self._short :], casting="unsafe")
        return self._mine, self._total

    def merge(self, weights: Float) -> None:
        """Apply the sum to `weights` in place; the same on every worker."""
        if self._is_counting():
            np.sqrt(np.maximum(self._total[self._short :], 1), out=self._gains)
            np.reciprocal(self._gains, out=self._gains)
        self._round += 1
        log_decay = float(self._shared(self._total)[1])
        vector_loops.merge(weights, self._gains, self._total[: self._columns], log_decay)

    @property
    def stops(self) -> bool:
        """Whether the round just summed is the last."""
        return bool(self._shared(self._total)[0])

    @property
    def turns(self) -> Float:
        """[rows, changes sent, round trip] of every worker in the round just summed, (workers, 3)."""
        return self._of_workers(self._total)

    def _is_counting(self) -> bool:
        return self._counts and self._round % COUNT_EVERY == 0

    def _shared(self, buffer: Float) -> Float:
        return buffer[self._columns : self._columns + SHARED_SLOTS]

    def _of_workers(self, buffer: Float) -> Float:
        return buffer[self._columns + SHARED_SLOTS : self._short].reshape(self._workers, WORKER_SLOTS)
