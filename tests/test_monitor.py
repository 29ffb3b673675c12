"""The server's account, by a clock that only the test moves."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from mpisgd.config import Config
from mpisgd.console import Console
from mpisgd.evaluation import Measurement
from mpisgd.interrupt import Interrupt
from mpisgd.job import Job
from mpisgd.messages import ReportHeader
from mpisgd.monitor import Monitor
from mpisgd.run_log import EVENTS, METRICS, RunLog
from mpisgd.shard import Shard
from mpisgd.svm import ScaledVector
from mpisgd.turn_statistics import Record
from strategies import record_of, rows_from

ROWS = 100  # to learn from: one pass


@dataclass
class Server:
    """A monitor whose time, signals and weights the test sets.

    One row of value 1 and label +1 is held out: the hinge objective of the weight w is 1 - w (w < 1), and the
    row is predicted right where w > 0.
    """

    directory: Path
    settings: dict[str, Any]
    time: float = 1000.0
    weight: float = 0.5
    shown: list[dict[str, Any]] = field(default_factory=list)
    interrupt: Any = field(default_factory=lambda: SimpleNamespace(received=None))

    def __post_init__(self) -> None:
        config = Config(
            **{
                "learning_rate": 0.5,
                "learning_rate_decay": 0.5,
                "regularization": 0.0,
                "eval_interval": 1.0,
                **self.settings,
            }
        )
        held_out = Shard(rows_from([[(0, 1.0)]], 1), np.ones(1, np.float32))
        job = Job(config, 1, ROWS)
        self.monitor = Monitor(
            job,
            job.schedule(0.5),
            held_out,
            RunLog(self.directory),
            cast(Console, SimpleNamespace(progress=self.shown.append)),
            cast(Interrupt, self.interrupt),
            lambda: self.time,
            began=self.time,
        )

    def weights(self) -> ScaledVector:
        return ScaledVector(np.array([self.weight], np.float32))

    def count(self, turn: Record) -> None:
        self.monitor.count_turns(np.array([turn], np.float64))

    def look(self) -> int:
        """Measure all that is due; return in how many steps."""
        steps = 0
        while self.monitor.look(self.weights, self.monitor.rows):
            steps += 1
            assert steps < 100
        return steps

    def learn(self, rows: int, *, seconds: float = 0.0, weight: float | None = None) -> None:
        """Count a turn of so many rows, after so many seconds, and measure what is due."""
        self.time += seconds
        self.weight = self.weight if weight is None else weight
        self.count(record_of(rows=rows, changes_sent=3, changes=5, merged_at=self.time))
        self.monitor.check_limits(self.monitor.rows)
        self.look()

    def logged(self, name: str, fact: str) -> list[Any]:
        return [json.loads(line)[fact] for line in (self.directory / name).read_text().splitlines()]


@pytest.fixture
def start(tmp_path: Path) -> Any:
    return lambda **settings: Server(tmp_path, settings)


# --- when it is measured


def test_it_is_measured_at_fixed_times_however_long_nobody_looked(start: Any) -> None:
    server = start()
    for seconds in (0.0, 0.9, 0.2, 0.8, 0.2, 3.0, 0.8, 0.1):  # now at 0, 0.9, 1.1, 1.9, 2.1, 5.1, 5.9, 6.0
        server.learn(1, seconds=seconds)
    assert server.logged(METRICS, "seconds") == pytest.approx([1.1, 2.1, 5.1, 6.0])
    assert server.logged(METRICS, "occasion") == ["time"] * 4
    assert len(server.shown) == 4


def test_the_clock_is_no_later_than_the_workers(start: Any) -> None:
    """Who waits for nobody hears late that it was started."""
    server = start()
    server.time += 2.0
    report = ReportHeader(1, 10, seconds=2.5, turns=2, changes_sent=1, changes=1, merge_weight=1.0, bytes_each_way=8,
                          rounds=0, workers=2, in_memory=True)  # fmt: skip
    server.monitor.count_rounds(report, np.empty((0, 2), np.float32), np.ones((2, 2), np.float32))
    server.monitor.take(Measurement(accuracy=0.5, objective=0.4), "pass")
    assert server.logged(METRICS, "seconds") == [2.5]
    assert server.monitor.seconds == 2.5


def test_weights_that_have_not_changed_are_not_measured_again(start: Any) -> None:
    server = start()
    server.learn(1, seconds=1.5)
    server.time += 5
    assert server.look() == 0
    server.learn(1)
    assert len(server.logged(METRICS, "seconds")) == 2


def test_it_is_measured_after_each_pass_and_once_after_several(start: Any) -> None:
    server = start()
    for rows in (60, 30, 15, 90, 205, 1):  # 0.6, 0.9, 1.05, 1.95, 4.0, 4.01 passes
        assert not server.monitor.at_pass_end(server.monitor.rows)
        server.count(record_of(rows=rows))
        due = server.monitor.at_pass_end(server.monitor.rows)
        assert (server.look() > 0) == due
    assert server.logged(METRICS, "passes") == pytest.approx([1.05, 4.0])
    assert server.logged(METRICS, "occasion") == ["pass"] * 2


def test_a_measurement_is_of_the_moment_it_began(start: Any) -> None:
    server = start()
    server.count(record_of(rows=100, changes_sent=7, changes=9, merged_at=server.time))
    assert server.monitor.look(server.weights, server.monitor.rows)
    server.weight = -1.0
    server.time += 5
    server.count(record_of(rows=30, changes_sent=7, changes=9, merged_at=server.time))
    server.monitor.measure_now(server.weights(), "end")
    assert server.logged(METRICS, "occasion") == ["pass", "end"]
    assert server.logged(METRICS, "rows") == [100, 130]
    assert server.logged(METRICS, "updates") == [1, 2]
    assert server.logged(METRICS, "changes_sent") == [7, 14]
    assert server.logged(METRICS, "seconds") == [0.0, 5.0]
    assert server.logged(METRICS, "objective") == pytest.approx([0.5, 2.0])
    assert server.logged(METRICS, "accuracy") == [1.0, 0.0]


def test_turns_counted_at_once_are_those_one_by_one(tmp_path: Path) -> None:
    turns = [
        record_of(rows=n, changes_sent=2 * n, changes=3 * n, bytes_up=4 * n, bytes_down=5 * n, gains=n / 2, merged_at=n)
        for n in (1, 2, 4)
    ]
    for name in ("at once", "one by one"):
        (tmp_path / name).mkdir()
    at_once, one_by_one = (Server(tmp_path / name, {}) for name in ("at once", "one by one"))
    at_once.monitor.count_turns(np.array(turns, np.float64))
    at_once.monitor.count_turns(np.empty((0, len(Record._fields))))
    for turn in turns:
        one_by_one.count(turn)
    for server in (at_once, one_by_one):
        server.monitor.measure_now(server.weights(), "end")
    assert at_once.monitor.last == one_by_one.monitor.last


def test_nothing_new_is_measured_once_the_end_has_come(start: Any) -> None:
    server = start(passes=1.0)
    server.learn(100)
    server.time += 10
    assert server.look() == 0
    assert server.logged(METRICS, "rows") == []


def test_a_measurement_tells_what_the_turns_were_like(start: Any) -> None:
    server = start()
    for round_trip, staleness in ((0.0, 0), (0.25, 1), (0.75, 8)):  # the first turn knows of no round trip yet
        turn = record_of(rows=10, staleness=staleness, round_trip=round_trip, merged_at=server.time + 2.0)
        server.count(turn)
    server.time += 3.0  # nothing was merged in the last second
    server.monitor.measure_now(server.weights(), "end")
    assert server.monitor.last["round_trip_p50"] == 0.25
    assert server.monitor.last["round_trip_p99"] == 0.75
    assert (server.monitor.last["staleness_p50"], server.monitor.last["staleness_max"]) == (1, 8)
    assert server.monitor.last["rows_per_second"] == pytest.approx(15)


# --- why to stop


def test_rows_that_are_not_counted_yet_are_reason_enough(start: Any) -> None:
    server = start(passes=2.0)
    assert not server.monitor.check_limits(ROWS)
    assert server.monitor.check_limits(2 * ROWS)
    assert server.monitor.stop_reason == "passes"
    assert server.logged(EVENTS, "passes") == [2.0]
    assert server.monitor.rows == 0


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"passes": 1.0}, "passes"),
        ({"max_seconds": 7.0}, "max_seconds"),
        ({"target_accuracy": 1.0}, "target_accuracy"),
        ({"passes": None, "patience": 1, "tolerance": 0.0}, None),
    ],
)
def test_reasons_to_stop(start: Any, settings: dict[str, Any], reason: str | None) -> None:
    server = start(**settings)
    server.learn(99, seconds=0.5, weight=-1.0)
    assert server.monitor.stop_reason is None
    server.learn(1, seconds=6.5, weight=0.5)
    assert server.monitor.stop_reason == reason


def test_a_signal_is_a_reason_to_stop(start: Any) -> None:
    server = start()
    server.interrupt.received = "SIGTERM"
    server.learn(1)
    assert server.monitor.stop_reason == "signal SIGTERM"


def test_weights_that_are_no_longer_finite_are_a_reason_to_stop(start: Any) -> None:
    server = start()
    server.learn(1, seconds=1.0, weight=-np.inf)
    assert server.monitor.stop_reason == "diverged"


def test_the_first_reason_stays_and_is_logged_once(start: Any) -> None:
    server = start(passes=1.0, max_seconds=5.0)
    server.learn(100)
    server.learn(100, seconds=10)
    server.interrupt.received = "SIGINT"
    server.learn(100)
    assert server.monitor.stop_reason == "passes"
    assert server.logged(EVENTS, "event") == ["shutdown"]
    assert server.logged(EVENTS, "reason") == ["passes"]


def test_patience_counts_passes_that_are_no_better(start: Any) -> None:
    server = start(patience=2)
    server.learn(100, weight=0.5)
    server.learn(100, weight=0.4)
    assert server.monitor.stop_reason is None
    server.learn(100, weight=0.4)
    assert server.monitor.stop_reason == "no_improvement"


@pytest.mark.parametrize("seconds", [0.0, 0.3, 1.0, 7.0])
def test_patience_does_not_depend_on_the_clock(start: Any, seconds: float) -> None:
    """Between the passes the clock may show better weights, and worse ones: neither counts."""
    server = start(patience=2)
    for weight in (0.5, 0.4, 0.4):
        assert server.monitor.stop_reason is None
        for between in (0.9, -3.0):
            server.learn(30, seconds=seconds, weight=between)
        server.learn(40, weight=weight)
    assert server.monitor.stop_reason == "no_improvement"


# --- a log that cannot be written


@pytest.mark.parametrize("name", [METRICS, EVENTS])
def test_a_log_that_cannot_be_written_ends_the_run_in_good_order(start: Any, tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to("/dev/full")
    server = start()
    server.learn(10, seconds=1.0)
    server.monitor.event("worker_gone", worker=1)
    assert server.monitor.stop_reason == "failed"
    assert server.monitor.failure is not None
    assert f"{tmp_path / name}: cannot write" in str(server.monitor.failure)


def test_a_log_that_breaks_after_the_end_is_kept_as_the_failure(start: Any, tmp_path: Path) -> None:
    server = start(passes=1.0)
    server.learn(100)
    (tmp_path / METRICS).unlink()
    (tmp_path / METRICS).symlink_to("/dev/full")
    server.monitor.measure_now(server.weights(), "end")
    assert server.monitor.stop_reason == "passes"
    assert server.monitor.failure is not None
