"""The server's account of a run: what was done, how good the weights are, and when to stop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from mpisgd.compiled_loops import Float
from mpisgd.console import Console
from mpisgd.errors import RunError
from mpisgd.evaluation import Measurement, measure_in_steps
from mpisgd.interrupt import Interrupt
from mpisgd.job import Job
from mpisgd.messages import ReportHeader
from mpisgd.run_log import RunLog
from mpisgd.schedule import Schedule, StopRule
from mpisgd.shard import Shard
from mpisgd.svm import ScaledVector
from mpisgd.turn_statistics import FIELDS, Record, Records, TurnStatistics


class Monitor:
    """Counts turns, measures the weights at fixed times and after each pass, and holds the reason to stop.

    A measurement runs in small steps on a copy of the weights, so that serving goes on meanwhile.
    While `stop_reason` is None the run goes on; once it is set, whoever asks is told to stop.
    `in_memory` is whether turns are merged in memory that all ranks (in lock step: all workers) share; none as long as
    that is not known.
    `schedule` are the run's step sizes.
    `best` is the measurement after a pass with the least objective, `best_weights` what was measured; where the workers
    measure, that is theirs to keep, and to be set in the end.
    """

    def __init__(
        self,
        job: Job,
        schedule: Schedule,
        held_out: Shard,
        log: RunLog,
        console: Console,
        interrupt: Interrupt,
        now: Callable[[], float],
        *,
        began: float,
    ) -> None:
        self._job, self._held_out, self._log, self._console = job, held_out, log, console
        self._interrupt, self._now = interrupt, now
        self._rule, self.schedule = StopRule(job.config), schedule
        self._began = began
        self._merged_at: float | None = None  # s, the last turn
        self._next_time = job.config.eval_interval
        self._next_pass = 1
        self._pending: Iterator[Measurement | None] | None = None
        self._snapshot: dict[str, Any] = {}
        self._measured_weights: ScaledVector | None = None
        self._at_pass_end = False
        self.turns = TurnStatistics()
        self._merged_rows = 0  # processed, as last heard; more than `rows` where not all are counted
        self.rows, self.updates, self.changes_sent, self.changes = 0, 0, 0, 0
        self.bytes_up, self.bytes_down = 0, 0
        self.in_memory: bool | None = None
        self.stop_reason: str | None = None
        self.failure: RunError | None = None
        self.last: dict[str, Any] = {}
        self.best: dict[str, Any] = {}
        self.best_weights: ScaledVector | None = None

    @property
    def seconds(self) -> float:
        """Training time so far, in seconds."""
        return self._now() - self._began

    @property
    def passes(self) -> float:
        """Passes over the learning rows that have been counted."""
        return self._job.passes(self.rows)

    def count_turns(self, turns: Records) -> None:
        """Count turns in the order in which they were merged."""
        if len(turns) == 0:
            return
        sums = Record(*turns.sum(axis=0).tolist())
        self._add(len(turns), *map(int, (sums.rows, sums.changes_sent, sums.changes, sums.bytes_up, sums.bytes_down)))
        self.turns.count(turns)
        self._merged_at = float(turns[:, FIELDS["merged_at"]].max())

    def count_rounds(self, report: ReportHeader, round_trips: Float, spent: Float) -> None:
        """Count the rounds of a report in lock step, where no turn is stale; see `messages.unpack_report`."""
        self.in_memory, bytes_each_way = bool(report.in_memory), report.bytes_each_way
        # this rank may have heard late that the clock of training started
        self._began = min(self._began, self._now() - report.seconds)
        self._merged_at = self._began + report.seconds
        rows = report.rows - self.rows
        self._add(report.turns, rows, report.changes_sent, report.changes, bytes_each_way, bytes_each_way)
        self.turns.count_rounds(round_trips, spent)
        self.turns.count_merged(report.changes_sent, report.changes_sent * report.merge_weight)

    def _add(self, updates: int, rows: int, changes_sent: int, changes: int, bytes_up: int, bytes_down: int) -> None:
        self.updates += updates
        self.rows += rows
        self.changes_sent += changes_sent
        self.changes += changes
        self.bytes_up += bytes_up
        self.bytes_down += bytes_down

    def check_limits(self, rows: int) -> bool:
        """Look for a reason to stop that needs no measurement, after so many processed rows; tell whether there is one.

        They may be more than have been counted here.
        """
        self._merged_rows = rows
        interrupted = self._interrupt.received
        reason = (
            f"signal {interrupted}" if interrupted else self._rule.after_update(self._job.passes(rows), self.seconds)
        )
        if reason is not None:
            self._shut_down(reason)
        return reason is not None

    def look(self, weights: Callable[[], ScaledVector], rows: int) -> bool:
        """Do a little measuring if some is due after so many processed rows; tell whether there was any to do.

        `weights` returns a copy of the current weights, and counts what is in them if that is not done yet.
        """
        self._merged_rows = rows
        if self._pending is None:
            at_time = self.is_time() and rows > self.last.get("rows", -1)
            if not (self.at_pass_end(rows) or at_time) or self.stop_reason is not None:
                return False
            self._begin(weights(), "time" if at_time else "pass")
        self._advance()
        return True

    def is_time(self) -> bool:
        """Tell whether `eval_interval` has passed since the last measurement at a fixed time."""
        return self.seconds >= self._next_time

    def at_pass_end(self, rows: int) -> bool:
        """Tell whether so many processed rows complete a pass that is not measured yet."""
        return self._job.passes(rows) >= self._next_pass

    def take(self, measured: Measurement, occasion: str) -> None:
        """Take note of what the workers measured of the weights with all that has been counted."""
        self._note(occasion)
        self._record(measured)

    def measure_now(self, weights: ScaledVector, occasion: str) -> None:
        """Measure at once, in the end."""
        while self._pending is not None:
            self._advance()
        self._begin(weights, occasion)
        while self._pending is not None:
            self._advance()

    def _begin(self, weights: ScaledVector, occasion: str) -> None:
        self._measured_weights = weights
        self._note(occasion)
        self._pending = measure_in_steps(weights, self._held_out, self._job.objective)

    def _note(self, occasion: str) -> None:
        """Note what the weights are that are measured now."""
        config = self._job.config
        seconds = self.seconds if self._merged_at is None else self._merged_at - self._began
        self._at_pass_end = self.at_pass_end(self.rows)
        self._next_pass = int(self.passes) + 1
        if occasion == "time":
            self._next_time = (self.seconds // config.eval_interval + 1) * config.eval_interval
        self._snapshot = {
            "seconds": seconds,
            "occasion": occasion,
            "rows": self.rows,
            "passes": self.passes,
            "rows_per_second": self.rows / seconds if seconds else 0.0,
            "updates": self.updates,
            "updates_per_second": self.updates / seconds if seconds else 0.0,
            "changes": self.changes,
            "changes_sent": self.changes_sent,
            "bytes_up": self.bytes_up,
            "bytes_down": self.bytes_down,
            "bytes_up_per_update": self.bytes_up / max(1, self.updates),
            "bytes_down_per_update": self.bytes_down / max(1, self.updates),
            "step_size": self.schedule.step_size(self.rows),
            **self.turns.summary(),
        }

    def _advance(self) -> None:
        assert self._pending is not None  # noqa: S101 - the callers see to it
        result = next(self._pending)
        if result is not None:
            self._pending = None
            self._record(result)

    def _record(self, measured: Measurement) -> None:
        self.last = {**self._snapshot, "accuracy": measured.accuracy, "objective": measured.objective}
        try:
            self._log.metrics(self.last)
        except RunError as error:
            self._fail(error)
        if self._at_pass_end and measured.objective < self.best.get("objective", math.inf):
            self.best, self.best_weights = self.last, self._measured_weights
        if self.last["occasion"] != "pass":
            self._console.progress(self.last)
        reason = self._rule.after_measurement(
            measured.accuracy, measured.objective, self.last["passes"], at_pass_end=self._at_pass_end
        )
        if reason is not None:
            self._shut_down(reason)

    def _shut_down(self, reason: str) -> None:
        if self.stop_reason is None:
            self.stop_reason = reason
            passes = self._job.passes(max(self._merged_rows, self.rows))
            self.event("shutdown", reason=reason, seconds=self.seconds, passes=passes)

    def event(self, name: str, **facts: Any) -> None:
        """Log an event; a log that cannot be written ends the run in good order."""
        try:
            self._log.event(name, **facts)
        except RunError as error:
            self._fail(error)

    def _fail(self, error: RunError) -> None:
        """Keep what went wrong for the end: the workers must be told before the program can."""
        self.failure = self.failure or error
        self._shut_down("failed")
