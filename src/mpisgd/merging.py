"""How far a turn goes, and how the workers' turns become one vector in lock step; for asynchronous ones see `weights`.

Each of the P workers leaves its turn with decay a_k (the penalty's factor on all weights) and changes d_k, so
that its own weights would be a_k w + d_k. Summed over the workers (see `rounds`): S = sum 1 - a_k, D = sum d_k. Then
    w_j <- w_j + g_j (D_j - S w_j)
with a gain g_j. Where the turns balance the weights rest, whatever the gains.

mean    g_j = 1/P: the mean of the workers' weights, as the original did; rare columns hardly move.
sum     g_j = 1: as if the turns had followed one another. Columns that are in most rows overshoot: in their turns, each
        worker would have found less left to do.
damped  g_j = (1 + A_j) / (1 + P A_j): from 1 where a turn goes little along a weight to 1/P where it alone takes it all
        the way to where its rows want it. One proximal step on a parabola goes the share A / (1 + A) of the way; P of
        them from the same weights add up to P A / (1 + A), and one on the rows of all goes P A / (1 + P A): the gain
        makes the one the other.

A_j = eta (m' h_j + m lambda) for m rows a turn and step size eta; h_j = C E[x_j^2] is the most that the loss is curved
along the weight. Rows far on the right side of their margin move nothing, and where most are so large a curvature would
damp what does no harm; yet the further P turns go together, the more rows they bring back to where they move. So
m' = min(m, CURVED_BY_MOVED P times the rows that took a step). The bias counts as if it had the whole penalty: gains
may be less than they could, but never too large.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from mpisgd import vector_loops
from mpisgd.compiled_loops import LARGEST_FLOAT, Float
from mpisgd.job import Job
from mpisgd.svm import Judged
from mpisgd.vector_loops import TurnSize

# On 35 times RCV1's rows, where one row in 16 moves, two workers come near the objective after 1.55 passes, as one
# does, and with m' = m after 1.70. With four times the rows that moved, as for two, eight were at an objective of 0.062
# after three passes instead of 0.036.
CURVED_BY_MOVED = 2
PLAINLY, AS_ONE = TurnSize(0, 0, 0), TurnSize(0, 0, math.inf)  # turns that are added up, or of which the mean is taken


def curved_by_moved(job: Job) -> float:
    """Return CURVED_BY_MOVED, or 0 if turns are plainly added, as asynchronously they are by the rule `mean` too."""
    return CURVED_BY_MOVED if job.config.merge == "damped" else 0


def turn_size(job: Job, step_size: float, rows: float, moved: float) -> TurnSize:
    """Return how far a turn of so many rows goes, of which `moved` took a step; `_turns.c` has the same."""
    factor = curved_by_moved(job)
    if factor == 0:
        return PLAINLY
    all_rows, of_moved = step_size * rows, step_size * (factor * moved)
    # no infinity: times a curvature of 0 it is to be 0
    return TurnSize(min(all_rows, LARGEST_FLOAT), min(of_moved, LARGEST_FLOAT), all_rows * job.regularization)


class TurnFacts(NamedTuple):
    """What a worker says of its turn to all others, in numbers."""

    rows: float = 0
    moved: float = 0  # of these rows: took a step
    shrinking: float = 0  # 1 - its decay
    computing: float = 0  # s, with measuring
    round_trip: float = 0  # s, of the round before; 0: there was none
    right: float = 0  # of its held-out rows, by the weights that the round before left, if they are measured
    losses: float = 0  # see `svm.Judged`
    measure: float = 0  # not 0: the weights are to be measured after this round
    stop: float = 0  # not 0: this round is the last


class RoundFacts:
    """What all workers said of their turns, each by its `TurnFacts`.

    Numbers of Python, and not of NumPy: after a turn no code is in the nearest caches, and for so few NumPy's took a
    quarter of the time of a merge.

    shrinkings, computing, round_trips  of each worker
    all_rows, all_moved, shrinking      of all workers together
    judged                              by all of them
    measure, stop                       whether to measure after this round; whether it is the last
    """

    def __init__(self, turns: Iterable[Sequence[float]]) -> None:
        rows, moved, self.shrinkings, self.computing, self.round_trips, *others = zip(*turns, strict=True)
        right, losses, measures, stops = others
        self.all_rows, self.all_moved, self.shrinking = int(sum(rows)), sum(moved), sum(self.shrinkings)
        self.judged = Judged(int(sum(right)), sum(losses))
        self.measure, self.stop = any(measures), any(stops)


class MergeCounts(NamedTuple):
    """What has become of rounds, or of a part of their columns, in numbers."""

    changes_sent: float
    changes: float  # those held back included
    columns: float  # with changes that were sent
    gains: float  # sum of what their changes were multiplied by

    def with_more(self, more: Sequence[float]) -> MergeCounts:
        """Return what has become of this and of more."""
        return MergeCounts(*map(operator.add, self, more))


NOTHING_MERGED = MergeCounts(0, 0, 0, 0)


class Merging:
    """The rule of a job; `curvatures` are the beginning's, float32 (column_count,)."""

    def __init__(self, job: Job, curvatures: Float) -> None:
        self._job, self._curvatures = job, curvatures

    def merge_sum(self, weights: Float, changes: Float, facts: RoundFacts, step_size: float) -> tuple[int, float]:
        """Merge the sum of all workers' changes into `weights`; return the last two of `MergeCounts`."""
        return vector_loops.merge(
            weights,
            changes,
            self._curvatures,
            turn_size=self._turn_size(facts, step_size),
            turns=self._job.workers,
            shrinking=facts.shrinking,
        )

    def merge_part(
        self, locals_: Float, weights: Float, part: slice, facts: RoundFacts, step_size: float, threshold: float
    ) -> MergeCounts:
        """Merge a part of the columns of all workers' weights into `weights`: see `vector_loops.merge_turns`."""
        return MergeCounts(
            *vector_loops.merge_turns(
                locals_,
                weights,
                part,
                np.array(facts.shrinkings, np.float64),
                threshold=threshold,
                curvatures=self._curvatures,
                turn_size=self._turn_size(facts, step_size),
            )
        )

    def _turn_size(self, facts: RoundFacts, step_size: float) -> TurnSize:
        if self._job.config.merge == "mean":
            return AS_ONE
        workers = self._job.workers
        return turn_size(self._job, step_size, facts.all_rows / workers, facts.all_moved / workers)
