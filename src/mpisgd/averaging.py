"""The average of the weights over a run, nearer to the optimum than the noisy last ones (Polyak and Juditsky 1992)."""

from __future__ import annotations

import math

from mpisgd import vector_loops
from mpisgd.compiled_loops import Float
from mpisgd.job import Job
from mpisgd.svm import ScaledVector

# The weight of late rows against early ones: 0 is the plain mean; 3 forgets the first pass within a few.
LATENESS = 3
# Each goes through all columns and, but for the first ones, is to cost less than the rows in between: so many rows for
# each column, where that leaves LEAST_PER_PASS.
MOST_PER_PASS, LEAST_PER_PASS = 80, 8
ROWS_BY_COLUMN = 0.005


class Average:
    """A polynomial-decay average (Shamir and Zhang 2013, "Stochastic gradient descent for non-smooth optimization", 4).

    Weights w taken in after n processed rows, d of them since the last time, move the average by (w - average)
    (1 + LATENESS) d / (n + LATENESS d); the t-th of parts of one length by (1 + LATENESS) / (t + LATENESS), as there.
    Weights close to each other add little, so they are taken in a few dozen times a pass and not after every step.

    every_rows     processed rows from one time to the next, at most; early in a run as many as have been till then,
                   since weights move fast there, and one at least: without any there is no share
    averaged_rows  processed when weights were last taken in, 0: they never were; the state beside the vector
    """

    def __init__(self, job: Job, vector: Float) -> None:
        """Keep the average in this vector of zeros, float32."""
        self._vector = vector
        every = max(job.learning_rows / MOST_PER_PASS, job.column_count * ROWS_BY_COLUMN)
        self.every_rows = min(every, job.learning_rows / LEAST_PER_PASS)
        self.averaged_rows = 0.0

    def look(self, weights: ScaledVector, rows: int) -> None:
        """Take the weights in after `rows` processed rows, if it is time; `_hogwild.c` has the same."""
        since = rows - self.averaged_rows
        if since < min(max(self.averaged_rows, 1), self.every_rows):
            return
        share = (1 + LATENESS) * since / (rows + LATENESS * since)
        self.averaged_rows = rows
        vector_loops.blend(self._vector, weights.vector, share, weights.scale)

    def measured(self, weights: ScaledVector) -> ScaledVector:
        """Return the average, or the weights themselves before any were taken in: valid until either changes."""
        return ScaledVector(self._vector) if self.averaged_rows else weights


class Latest:
    """Stands in for `Average` where the last weights are wanted."""

    every_rows = averaged_rows = math.inf  # it is never time, in the kernel either

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
