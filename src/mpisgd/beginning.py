"""Where learning begins: the first bias and the first step size, both from the workers' rows.

The step size is found as Hogwild!'s own program finds it, by its "best ball" (Niu, Recht, Re, Wright 2011): try several
on a sample and go on with the best. Here every worker tries all of them on rows of its own, and the sum decides:
each is judged on the same rows, and on as many as there are workers to try.
"""

from __future__ import annotations

import dataclasses
import math
from itertools import chain

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
# Of the step size 1 / (curvature x mean ||x||^2). Smaller ones are not tried: no row steps too far (see svm.Loss), and
# with few positives nothing that can be learnt from a sample is better than learning nothing.
FACTORS = 2.0 ** np.arange(5)
# What learns fastest on a sample is too large for a whole pass. So the smallest step size is taken that falls short of
# the best by this share of what the best has learnt.
SHORT_OF_THE_BEST = 0.1
# The bias column is in every row, where each other column of text is in few: at their step size it would swing.
# Bottou's svmsgd and scikit-learn slow it down by the same factor for sparse rows.
SLOWEST_BIAS = 0.01
ROW_FACTS = 4
PARTS = 8  # of a sample, after each of which the weights enter the average


def row_facts(shard: Shard, *, has_bias: bool) -> NDArray[np.float64]:
    """Return what `facts` are made of, float64 (ROW_FACTS,), to be added up over the workers.

    Of a sample: [rows, sum of squared row norms, sum of labels, rows x the largest mean square of a column].
    The last leaves out the column of ones that is the bias.
    """
    sample = shard.first(SAMPLE_ROWS)
    rows = sample.rows.compact()
    squares = np.bincount(rows.columns, np.square(rows.values, dtype=np.float64), rows.column_count)
    if has_bias:
        squares = squares[:-1]  # the last column
    return np.array([len(rows), rows.squared_norms().sum(), sample.labels.sum(), squares.max(initial=0.0)])


def with_bias_step(job: Job, facts: NDArray[np.float64]) -> Job:
    """Return the job with the bias learning as fast as the column of the largest mean square would.

    So in dense rows the bias is like any other column, and in sparse ones SLOWEST_BIAS as fast.
    """
    return dataclasses.replace(job, bias_step=max(SLOWEST_BIAS, float(facts[3] / facts[0])))


def initial_weights(job: Job, weights: Float, facts: NDArray[np.float64]) -> Float:
    """Return zeros and as bias the mean label, the best constant for squares; a given model's weights stay theirs.

    With few positives a bias that starts at 0 takes longer to reach its place than all other weights.
    `weights` is float32 (column_count,), `facts` the sum of all workers' `row_facts`.
    """
    if job.config.bias and job.config.initial_model is None:
        weights = weights.copy()
        weights[-1] = facts[2] / facts[0]
    return weights


def step_sizes(job: Job, facts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the step sizes to try, from small to large, float64 (tries,)."""
    rows, squared_norms = facts[:2]
    curvature = job.objective.loss.curvature
    sizes: NDArray[np.float64] = FACTORS * (rows / (curvature * squared_norms) if squared_norms > 0 else 1.0)
    return sizes


def try_step_sizes(job: Job, initial: Float, shard: Shard, sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return [rows, rows x objective with the initial weights, the same after trying each size], to be added up.

    Float64 (2 + tries,). A worker with one row learns from it and judges by it.
    """
    half = max(1, min(SAMPLE_ROWS, len(shard.rows) // 2))
    sample = shard.first(2 * half)
    judged = Shard(sample.rows.part(len(sample.rows) - half, len(sample.rows)), sample.labels[-half:])
    learnt_from = shard.first(half)
    squared_norms = job.objective.squared_norms(learnt_from.rows.squared_norms())
    learnt = (_learnt(job, initial, learnt_from, squared_norms, size) for size in sizes.tolist())
    values = [_value(job, weights, judged) for weights in chain([ScaledVector(initial)], learnt)]
    return half * np.array([1, *(value if math.isfinite(value) else math.inf for value in values)])


def _learnt(job: Job, initial: Float, sample: Shard, squared_norms: Float, size: float) -> ScaledVector:
    """Return the weights after a pass with this step size: their average, if it is what the run is measured by."""
    weights = ScaledVector(initial.copy())
    average = made_for(dataclasses.replace(job, learning_rows=len(sample.rows)))
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
    before, *after = (sums[1:] / sums[0]).tolist()
    best = min(after)
    good_enough = best + SHORT_OF_THE_BEST * max(0.0, before - best)
    return float(sizes[[value <= good_enough for value in after].index(True)])


def _value(job: Job, weights: ScaledVector, judged: Shard) -> float:
    """Return the objective on these rows."""
    *_, measured = measure_in_steps(weights, judged, job.objective)
    assert measured is not None  # noqa: S101 - the last step has the result
    return measured.objective
