"""Jobs, rows and their facts to begin from, for the tests of where learning begins."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpisgd.beginning import Beginning, largest_mean_square, settled
from mpisgd.config import Config
from mpisgd.job import Job
from mpisgd.shard import LearningShard, Shard
from strategies import rows_from


def job(**settings: Any) -> Job:
    """Return a job for rows of four columns, the bias's among them where there is one."""
    features = 3 if settings.get("bias", True) else 4
    return Job.planned(Config(**settings), features, learning_rows=1000, workers=2, row_length=2.0)


def shard(rows: int, size: float = 1.0) -> LearningShard:
    """Return rows of norm `size` in one of two columns, with a bias column of ones; the column tells the label."""
    rng = np.random.default_rng(3)
    columns = rng.integers(0, 2, rows)
    made = rows_from([[(int(column), size)] for column in columns], 3).with_bias()
    return LearningShard.made_of(Shard(made, np.where(columns == 1, 1, -1).astype(np.float32)))


def settle(a_job: Job, weights: NDArray[np.float32], facts: NDArray[np.float64]) -> Beginning:
    """Settle by the facts of all columns."""
    return settled(a_job, weights, facts, largest_mean_square(a_job, facts))


def facts_of(mean_squares: list[float]) -> NDArray[np.float64]:
    """Return the facts of ten rows whose labels add up to -8, the bias column left out."""
    return np.array([10.0, 20.0, -8.0, *(10 * square for square in mean_squares), 10.0])
