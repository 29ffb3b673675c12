"""Every setting of a training run, declared once: type, default, bounds, unit and meaning.

`--help`, the validation (`settings.py`) and the table in the README are made from this declaration. Rank 0
alone reads settings; the workers get the finished `Config` from it, so this module needs nothing but the
standard library.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from dataclasses import dataclass, field
from typing import Any, Literal

Mode = Literal["sync", "async"]
LossName = Literal["hinge", "squared_hinge", "logistic"]
Schedule = Literal["constant", "inverse", "inverse_sqrt"]
Merge = Literal["mean", "sum", "damped"]
SharedMemoryUse = Literal["auto", "never"]
ColumnScaling = Literal["auto", "always", "never"]
Sharding = Literal["partition", "sample"]
EvalSplit = Literal["validation", "test"]


def setting(default: Any, meaning: str, *, unit: str = "", **bounds: float) -> Any:
    """Declare a setting; `bounds` are msgspec's words: ge, gt, le, lt."""
    return field(default=default, metadata={"meaning": meaning, "unit": unit, "bounds": bounds})


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The resolved settings of one run. Frozen: nothing changes them once training has begun."""

    # What to learn from
    data: str | None = setting(
        None, "rows to learn from: HDF5 made by 'mpisgd prepare', or svmlight text; none: a generated set"
    )
    bias: bool = setting(True, "add a column of ones, so that its weight is the bias")
    normalize: bool = setting(False, "scale every row to unit Euclidean norm first")
    scale_columns: ColumnScaling = setting(
        "auto",
        "while learning, bring every column's elements to about the same size, so that one step size suits all; the"
        " penalty is then on the weights of these; auto: where columns' sizes typically differ from their mean by a"
        " factor of two or more (async with a million columns: never)",
    )
    sharding: Sharding = setting(
        "partition",
        "rows of a worker: a random partition of all rows, or a random sample of n / (2 x workers), drawn anew",
    )
    resample_passes: int = setting(
        1, "with sample sharding: passes over a sample before the next one is used", unit="passes", ge=1
    )
    initial_model: str | None = setting(
        None, "start from this model's weights instead of zeros, and scale columns as it did"
    )

    # How to learn
    mode: Mode = setting("sync", "lock step (sync) or Hogwild! at a distance (async)")
    loss: LossName = setting("hinge", "loss of a row; hinge makes a support vector machine")
    regularization: float | None = setting(
        None, "lambda of the penalty lambda/2 ||w||^2; none: 0.01 / rows to learn from, LIBLINEAR's C = 100", ge=0, le=1
    )
    learning_rate: float | None = setting(
        None,
        "first step size; a mini-batch adds its rows' steps; none: the workers try several on a sample of the rows",
        gt=0,
    )
    learning_rate_schedule: Schedule = setting(
        "inverse", "how the step size falls with passes p: constant, rate/(1 + d p) or rate/sqrt(1 + d p)"
    )
    learning_rate_decay: float | None = setting(
        None,
        "d of the schedule; none: 0.5, or without patience, on the way to the optimum, learning rate x lambda x rows,"
        " from 0.05 to 0.5",
        unit="1/pass",
        ge=0,
    )
    batch_size: int = setting(8, "rows of a mini-batch step", unit="rows", ge=1)
    iterations: int | Literal["auto"] | None = setting(
        None,
        "mini-batch steps of a turn, between two exchanges; none: so many that a pass has 8 exchanges, and 6 more for"
        " each worker beyond the second; fewer where a turn would take less time than its exchange, but not below 10"
        " for that (async, by keys: 12 and one for six workers; sync with a million columns: 1); at most 98,304 rows;"
        " auto: the same, but the time of an exchange is measured at the start instead of guessed (the same seed may"
        " then give another run)",
        unit="steps",
        ge=1,
    )
    max_staleness: int | None = setting(
        None,
        "async: turns that a worker may be ahead of the slowest when it begins one; 0: lock step; none: any number (the"
        " log's staleness counts turns by others, of which there may be more)",
        unit="turns",
        ge=0,
    )
    shared_memory: SharedMemoryUse = setting(
        "auto",
        "exchange in memory that ranks share where all of them (sync: all workers) are on one node and it takes no more"
        " than 32 MB; async on several nodes, without max_staleness: the workers of each, one of whom speaks with the"
        " server; never: by messages alone",
    )
    gradient_threshold: float = setting(
        0.0,
        "changes of a weight (of a scaled column's, where columns are scaled) up to this size wait for a later turn"
        " instead of being sent",
        ge=0,
    )
    merge: Merge = setting(
        "damped",
        "the workers' changes of a weight are averaged (mean, as the original did in sync mode), added up (sum), or"
        " added up and damped the more, the further a turn alone moves that weight (damped); async: added up (mean,"
        " sum), or damped as in a round of as many turns as were merged meanwhile, by messages twice as many (damped)",
    )
    averaging: bool = setting(
        True, "measure and save the weights' average over the run so far, later ones counting more, not the last ones"
    )
    seed: int = setting(0, "seed of every random choice", ge=0, le=2**63 - 1)

    # When to stop
    passes: float | None = setting(50.0, "stop after this many passes over the training rows", unit="passes", gt=0)
    max_seconds: float | None = setting(None, "stop after this much training time", unit="s", gt=0)
    target_accuracy: float | None = setting(None, "stop at this accuracy on the measured rows", gt=0, le=1)
    patience: int | None = setting(
        5, "stop when the objective on the measured rows has not improved for this many passes", unit="passes", ge=1
    )
    tolerance: float = setting(1e-3, "smallest relative fall of the objective that counts as better", ge=0, lt=1)

    # What to measure and to leave
    eval_interval: float = setting(0.5, "time between measurements of accuracy", unit="s", gt=0)
    eval_split: EvalSplit = setting(
        "validation",
        "rows measured while training: validation (5 % of the training rows, at most 5,000, or the file's own)"
        " or test, as the original did; otherwise the test rows are scored once, at the end",
    )
    run_dir: str | None = setting(None, "directory for model, config and metrics; none: runs/<date and time>")
    force: bool = setting(False, "overwrite an earlier run in the run directory")
    done_file: str | None = setting(
        None, "file written as the very last act, for launchers that exit 0 when a host dies"
    )

    def to_json(self) -> str:
        """Return the settings as JSON, for the model's record."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Config:
        """Return the config that `to_json` wrote."""
        return cls(**json.loads(text))


PRESETS: dict[str, dict[str, Any]] = {
    # The 2018 report's values. It names neither a batch size nor a time limit: 128 rows make a turn of ten
    # steps about one pass over a worker's sample of RCV1, and ten minutes end a run that never gets there.
    "paper": {
        "learning_rate": 1e-3,
        "learning_rate_schedule": "constant",
        "regularization": 0.0,
        "scale_columns": "never",
        "iterations": 10,
        "batch_size": 128,
        "sharding": "sample",
        "merge": "mean",
        "averaging": False,
        "eval_interval": 2.0,
        "eval_split": "test",
        "target_accuracy": 0.90,
        "passes": None,
        "patience": None,
        "max_seconds": 600.0,
    },
}


@dataclass(frozen=True, slots=True)
class Declaration:
    """One setting as declared: what `--help`, the validation and the README say of it."""

    name: str
    kind: Any
    default: Any
    meaning: str
    unit: str
    bounds: dict[str, float]

    @property
    def words(self) -> tuple[str, ...]:
        """The words that may stand in the place of a number."""
        kinds = typing.get_args(self.kind)
        return tuple(word for kind in kinds if typing.get_origin(kind) is Literal for word in typing.get_args(kind))

    @property
    def optional(self) -> bool:
        """Whether the setting may be unset ("none")."""
        return type(None) in typing.get_args(self.kind)

    @property
    def required_kind(self) -> Any:
        """The kind of a value that is set and no word: `kind` without None."""
        return typing.get_args(self.kind)[0] if self.optional else self.kind

    @property
    def choices(self) -> tuple[str, ...]:
        """The words allowed, if the setting is a choice of words."""
        return typing.get_args(self.kind) if typing.get_origin(self.kind) is Literal else ()

    @property
    def expected(self) -> str:
        """What a value must be, in words: "an integer, at least 1"."""
        if self.choices:
            return " or ".join(self.choices)
        names = {int: "an integer", float: "a number", bool: "true or false", str: "a text"}
        bounds = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
        limits = [f"{bounds[word]} {limit:.17g}" for word, limit in self.bounds.items()]
        or_words = [f"or {word}" for word in self.words]
        return ", ".join([names[self.required_kind], *limits, *or_words, *(["or none"] if self.optional else [])])


def declarations() -> dict[str, Declaration]:
    """Return every setting's declaration by name, in the order of the class."""
    kinds = typing.get_type_hints(Config)
    return {f.name: Declaration(f.name, kinds[f.name], f.default, **f.metadata) for f in dataclasses.fields(Config)}
