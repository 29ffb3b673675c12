"""How the workers' turns become one vector in lock step.

Each of the P workers leaves its turn with decay a_k (the penalty's factor on all weights) and changes d_k, so
that its own weights would be a_k w + d_k. Summed over the workers (see `rounds`): L = sum log a_k, D = sum d_k. Then
    w_j <- exp(g_j L) w_j + g_j D_j
with a gain g_j. Shrinking by the same g_j as the changes keeps the point where penalty and losses balance.

mean    g_j = 1/P: the mean of the workers' weights, as the original did; rare columns hardly move.
sum     g_j = 1: as if the turns had followed one another. Columns that are in most rows overshoot: in their turns, each
        worker would have found less left to do.
damped  g_j = (1 + A_j) / (1 + P A_j), A_j = eta m h_j for m rows a turn, step size eta and curvature h_j along the
        weight: from 1 where a turn moves a weight little to 1/P where it alone takes it all the way to where its rows
        want it. One proximal step on a parabola of that curvature goes the share A / (1 + A) of the way; P of them
        from the same weights add up to P A / (1 + A), and one on the rows of all goes P A / (1 + P A): the gain makes
        the one the other.
"""

from __future__ import annotations

import numpy as np

from mpisgd import vector_loops
from mpisgd.compiled_loops import Float
from mpisgd.config import Merge

WORKER_SLOTS = 5  # of each worker: rows, changes sent, changes (exact up to 2^24), round trip before, computing (s)
SHARED_SLOTS = 2  # stop, sum of log decays
ALL = slice(None)


class Exchange:
    """A worker's end of a round: the float32 buffer that it adds, the sum of all workers', and the merging of the sum.

    A buffer is changes (column_count) and slots. A worker writes its own slots and leaves those of others 0. Nothing is
    allocated from round to round. `curvatures` are the beginning's, float32 (column_count,).

    mine     what this worker adds, float32 (`buffer_length`,), zeros at first: made here unless it is given
    total    the sum of all workers', likewise; where `add_up` makes it, of their changes alone. Others' parts of it are
             read for `merge_weight`
    changes  the view of this worker's changes of the weights, float32 (column_count,); written before `fill_slots`
    """

    def __init__(
        self, workers: int, rule: Merge, curvatures: Float, mine: Float | None = None, total: Float | None = None
    ) -> None:
        self._columns, self._workers = len(curvatures), workers
        self._curvatures = curvatures if rule == "damped" else None
        self._gains = np.full(self._columns, 1 / workers if rule == "mean" else 1, np.float32)
        self._turn_size = 0.0
        length = buffer_length(self._columns, workers)
        self.mine = np.zeros(length, np.float32) if mine is None else mine
        self.total = np.zeros(length, np.float32) if total is None else total
        self.changes = self.mine[: self._columns]
        self._slots = np.zeros(length - self._columns, np.float32)  # the sum of all workers'

    def fill_slots(
        self,
        worker: int,
        *,
        rows: int,
        changes_sent: int,
        changes: int,
        round_trip: float,
        computing: float,
        log_decay: float,
        stop: bool,
    ) -> None:
        """Complete this worker's part of the round.

        `worker` counts from 1. `stop` is the word of one worker, which all hear, that this round is the last.
        """
        slots = self.mine[self._columns :]
        slots[:SHARED_SLOTS] = stop, log_decay
        self._of_workers(slots)[worker - 1] = rows, changes_sent, changes, round_trip, computing

    def add_up(self, buffers: Float, part: slice) -> None:
        """Make a part of the sum, and of the slots all of it, from all workers' buffers, float32 (workers, length)."""
        np.add.reduce(buffers[:, part], axis=0, out=self.total[part])
        np.add.reduce(buffers[:, self._columns :], axis=0, out=self._slots)

    def take_sum(self) -> None:
        """Take the sum of all workers' buffers, slots and all, from `total`."""
        self._slots[:] = self.total[self._columns :]

    def merge(self, weights: Float, step_size: float, part: slice = ALL) -> None:
        """Apply a part of the sum of turns at this step size to `weights` in place; the same on whichever worker."""
        self._turn_size = step_size * float(self.turns[:, 0].mean(dtype=np.float64))
        self._damp(part)
        vector_loops.merge(weights[part], self._gains[part], self.total[: self._columns][part], float(self._slots[1]))

    @property
    def stops(self) -> bool:
        """Whether the round just summed is the last."""
        return bool(self._slots[0])

    @property
    def turns(self) -> Float:
        """What every worker wrote to its slots in the round just summed, (workers, WORKER_SLOTS)."""
        return self._of_workers(self._slots)

    @property
    def merge_weight(self) -> float:
        """The mean gain of the changes in the round just merged, of all columns; 0 if there were none."""
        self._damp(ALL)
        changed = self.total[: self._columns] != 0
        return float(self._gains[changed].mean(dtype=np.float64)) if changed.any() else 0.0

    def _damp(self, part: slice) -> None:
        if self._curvatures is not None:
            vector_loops.damping(self._curvatures[part], self._turn_size, self._workers, self._gains[part])

    def _of_workers(self, slots: Float) -> Float:
        return slots[SHARED_SLOTS:].reshape(self._workers, WORKER_SLOTS)


def buffer_length(columns: int, workers: int) -> int:
    """Return the length of a buffer."""
    return columns + SHARED_SLOTS + WORKER_SLOTS * workers
