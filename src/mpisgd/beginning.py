"""Where learning begins: the first bias and the first step size, both from the workers' rows.

The step size is found as Hogwild!'s own program finds it, by its "best ball" (Niu, Recht, Re, Wright 2011): try several
on a sample and go on with the best. Here every worker tries all of them on rows of its own, and the sum decides:
each is judged on the same rows, and on as many as there are workers to try.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from mpisgd.compiled_loops import Float
from mpisgd.job import Job
from mpisgd.shard import Shard
from mpisgd.svm import ScaledVector

# Rows of each worker that a step size learns from, and as many that it is judged on. Some milliseconds in all.
SAMPLE_ROWS = 2_000
# Of the step size 1 / (curvature x mean ||x||^2), which suits unit rows that share few columns.
FACTORS = 2.0 ** np.arange(-6, 5)
# What learns fastest on a sample is too large for a whole pass. So the smallest step size is taken that falls short of
# the best by this share of what the best has learnt.
SHORT_OF_THE_BEST = 0.1
ROW_FACTS = 3


def row_facts(shard: Shard) -> NDArray[np.float64]:
    """Return [rows, sum of squared row norms, sum of labels] of a sample, float64 (ROW_FACTS,); to be added up."""
    sample = shard.first(SAMPLE_ROWS)
    return np.array([len(sample.rows), sample.rows.squared_norms().sum(), sample.labels.sum()])


def initial_weights(job: Job, weights: Float, facts: NDArray[np.float64]) -> Float:
    """Return zeros and as bias the mean label, the best constant for squares; a given model's weights stay theirs.

    With few positives a bias that starts at 0 takes longer to reach its place than all other weights.
    `weights` is float32 (column_count,), `facts` the sum of all workers' `row_facts`.
    """
    if job.config.bias and job.config.initial_model is None:
        rows, _, labels = facts
        weights = weights.copy()
        weights[-1] = labels / rows
    return weights


def step_sizes(job: Job, facts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the step sizes to try, from small to large, float64 (tries,)."""
    rows, squared_norms, _ = facts
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
    sums = [float(half), half * _value(job, ScaledVector(initial), judged)]
    weights = ScaledVector(np.empty_like(initial))
    for size in sizes.tolist():
        np.copyto(weights.vector, initial)
        weights.scale = 1.0
        job.objective.minibatch_steps(weights, sample.rows, sample.labels, 0, half, job.config.batch_size, size)
        sums.append(half * _value(job, weights, judged))
    return np.array([value if math.isfinite(value) else math.inf for value in sums])


def best_step_size(sizes: NDArray[np.float64], sums: NDArray[np.float64]) -> float:
    """Return the first step size, from the sum of what all workers' `try_step_sizes` returned."""
    before, *after = (sums[1:] / sums[0]).tolist()
    best = min(after)
    good_enough = best + SHORT_OF_THE_BEST * max(0.0, before - best)
    return float(sizes[[value <= good_enough for value in after].index(True)])


def _value(job: Job, weights: ScaledVector, judged: Shard) -> float:
    """Return the objective on these rows."""
    margins = judged.rows.margins(weights.vector, 0, len(judged.rows)) * np.float32(weights.scale)
    return job.objective.penalty(weights) + float(job.objective.losses(margins, judged.labels).mean())
