"""What rank 0 announces to the workers before the rows travel, and what both roles derive from it alike."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any

from mpisgd.config import Config
from mpisgd.preprocessing import Preprocessing
from mpisgd.schedule import EVENED_WITHIN, POWERS, EvenSteps, Schedule, decay, passes_are_done
from mpisgd.svm import LOSSES, Objective
from mpisgd.turns import WIDE, are_by_keys, first_turn_rows, turn_rows

# Announced when the rows have all been sent: the workers go on to learn.
LEARN = "learn"
# Announced where updates go to the server by messages, when it has what it takes: the clock of training may start.
READY = "ready"
# Announced instead of a job, or of LEARN, when rank 0 found something wrong and has said so: the workers leave.
NO_JOB = ""

# lambda x rows, where the user does not set lambda: LIBLINEAR's C = 100. Early stopping sees to what is too little.
# With ten times as much ten million columns end 0.01 to 0.017 lower, rows often empty 0.002, text 0.001 higher.
LAMBDA_ROWS = 0.01


@dataclass(frozen=True, slots=True)
class Job:
    """One training run, the same on every rank."""

    config: Config
    feature_count: int  # columns of the data, the bias column not among them
    learning_rows: int  # rows of all workers together: what one pass is
    workers: int = 1
    row_length: float = 0.0  # mean number of elements in a row
    held_out_rows: int = 0  # that the weights are measured on
    measures_turns: bool = False  # whether the length of a turn is to be settled by what exchanges take
    first_iterations: int | None = None  # of a run's first turn, the later ones doubling; none: they are all alike
    by_keys: bool = False  # async: whether a turn exchanges the columns of its rows, not all
    wide: bool = False  # whether there are so many columns that a worker has weights only of those in its rows
    bias_step: float = 1.0  # share of the step size that the bias learns with; settled when the workers have their rows

    @classmethod
    def planned(
        cls,
        config: Config,
        feature_count: int,
        learning_rows: int,
        workers: int,
        row_length: float,
        held_out_rows: int = 0,
    ) -> Job:
        """Return the job with lambda and the length of a turn settled where the user left them open."""
        settled: dict[str, Any] = {}
        if config.regularization is None:
            settled["regularization"] = LAMBDA_ROWS / learning_rows
        iterations = config.iterations
        if not isinstance(iterations, int):
            rows = turn_rows(config, feature_count, learning_rows, workers, row_length)
            iterations = settled["iterations"] = _steps(rows, config)
        by_keys = are_by_keys(config, iterations * config.batch_size, feature_count, row_length)
        first = None
        if "iterations" in settled and not by_keys:
            first = _steps(first_turn_rows(feature_count, row_length), config)
        return cls(
            dataclasses.replace(config, **settled),
            feature_count,
            learning_rows,
            workers=workers,
            row_length=row_length,
            held_out_rows=held_out_rows,
            measures_turns=config.iterations == "auto",
            first_iterations=first,
            by_keys=by_keys,
            wide=by_keys and feature_count >= WIDE and config.scale_columns != "always",
        )

    @property
    def iterations(self) -> int:
        """The mini-batch steps of a turn, settled."""
        assert isinstance(self.config.iterations, int)  # noqa: S101 - `planned` came first
        return self.config.iterations

    @property
    def turn_rows(self) -> int:
        """The rows of a turn of full length."""
        return self.iterations * self.config.batch_size

    def with_turns_worth(self, rows: float) -> Job:
        """Return the job with turns of about so many rows, between the bounds of `turns.turn_rows`."""
        found = turn_rows(self.config, self.feature_count, self.learning_rows, self.workers, self.row_length, rows)
        return dataclasses.replace(self, config=dataclasses.replace(self.config, iterations=_steps(found, self.config)))

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
    def regularization(self) -> float:
        """Lambda, settled."""
        assert self.config.regularization is not None  # noqa: S101 - `planned` came first
        return self.config.regularization

    @property
    def objective(self) -> Objective:
        """What is minimised."""
        return Objective(LOSSES[self.config.loss], self.regularization, self.config.bias, self.bias_step)

    def passes(self, rows: int) -> float:
        """Return how many passes over the learning rows `rows` processed rows are."""
        return rows / self.learning_rows

    @property
    def last_rows(self) -> float:
        """The processed rows that are all the passes that were asked for; infinite if there is no such limit."""
        return math.inf if self.config.passes is None else self.config.passes * self.learning_rows

    def is_done(self, rows: int) -> bool:
        """Tell whether `rows` processed rows are all the passes that were asked for."""
        return passes_are_done(self.config, self.passes(rows))

    @property
    def keeps_best(self) -> bool:
        """Whether the run leaves the weights that were best after a pass, and not the last ones."""
        return self.config.eval_split == "validation" and self.config.patience is not None

    def with_scaling(self, *, scaled: bool) -> Job:
        """Return the job with it settled whether the columns are scaled."""
        return dataclasses.replace(
            self, config=dataclasses.replace(self.config, scale_columns="always" if scaled else "never")
        )

    def schedule(self, learning_rate: float) -> Schedule:
        """Return the step sizes of a run that begins with this one."""
        falls = decay(self.config, learning_rate, self.learning_rows)
        return Schedule(learning_rate, falls, POWERS[self.config.learning_rate_schedule], self.learning_rows)

    def even_steps(self, schedule: Schedule, workers: int = 1) -> EvenSteps:
        """Return the step sizes of an asynchronous worker, or of so many on one node.

        Samples are of all rows, so where shards are samples it makes no difference who takes more of them.
        """
        within = EVENED_WITHIN if self.config.sharding == "partition" else math.inf
        return EvenSteps(schedule, workers / self.workers, within)

    def with_schedule(self, schedule: Schedule) -> Job:
        """Return the job with its first step size settled, and how it falls."""
        config = dataclasses.replace(
            self.config, learning_rate=schedule.learning_rate, learning_rate_decay=schedule.decay
        )
        return dataclasses.replace(self, config=config)


def _steps(rows: float, config: Config) -> int:
    """Return the mini-batch steps that so many rows take, one at least: rounded up, so that whole turns make a pass."""
    return max(1, math.ceil(rows / config.batch_size))
