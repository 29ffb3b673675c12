"""Step sizes, and the rule that says when to stop."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from mpisgd.config import Config

SLOWEST_DECAY, FASTEST_DECAY = 0.05, 0.5  # 1/pass
EVENED_WITHIN = 4  # passes
# Of the schedule's steps. One of four workers that is five times slower takes four times these; after a long sleep a
# shard's whole debt would be paid by its next few rows.
LARGEST_FACTOR = 8
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
        return self.learning_rate / self.fall(rows)

    def fall(self, rows: int) -> float:
        """Return what the first step size is to be divided by after so many rows."""
        return math.pow(1.0 + self.decay * (rows / self.learning_rows), self.power)


class EvenSteps:
    """The step sizes of an asynchronous worker, or a node, such that its rows count as much as those of others.

    Who goes round its shard more often would draw the weights to where its own rows want them: two workers, one of them
    three times slower, end 7 % above the optimum. Towards it, with steps eta_0 / (1 + eta_0 lambda t), a row counts the
    same in the final weights whenever it is processed; with other schedules about the same, within some passes. So what
    is to be the same for all workers is the sum of f over their rows, where their steps are f times the schedule's.
    With c_k of worker k, who has the share p_k of all workers, after n rows of all
        f = exp((n - c_k / p_k) / s),
    at most LARGEST_FACTOR, and so that no step is larger than the first of the run, which trials found to be good.
    With s of some passes over all rows little is made of who began first, and of rows of others not heard of yet; yet
    it is made up for within some passes, also where now one worker is the faster and now another. What would take
    larger steps than that is not made up for.
    """

    def __init__(self, schedule: Schedule, share: float, within: float) -> None:
        """`within` is s, in passes; infinite: the steps are the schedule's."""
        self._schedule, self._share, self._within = schedule, share, within * schedule.learning_rows
        self._counted = 0.0  # c_k
        self._factor = 1.0  # f, of the steps that are taken now

    def after(self, rows: int) -> Schedule:
        """Return the step sizes to go on with, after so many processed rows of all workers."""
        most = math.log(min(self._schedule.fall(rows), LARGEST_FACTOR))
        behind = (rows - self._counted / self._share) / self._within
        if behind > most:
            behind, self._counted = most, self._share * (rows - self._within * most)
        self._factor = math.exp(behind)
        return replace(self._schedule, learning_rate=self._schedule.learning_rate * self._factor)

    def count(self, rows: int) -> None:
        """Count so many rows, processed with the step sizes returned last."""
        self._counted += self._factor * rows


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
