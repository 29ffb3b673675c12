"""Step sizes, and the rule that says when to stop."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from mpisgd.config import Config

SLOWEST_DECAY, FASTEST_DECAY = 0.05, 0.5  # 1/pass
EVENED_AFTER = 4  # passes
POWERS = {"constant": 0.0, "inverse": 1.0, "inverse_sqrt": 0.5}  # of 1 + d p


@dataclass(frozen=True, slots=True)
class Schedule:
    """The step sizes of a run, eta_0 / (1 + d p)^power after p passes of all workers together; `_turns.c` has the same.

    learning_rate  eta_0
    decay          d, 1/pass
    power          see POWERS: with 1, inverse, Robbins and Monro's conditions hold
    learning_rows  what a pass is
    """

    learning_rate: float
    decay: float
    power: float
    learning_rows: int

    def step_size(self, rows: int) -> float:
        """Return the step size after `rows` processed rows."""
        return self.learning_rate / self._fall(rows)

    def evened(self, own_rows: float, rows: int, workers: int) -> Schedule:
        """Return the step sizes of a worker that processed `own_rows` of the `rows` of all, given those of the run.

        Who goes round its shard more often than others would draw the weights to where its own rows want them: two
        workers, one of them three times slower, end 7 % above the optimum. So steps are smaller for who is ahead, and
        larger for who is behind: by the factor (n / P + s) / (n_k + s) of n rows of P workers, n_k of them its own.
        With s of some passes over a shard little is made of who began first, and of rows of others not heard of yet.
        No step is larger than the first of the run, which trials found to be good.
        """
        prior = EVENED_AFTER * self.learning_rows
        factor = (rows + prior) / (workers * own_rows + prior)
        return replace(self, learning_rate=self.learning_rate * min(factor, self._fall(rows)))

    def _fall(self, rows: int) -> float:
        """Return what the first step size is to be divided by after so many rows."""
        return math.pow(1.0 + self.decay * (rows / self.learning_rows), self.power)


def decay(config: Config, learning_rate: float, rows: int) -> float:
    """Return d of the schedule: the user's, or one that suits what ends the run.

    Towards the optimum eta_0 / (1 + eta_0 lambda t) after t rows is best, and less would never end (Bottou 2012,
    "Stochastic gradient descent tricks", 5.2). Early stopping keeps weights from long before: for these a faster fall
    is better, on RCV1 and most of the generated kinds of rows.
    """
    if config.learning_rate_decay is not None:
        return config.learning_rate_decay
    if config.patience is not None:
        return FASTEST_DECAY
    assert config.regularization is not None  # noqa: S101 - it was settled before the rows travelled
    return min(max(learning_rate * config.regularization * rows, SLOWEST_DECAY), FASTEST_DECAY)


def passes_are_done(config: Config, passes: float) -> bool:
    """Tell whether these are all the passes that were asked for."""
    return config.passes is not None and passes >= config.passes


@dataclass
class StopRule:
    """Decides when training is over, from passes and time alone and from each measurement.

    Every method returns the reason to stop, or None to go on.
    """

    config: Config
    best_objective: float = math.inf
    best_passes: float = 0.0

    def after_update(self, passes: float, seconds: float) -> str | None:
        """Check the limits that need no measurement."""
        if passes_are_done(self.config, passes):
            return "passes"
        if self.config.max_seconds is not None and seconds >= self.config.max_seconds:
            return "max_seconds"
        return None

    def after_measurement(self, accuracy: float, objective: float, passes: float, *, at_pass_end: bool) -> str | None:
        """Check divergence and target on every measurement of the weights, patience on those after a pass.

        So how long a run is patient depends on what it learnt, and not on when the clock struck.
        """
        if not math.isfinite(objective):
            return "diverged"
        if self.config.target_accuracy is not None and accuracy >= self.config.target_accuracy:
            return "target_accuracy"
        if not at_pass_end:
            return None
        if objective < self.best_objective * (1 - self.config.tolerance):
            self.best_objective, self.best_passes = objective, passes
        elif self.config.patience is not None and passes - self.best_passes >= self.config.patience:
            return "no_improvement"
        return None
