"""The first step size: larger ones are tried on samples of the rows, for as long as they gain by it.

It is found much as Hogwild!'s own program does by its "best ball" (Niu, Recht, Re, Wright 2011). Many workers share the
trials: each tries one or two on rows of its own. As the rows differ, it is what a step size gains on them that counts.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from mpisgd.averaging import made_for
from mpisgd.beginning import SAMPLE_ROWS, Beginning
from mpisgd.evaluation import measure_in_steps
from mpisgd.job import Job
from mpisgd.shard import LearningShard, Shard
from mpisgd.svm import ScaledVector

SAMPLES = 2  # that each step size is tried on, at least. With one, two workers now and then chose one twice as large.
# Of the step size 1 / (curvature x mean ||x||^2). Smaller ones are not tried: no row steps too far (see svm.Loss), and
# with few positives nothing that can be learnt from a sample is better than learning nothing.
FACTORS = 2.0 ** np.arange(5)
# What learns fastest on a sample is too large for a whole pass. So a larger step size is taken only if this share of
# what it learns is more than the smaller one does.
SHORT_OF_THE_BEST = 0.1
# A batch adds up the steps of rows that know nothing of each other: step size x batch x the curvature along a weight is
# how often they go all the way to where they want it. On RCV1 batches of 500 lose nothing at 1.6, those of 5,000 a
# percent at 16. A sample is too small to show what batches do that are larger than a part of it.
LARGEST_BATCH_STEP = 4.0
PARTS = 8  # of a sample, after each of which the weights enter the average


class StepSearch:
    """Doubles the step size for as long as that learns more; the same on all ranks, by the sums of what workers found.

    sizes   all that may be tried, from small to large, float64
    best    the best so far
    to_try  the numbers of those to be tried next; the search is over when there are none
    """

    def __init__(self, job: Job, facts: NDArray[np.float64], largest: float) -> None:
        """Begin by the sum of all workers' `beginning.row_facts` and the `largest_mean_square`."""
        rows, squared_norms = facts[:2]
        curvature = job.objective.loss.curvature
        self.sizes: NDArray[np.float64] = FACTORS * (rows / (curvature * squared_norms) if squared_norms > 0 else 1.0)
        steepest = curvature * largest
        if job.config.batch_size > SAMPLE_ROWS / PARTS and steepest > 0:
            self.sizes = self.sizes.clip(max=LARGEST_BATCH_STEP / (job.config.batch_size * steepest))
        self.best = float(self.sizes[0])
        self.to_try = [0, 1]
        self._gain = -math.inf

    def hear(self, sums: NDArray[np.float64]) -> None:
        """Go on by the sum of what all workers' `Trial.of` returned for those `to_try`."""
        rows, before, after = sums.reshape(3, -1)
        tried, self.to_try = self.to_try, []
        with np.errstate(invalid="ignore"):  # a given model may have diverged
            gains = (before - after) / rows
        for number, gain in zip(tried, gains.tolist(), strict=True):
            if number > 0 and not gain - SHORT_OF_THE_BEST * max(0.0, gain) > self._gain:
                return
            self.best, self._gain = float(self.sizes[number]), gain
        self.to_try = [number for number in (tried[-1] + 1,) if number < len(self.sizes)]


def tried_by(worker: int, tries: int, rows: float) -> list[int]:
    """Return which of so many step sizes a worker tries, given the rows of all workers' samples.

    Each is tried by SAMPLES workers at least, as far as there are so many, and by more where samples are short.
    """
    each = min(tries, math.ceil(tries * SAMPLES * SAMPLE_ROWS / rows))
    return [number % tries for number in range(worker * each, (worker + 1) * each)]


class Trial:
    """A worker's rows to try step sizes on: some that they learn from, as many that they are judged on.

    A worker with one row learns from it and judges by it.
    """

    def __init__(self, beginning: Beginning, shard: LearningShard) -> None:
        self._job, self._initial = beginning.job, beginning.weights
        half = max(1, min(SAMPLE_ROWS, len(shard.rows) // 2))
        sample = shard.first(2 * half)
        self._judged = Shard(sample.rows.part(len(sample.rows) - half, len(sample.rows)), sample.labels[-half:])
        self._learnt_from = shard.first(half)
        self._squared_norms = shard.squared_norms[:half]
        self._before = self._value(ScaledVector(self._initial))

    def of(self, sizes: NDArray[np.float64], tried: list[int]) -> NDArray[np.float64]:
        """Return for each size, to be added up: [rows it was judged on, rows x objective before, the same after].

        Float64 (3 x sizes,), 0 for those that were not `tried`.
        """
        rows, sums = len(self._judged.rows), np.zeros((3, len(sizes)))
        for number in tried:
            after = self._value(self._learnt(float(sizes[number])))
            sums[:, number] = rows, rows * self._before, rows * after if math.isfinite(after) else math.inf
        return sums.ravel()

    def _learnt(self, size: float) -> ScaledVector:
        """Return the weights after a pass with this step size: their average, if the run is measured by it."""
        job, sample, weights = self._job, self._learnt_from, ScaledVector(self._initial.copy())
        of_sample = dataclasses.replace(job, learning_rows=len(sample.rows))
        average = made_for(of_sample, np.zeros_like(self._initial))
        part = max(job.config.batch_size, -(-len(sample.rows) // PARTS))
        for start in range(0, len(sample.rows), part):
            stop = min(start + part, len(sample.rows))
            job.objective.minibatch_steps(
                weights, sample.rows, sample.labels, self._squared_norms, start, stop, job.config.batch_size, size
            )
            average.look(weights, stop)
        return average.weights(weights)

    def _value(self, weights: ScaledVector) -> float:
        """Return the objective on the rows to judge by."""
        *_, measured = measure_in_steps(weights, self._judged, self._job.objective)
        assert measured is not None  # noqa: S101 - the last step has the result
        return measured.objective
