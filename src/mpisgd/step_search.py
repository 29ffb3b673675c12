"""The first step size: larger ones are tried on samples of the rows, for as long as they gain by it.

It is found much as Hogwild!'s own program does by its "best ball" (Niu, Recht, Re, Wright 2011). The workers share the
trials, each on rows of its own: one makes all of them, two make half of them each, many one or two. As the rows differ,
it is what a step size gains on them that counts.
"""

from __future__ import annotations

import dataclasses
import math
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpisgd.averaging import made_for
from mpisgd.beginning import SAMPLE_ROWS, Beginning
from mpisgd.evaluation import measure_in_steps
from mpisgd.job import Job
from mpisgd.shard import LearningShard, Shard
from mpisgd.svm import ScaledVector

SAMPLES = 2  # that each step size is tried on, at least. With one, two workers now and then chose one twice as large.
TRIAL_ROWS = 1_000  # of a sample: so many to learn from, and as many to judge by
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
    rows    of all workers' samples
    """

    def __init__(self, job: Job, facts: NDArray[np.float64], largest: float) -> None:
        """Begin by the sum of all workers' `beginning.row_facts` and the `largest_mean_square`."""
        self.rows, squared_norms = facts[:2].tolist()
        curvature = job.objective.loss.curvature
        smallest = self.rows / (curvature * squared_norms) if squared_norms > 0 else 1.0
        self.sizes: NDArray[np.float64] = FACTORS * smallest
        steepest = curvature * largest
        if job.config.batch_size > TRIAL_ROWS / PARTS and steepest > 0:
            self.sizes = self.sizes.clip(max=LARGEST_BATCH_STEP / (job.config.batch_size * steepest))
        self.best = float(self.sizes[0])
        self.to_try = [0, 1]
        self._gain = -math.inf

    def hear(self, sums: NDArray[np.float64]) -> None:
        """Go on by the sum of what all workers' `Trial.of` returned for those `to_try`."""
        tried, self.to_try = self.to_try, []
        for number, rows, before, after in zip(tried, *sums.reshape(3, -1).tolist(), strict=True):
            gain = (before - after) / rows  # not a number where a given model has diverged
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


class Sample(NamedTuple):
    """Rows of a shard to try step sizes on: start:middle to learn from, and `judged` to judge by."""

    start: int
    middle: int
    judged: Shard


class Trial:
    """A worker's samples: SAMPLES of them where it is the only worker, else one.

    A worker with one row learns from it and judges by it.
    """

    def __init__(self, beginning: Beginning, shard: LearningShard) -> None:
        self._initial, self._shard = beginning.weights, shard
        rows = len(shard.rows)
        count = SAMPLES if beginning.job.workers == 1 and rows >= 2 * SAMPLES else 1
        half = max(1, min(TRIAL_ROWS, rows // (2 * count)))
        self._samples = [self._sample(2 * half * number, half) for number in range(count)]
        self._job = dataclasses.replace(beginning.job, learning_rows=half)
        # Copies, so that their pages are there when the clock runs: to fetch them takes as long as 500 rows.
        self._vector, self._average = self._initial.copy(), self._initial.copy()

    @cached_property
    def _before(self) -> list[float]:
        """The objective on each sample's rows to judge by before anything is learnt; a part of the trial, and timed."""
        return [self._value(ScaledVector(self._initial), sample) for sample in self._samples]

    def of(self, sizes: NDArray[np.float64], tried: list[int]) -> NDArray[np.float64]:
        """Return for each size, to be added up: [rows it was judged on, rows x objective before, the same after].

        Float64 (3 x sizes,), 0 for those that were not `tried`.
        """
        sums = np.zeros((3, len(sizes)))
        for number in tried:
            for sample, before in zip(self._samples, self._before, strict=True):
                rows, after = len(sample.judged.rows), self._value(self._learnt(float(sizes[number]), sample), sample)
                sums[:, number] += rows, rows * before, rows * after if math.isfinite(after) else math.inf
        return sums.ravel()

    def _sample(self, start: int, half: int) -> Sample:
        shard, stop = self._shard, min(start + 2 * half, len(self._shard.rows))
        judged = Shard(shard.rows.part(stop - half, stop), shard.labels[stop - half : stop])
        return Sample(start, start + half, judged)

    def _learnt(self, size: float, sample: Sample) -> ScaledVector:
        """Return the weights after a pass with this step size, until the next: their average, if that is measured."""
        job, shard, weights = self._job, self._shard, ScaledVector(self._vector)
        self._vector[:], self._average[:] = self._initial, 0
        rows, batch_size = sample.middle - sample.start, job.config.batch_size
        average = made_for(job, self._average)
        part = max(batch_size, -(-rows // PARTS))
        for start in range(sample.start, sample.middle, part):
            stop = min(start + part, sample.middle)
            job.objective.minibatch_steps(
                weights, shard.rows, shard.labels, shard.squared_norms, start, stop, batch_size, size
            )
            average.look(weights, stop - sample.start)
        measured = average.measured(weights)
        # the penalty of a vector that is not scaled yet could overflow
        return measured if measured.scale == 1 else ScaledVector(measured.weights())

    def _value(self, weights: ScaledVector, sample: Sample) -> float:
        """Return the objective on the rows to judge by."""
        *_, measured = measure_in_steps(weights, sample.judged, self._job.objective)
        assert measured is not None  # noqa: S101 - the last step has the result
        return measured.objective
