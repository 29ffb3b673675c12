"""Where learning begins: the first bias and the curvatures, from the rows; for the step size see `step_search`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpisgd.compiled_loops import LARGEST_FLOAT, Float
from mpisgd.job import Job
from mpisgd.shard import Shard

SAMPLE_ROWS = 2_000  # of each worker
# The bias column is in every row, where each other column of text is in few: at their step size it would swing.
# Bottou's svmsgd and scikit-learn slow it down by the same factor for sparse rows.
SLOWEST_BIAS = 0.01


@dataclass(frozen=True, slots=True)
class Beginning:
    """What the server and every worker know alike when learning begins, but for the curvatures.

    job         the job, with the share of the step size that the bias learns with
    weights     the initial weights, float32 (column_count,)
    curvatures  how much the loss may be curved along each weight, float32 (column_count,): C E[x_j^2], on a sample of
                the rows, C the largest curvature of the loss; of the bias that share of it. The server has none where
                the workers merge their turns themselves
    """

    job: Job
    weights: Float
    curvatures: Float

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

    `largest` is the `largest_mean_square` of all columns; `weights` and `facts` may be of some of them. Facts of none
    give no curvatures.

    The bias learns as fast as the column of the largest mean square would: in dense rows it is like any other column,
    in sparse ones SLOWEST_BIAS as fast. It begins at the mean label, the best constant for squares: with few positives
    one that begins at 0 takes longer to reach its place than all other weights. A given model's stays as it is. The
    `weights`, float32 (column_count,), become the beginning's.
    """
    rows, _, labels = facts[:3].tolist()
    curvature = job.objective.loss.curvature
    curvatures = np.empty(len(facts) - 3, np.float32)
    with np.errstate(over="ignore"):  # what is too large for float32 is brought down below
        np.multiply(facts[3:], curvature / rows, out=curvatures, casting="same_kind")
        if job.config.bias:
            job = dataclasses.replace(job, bias_step=max(SLOWEST_BIAS, largest))
            curvatures[-1:] = curvature * job.bias_step
    if job.config.bias and job.config.initial_model is None:
        weights[-1] = labels / rows
    if curvature * largest > LARGEST_FLOAT:
        np.minimum(curvatures, LARGEST_FLOAT, out=curvatures)
    return Beginning(job, weights, curvatures)
