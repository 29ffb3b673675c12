"""What rank 0 announces to the workers before the rows travel, and what both roles derive from it alike."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpisgd.config import Config
from mpisgd.preprocessing import Preprocessing
from mpisgd.schedule import step_size
from mpisgd.shard import Shard
from mpisgd.svm import LOSSES, Objective

# Announced when the rows have all been sent: the workers go on to learn.
LEARN = "learn"
# Announced instead of a job, or of LEARN, when rank 0 found something wrong and has said so: the workers leave.
NO_JOB = ""


@dataclass(frozen=True, slots=True)
class Job:
    """One training run, the same on every rank."""

    config: Config
    feature_count: int  # columns of the data, the bias column not among them
    learning_rows: int  # rows of all workers together: what one pass is

    def to_json(self) -> str:
        """Return the job as text, for the broadcast."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Return the job that `to_json` wrote."""
        values = json.loads(text)
        return cls(Config(**values.pop("config")), **values)

    @property
    def preprocessing(self) -> Preprocessing:
        """What is done to every row first."""
        return Preprocessing(self.config.bias, self.config.normalize)

    @property
    def column_count(self) -> int:
        """The number of weights."""
        return self.preprocessing.width(self.feature_count)

    @property
    def objective(self) -> Objective:
        """What is minimised."""
        return Objective(LOSSES[self.config.loss], self.config.regularization, self.config.bias)

    def passes(self, rows: int) -> float:
        """Return how many passes over the learning rows `rows` processed rows are."""
        return rows / self.learning_rows

    def with_learning_rate(self, total: NDArray[np.float64]) -> Job:
        """Return the job with its learning rate settled: the user's, or 1 / (curvature x mean ||x||^2).

        `total` is the sum over the workers of what `norm_facts` returns.
        """
        squared_norms, rows = total
        if self.config.learning_rate is not None:
            return self
        rate = float(rows / (self.objective.loss.curvature * squared_norms)) if squared_norms > 0 else 1.0
        return dataclasses.replace(self, config=dataclasses.replace(self.config, learning_rate=rate))

    def step_size(self, rows: int) -> float:
        """Return the step size after `rows` processed rows, once the learning rate is settled."""
        assert self.config.learning_rate is not None  # noqa: S101 - with_learning_rate came first
        return step_size(self.config, self.config.learning_rate, self.passes(rows))


def norm_facts(shard: Shard) -> NDArray[np.float64]:
    """Return [sum of squared row norms, number of rows] of a shard, float64."""
    return np.array([shard.rows.squared_norms().sum(), len(shard.rows)])
