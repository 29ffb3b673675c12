"""Where learning begins: the first bias and the first step size, both from the workers' rows.

The step size is found as Hogwild!'s own program finds it, by its "best ball" (Niu, Recht, Re, Wright 2011): try several
on a sample and go on with the best. Many workers share them: each tries some on rows of its own. As the rows differ, it
is what a step size gains on them that counts.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpisgd.averaging import made_for
from mpisgd.compiled_loops import Float
from mpisgd.evaluation import measure_in_steps
from mpisgd.job import Job
from mpisgd.shard import Shard
from mpisgd.svm import ScaledVector

# Rows of each worker that a step size learns from, and as many that it is judged on. Some milliseconds in all.
SAMPLE_ROWS = 2_000
SAMPLES = 2  # that each step size is tried on, at least. With one, two workers now and then chose one twice as large.
# Of the step size 1 / (curvature x mean ||x||^2). Smaller ones are not tried: no row steps too far (see svm.Loss), and
# with few positives nothing that can be learnt from a sample is better than learning nothing.
FACTORS = 2.0 ** np.arange(5)
# What learns fastest on a sample is too large for a whole pass. So the smallest step size is taken that falls short of
# the best by this share of what the best has learnt.
SHORT_OF_THE_BEST = 0.1
# A batch adds up the steps of rows that know nothing of each other: step size x batch x the curvature along a weight is
# how often they go all the way to where they want it. On RCV1 batches of 500 lose nothing at 1.6, those of 5,000 a
# percent at 16. A sample is too small to show what batches do that are larger than a part of it.
LARGEST_BATCH_STEP = 4.0
# The bias column is in every row, where each other column of text is in few: at their step size it would swing.
# Bottou's svmsgd and scikit-learn slow it down by the same factor for sparse rows.
SLOWEST_BIAS = 0.01
PARTS = 8  # of a sample, after each of which the weights enter the average


@dataclass(frozen=True, slots=True)
class Beginning:
    """What the server and every worker know alike when learning begins.

    job         the job, with the share of the step size that the bias learns with and, in the end, the first step size
    weights     the initial weights, float32 (column_count,)
    curvatures  how much the mean loss is curved along each weight, float32 (column_count,): C E[x_j^2] on a sample of
                the rows, C the largest curvature of the loss; of the bias that share of it
    """

    job: Job
    weights: Float
    curvatures: Float

    def with_learning_rate(self, learning_rate: float) -> Beginning:
        """Return the same with the first step size."""
        return dataclasses.replace(self, job=self.job.with_learning_rate(learning_rate))

    def with_turns_worth(self, rows: float) -> Beginning:
        """Return the same with turns of about so many rows."""
        return dataclasses.replace(self, job=self.job.with_turns_worth(rows))


def row_facts(shard: Shard) -> NDArray[np.float64]:
    """Return what `settled` wants to know of a worker's rows, to be added up over the workers.

    Of a sample: [rows, sum of squared row norms, sum of labels, sum of squares of each column], float64
    (3 + column_count,).
    """
    sample = shard.first(SAMPLE_ROWS)
    rows = sample.rows.compact()
    squares = np.bincount(rows.columns, np.square(rows.values, dtype=np.float64), rows.column_count)
    return np.concatenate([[len(rows), rows.squared_norms().sum(), sample.labels.sum()], squares])


def largest_mean_square(job: Job, facts: NDArray[np.float64]) -> float:
    """Return that of the column in which it is largest, the bias column left out."""
    squares = facts[3:-1] if job.config.bias else facts[3:]
    return float(squares.max(initial=0.0) / facts[0])


def settled(job: Job, weights: Float, facts: NDArray[np.float64], largest: float) -> Beginning:
    """Return where learning begins, but for the step size, by the sum of all workers' `row_facts`.

    `largest` is the `largest_mean_square` of all columns; `weights` and `facts` may be of some of them.

    The bias learns as fast as the column of the largest mean square would: in dense rows it is like any other column,
    in sparse ones SLOWEST_BIAS as fast. It begins at the mean label, the best constant for squares: with few positives
    one that begins at 0 takes longer to reach its place than all other weights. A given model's `weights`, float32
    (column_count,), stay as they are.
    """
    rows, _, labels = facts[:3].tolist()
    mean_squares = facts[3:] / rows
    if job.config.bias:
        mean_squares[-1] = bias_step = max(SLOWEST_BIAS, largest)
        job = dataclasses.replace(job, bias_step=bias_step)
        if job.config.initial_model is None:
            weights = weights.copy()
            weights[-1] = labels / rows
    curvatures = np.minimum(job.objective.loss.curvature * mean_squares, np.finfo(np.float32).max)
    return Beginning(job, weights, curvatures.astype(np.float32))


def step_sizes(job: Job, facts: NDArray[np.float64], largest: float) -> NDArray[np.float64]:
    """Return the step sizes to try, from small to large, float64 (tries,); facts as for `settled`."""
    rows, squared_norms = facts[:2]
    curvature = job.objective.loss.curvature
    sizes: NDArray[np.float64] = FACTORS * (rows / (curvature * squared_norms) if squared_norms > 0 else 1.0)
    steepest = curvature * largest
    if job.config.batch_size <= SAMPLE_ROWS / PARTS or steepest == 0:
        return sizes
    return sizes.clip(max=LARGEST_BATCH_STEP / (job.config.batch_size * steepest))


def tried_by(worker: int, tries: int, rows: float) -> list[int]:
    """Return which of so many step sizes a worker tries, given the rows of all workers' samples.

    Each is tried by SAMPLES workers at least, as far as there are so many, and by more where samples are short.
    """
    each = min(tries, math.ceil(tries * SAMPLES * SAMPLE_ROWS / rows))
    return [number % tries for number in range(worker * each, (worker + 1) * each)]


def try_step_sizes(
    beginning: Beginning, shard: Shard, sizes: NDArray[np.float64], tried: list[int]
) -> NDArray[np.float64]:
    """Return for each size, to be added up: [rows it was judged on, rows x objective before, the same after].

    Float64 (3, sizes), 0 for those that were not `tried`. A worker with one row learns from it and judges by it.
    """
    job, initial = beginning.job, beginning.weights
    half = max(1, min(SAMPLE_ROWS, len(shard.rows) // 2))
    sample = shard.first(2 * half)
    judged = Shard(sample.rows.part(len(sample.rows) - half, len(sample.rows)), sample.labels[-half:])
    learnt_from = shard.first(half)
    squared_norms = job.objective.squared_norms(learnt_from.rows.squared_norms())
    before = _value(job, ScaledVector(initial), judged)
    sums = np.zeros((3, len(sizes)))
    for number in tried:
        after = _value(job, _learnt(job, initial, learnt_from, squared_norms, float(sizes[number])), judged)
        sums[:, number] = half, half * before, half * after if math.isfinite(after) else math.inf
    return sums


def _learnt(job: Job, initial: Float, sample: Shard, squared_norms: Float, size: float) -> ScaledVector:
    """Return the weights after a pass with this step size: their average, if it is what the run is measured by."""
    weights = ScaledVector(initial.copy())
    average = made_for(dataclasses.replace(job, learning_rows=len(sample.rows)), len(initial))
    part = max(job.config.batch_size, -(-len(sample.rows) // PARTS))
    for start in range(0, len(sample.rows), part):
        stop = min(start + part, len(sample.rows))
        job.objective.minibatch_steps(
            weights, sample.rows, sample.labels, squared_norms, start, stop, job.config.batch_size, size
        )
        average.look(weights, stop)
    return average.weights(weights)


def best_step_size(sizes: NDArray[np.float64], sums: NDArray[np.float64]) -> float:
    """Return the first step size, from the sum of what all workers' `try_step_sizes` returned."""
    rows, before, after = sums.reshape(3, -1)
    gains = (before - after) / rows
    best = gains.max()
    return float(sizes[np.argmax(gains >= best - SHORT_OF_THE_BEST * max(0.0, best))])


def _value(job: Job, weights: ScaledVector, judged: Shard) -> float:
    """Return the objective on these rows."""
    *_, measured = measure_in_steps(weights, judged, job.objective)
    assert measured is not None  # noqa: S101 - the last step has the result
    return measured.objective
