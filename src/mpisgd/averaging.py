"""The average of the weights over a run, nearer to the optimum than the noisy last ones (Polyak and Juditsky 1992)."""

from __future__ import annotations

import math

from mpisgd import vector_loops
from mpisgd.compiled_loops import Float
from mpisgd.job import Job
from mpisgd.svm import ScaledVector

# The weight of late steps against early ones: 0 is the plain mean; 3 forgets the first pass within a few.
LATENESS = 3
# Each goes through all columns and, but for the first ones, is to cost less than the rows in between: so many rows for
# each column, where that leaves LEAST_PER_PASS.
MOST_PER_PASS, LEAST_PER_PASS = 80, 8
ROWS_BY_COLUMN = 0.005


class Average:
    """A polynomial-decay average (Shamir and Zhang 2013, "Stochastic gradient descent for non-smooth optimization", 4).

    The t-th weights w taken in move the average by (w - average) (1 + LATENESS) / (t + LATENESS). Weights close to each
    other add little, so they are taken in a few dozen times a pass and not after every step.

    every_rows  processed rows from one time to the next, at most; early in a run as many as have been till then, since
                weights move fast there
    """

    def __init__(self, job: Job, vector: Float) -> None:
        """Keep the average in this vector of zeros, float32."""
        self._vector = vector
        every = max(job.learning_rows / MOST_PER_PASS, job.column_count * ROWS_BY_COLUMN)
        self.every_rows = min(every, job.learning_rows / LEAST_PER_PASS)
        self._next_rows = 0.0
        self._taken = 0

    @property
    def state(self) -> tuple[float, int]:
        """What is not in the vector: the rows after which the next weights are taken in, and how many have been."""
        return self._next_rows, self._taken

    @state.setter
    def state(self, state: tuple[float, int]) -> None:
        self._next_rows, self._taken = state

    def look(self, weights: ScaledVector, rows: int) -> None:
        """Take the weights in after `rows` processed rows, if it is time."""
        if rows < self._next_rows:
            return
        self._next_rows = rows + min(max(rows, 1), self.every_rows)
        self._taken += 1
        share = (1 + LATENESS) / (self._taken + LATENESS)
        vector_loops.blend(self._vector, weights.vector, share, weights.scale)

    def measured(self, weights: ScaledVector) -> ScaledVector:
        """Return the average, or the weights themselves before any were taken in: valid until either changes."""
        return ScaledVector(self._vector) if self._taken else weights


class Latest:
    """Stands in for `Average` where the last weights are wanted."""

    state = math.inf, 0
    every_rows = math.inf

    def look(self, weights: ScaledVector, rows: int) -> None:
        """Take nothing in."""

    def measured(self, weights: ScaledVector) -> ScaledVector:
        """Return the weights: valid until they change."""
        return weights


def made_for(job: Job, vector: Float) -> Average | Latest:
    """Return what the run is to be measured by and to leave; an average is kept in this vector of zeros, float32."""
    return Average(job, vector) if job.config.averaging else Latest()


def snapshot(average: Average | Latest, weights: ScaledVector) -> ScaledVector:
    """Return a copy of what the run is measured by, at scale 1."""
    return ScaledVector(average.measured(weights).weights())
