"""What every part is given, and what several parts do alike."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.kinds import slowly_learnt
from benchmarks.measure import RunFailedError, Training, Usage, train
from benchmarks.peers import PeerRun, run_peer
from benchmarks.report import Curve, Result
from benchmarks.sets import LearningSet, full_set, write_set

MODES = ("sync", "async")
MEASURED_EVERY = 0.01  # s, where a curve is wanted
PASSES_TRIED = [2.0**power for power in range(-8, 4)]
TO_ACCURACY = "s to accuracy"
WITHIN_PASSES = "s to accuracy, within passes"
ALL_ROWS = "s a pass"


@dataclass(frozen=True)
class Bench:
    """One run of the benchmarks.

    directory  where results and all files made go
    base       the given rows, or generated ones
    copies     of the base's rows in the full-size set
    seeds      of every repeated run
    pythons    the interpreters to try waiting with: one for each MPI
    """

    directory: Path
    base: LearningSet
    copies: int
    seeds: range
    pythons: tuple[str, ...]

    @cached_property
    def full(self) -> LearningSet:
        """The full-size set; made when first asked for."""
        return full_set(self.base, self.copies, self.directory)

    def speed_run(self, mode: str, workers: int, seed: int, passes: int = 5) -> Training:
        """Learn the full-size set for some passes, measured after each on validation rows, as users do."""
        return self._passes(passes, mode, workers, seed)

    def shortest(self, mode: str, workers: int, seed: int) -> tuple[float, float] | None:
        """Learn the full-size set for 1/256, 1/128 ... of a pass, until the model reaches the target on the test rows.

        Returns the passes of the shortest run that does, and its seconds; none if none does.
        """
        runs = ((passes, self.seconds_there(passes, mode, workers, seed)) for passes in PASSES_TRIED)
        return next(((passes, seconds) for passes, seconds in runs if seconds is not None), None)

    def seconds_there(self, passes: float, mode: str, workers: int, seed: int) -> float | None:
        """Learn the full-size set for so many passes; return how long that took, or none if the target is not reached.

        Nothing is measured while it learns: it says how long learning takes.
        """
        run = self._passes(passes, mode, workers, seed)
        return run.training_seconds if run.test_accuracy >= self.full.target else None

    def curve_run(self, mode: str, workers: int, seed: int) -> Training:
        """Learn the full-size set for three passes, measured on the test rows often: for the plot."""
        often = ("--eval-split", "test", "--eval-interval", str(MEASURED_EVERY))
        return self._passes(3, mode, workers, seed, *often)

    def objective_run(self, mode: str, workers: int, seed: int) -> Training:
        """Learn the full-size set for eight passes, measured after each on validation rows: how fast it converges."""
        return self._passes(8, mode, workers, seed)

    @cached_property
    def slowly_learnt(self) -> Path:
        """Generated rows whose accuracy still grows after several passes; made when first asked for."""
        path = self.directory / "slowly-learnt.h5"
        if not path.exists():
            write_set(path, *slowly_learnt(np.random.default_rng(0)))
        return path

    def long_run(self, mode: str, workers: int, seed: int) -> Training:
        """Learn `slowly_learnt` for eight passes, measured after each on the test rows."""
        fixed = ("--passes", "8", "--patience", "none", "--eval-split", "test")
        return self.train(self.slowly_learnt, mode, workers, seed, *fixed)

    def _passes(self, passes: float, mode: str, workers: int, seed: int, *options: str) -> Training:
        """Learn the full-size set for so many passes."""
        fixed = ("--regularization", repr(self.full.regularization), "--passes", str(passes), "--patience", "none")
        return self.train(self.full.path, mode, workers, seed, *options, *fixed)

    def train(self, data: Path, mode: str, workers: int, seed: int, *options: str, **other: Any) -> Training:
        """Train once; `other` is as for `measure.train`."""
        run = self.directory / "run"
        return train(data, run, workers, "--mode", mode, "--seed", str(seed), *options, **other)

    def try_peer(self, name: str, data: LearningSet, seed: int, result: Result) -> PeerRun | None:
        """Run a peer and add it to a part's table; note why not where it is not installed or fails."""
        try:
            run = run_peer(name, data, seed, self.directory)
        except RunFailedError as error:
            if seed == self.seeds[0]:
                result.notes.append(f"{name}: not measured: {str(error)[-300:]}")
            return None
        add_peer(result, name, run, data.target)
        return run


def mpisgd_row(mode: str, workers: int) -> str:
    """Return this program's name in tables."""
    return f"mpisgd {mode}, {workers} worker{'s' * (workers > 1)}"


def add_speed(result: Result, row: str, run: Training, rows: int) -> None:
    """Add how fast a run of this program was; `rows` is the number of training rows."""
    result.figure(row, ALL_ROWS, rows / run.rows_per_second)
    result.figure(row, "rows/s", run.rows_per_second)
    result.figure(row, "s until training", run.ready_seconds)
    add_usage(result, row, run.ranks)


def add_accuracy(result: Result, row: str, seconds: float) -> None:
    """Add how long it took to reach the target, infinite if it was not."""
    result.figure(row, TO_ACCURACY, seconds)
    result.figure(row, WITHIN_PASSES, seconds)


def add_peer(result: Result, row: str, run: PeerRun, target: float) -> None:
    """Add a peer's run to a table."""
    last = run.points[-1]
    result.figure(row, TO_ACCURACY, run.seconds_to(target))
    result.figure(row, WITHIN_PASSES, run.seconds_to(target, within_passes=True))
    if not math.isnan(run.rows_per_second):
        result.figure(row, ALL_ROWS, last["rows"] / run.rows_per_second)
        result.figure(row, "rows/s", run.rows_per_second)
    result.figure(row, "test accuracy", last["accuracy"])
    result.figure(row, "s until training", run.load_seconds)
    add_usage(result, row, [run.usage])


def add_usage(result: Result, row: str, ranks: list[Usage]) -> None:
    """Add what each process used: CPU seconds and peak memory of rank 0 (or the only one), and of the busiest other."""
    for name, some in (("rank 0", ranks[:1]), ("a worker", ranks[1:])):
        if some:
            result.figure(row, f"CPU s, {name}", max(rank.cpu_seconds for rank in some))
            result.figure(row, f"peak MB, {name}", max(rank.peak_bytes for rank in some) / 1e6)


def training_curve(name: str, run: Training) -> Curve:
    """Return the accuracy of a run of this program over time."""
    seconds, passes, accuracy = ([line[key] for line in run.metrics] for key in ("seconds", "passes", "accuracy"))
    return Curve(name, seconds, passes, accuracy)


def peer_curve(name: str, run: PeerRun) -> Curve:
    """Return the accuracy of a peer's run over time."""
    seconds, passes, accuracy = ([point[key] for point in run.points] for key in ("seconds", "passes", "accuracy"))
    return Curve(name, seconds, passes, accuracy)
