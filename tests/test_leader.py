"""What the leader of the workers tells the server, and when it wants to stop."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mpisgd.compiled_loops import Float
from mpisgd.config import Config
from mpisgd.job import Job
from mpisgd.leader import Leader
from mpisgd.merging import NOTHING_MERGED, RoundFacts, TurnFacts
from mpisgd.messages import Occasion, Order, ReportHeader, unpack_report
from mpisgd.svm import NOTHING_JUDGED, Judged

PASS, TIME = Occasion.PASS, Occasion.TIME
LEARNING, HELD_OUT = 100, 10  # rows
COLUMNS = 2


class Course:
    """A run that a leader leads, of two workers; the weights are all as large as there were rounds."""

    def __init__(self, **settings: Any) -> None:
        job = Job(Config(regularization=1.0, bias=False, **settings), COLUMNS, LEARNING, 2, held_out_rows=HELD_OUT)
        self.orders: list[Order] = []
        self.reports: list[tuple[ReportHeader, Float]] = []
        self.weights = np.zeros(COLUMNS, np.float32)
        self.rounds = SimpleNamespace(
            rows=0, counts=NOTHING_MERGED, bytes_each_way=1, in_memory=True, measured=lambda: self.weights
        )
        channel = SimpleNamespace(
            workers=range(1, 3),
            now=lambda: 0.0,
            leader_poll_order=lambda: self.orders.pop(0) if self.orders else None,
            leader_report=self._keep,
        )
        self.leader = Leader(channel, job, self.rounds)  # type: ignore[arg-type]
        self.leader.begin(at=0.0)

    def round(self, occasion: Occasion | None = None, judged: Judged = NOTHING_JUDGED, rows: int = 50) -> None:
        """Merge a round, which brought what was judged before; the occasion is why its weights are measured."""
        self.weights += 1
        self.rounds.rows += rows
        halves = [TurnFacts(rows=rows / 2, right=judged.right / 2, losses=judged.losses / 2) for _ in range(2)]
        self.leader.after_round(RoundFacts(halves), occasion)

    def measured(self, occasion: Occasion, objective: float) -> None:
        """Measure the weights after a round, and take another."""
        self.round(occasion)
        penalty = COLUMNS / 2 * float(self.weights[0]) ** 2
        self.round(judged=Judged(4, HELD_OUT * (objective - penalty)))

    def _keep(self, message: np.ndarray, _: object) -> None:
        header, _, _, weights = unpack_report(message, COLUMNS)
        self.reports.append((header, weights.copy()))


def test_a_report_is_of_the_weights_that_were_measured() -> None:
    """And not of those after the round that brought what all found."""
    course = Course()
    course.round()
    course.round(PASS)
    assert not course.reports
    course.round(judged=Judged(6, 5.0))
    ((header, weights),) = course.reports
    assert (header.occasion, header.rows, header.turns) == (PASS, 100, 4)
    assert (header.accuracy, header.objective) == (0.6, 0.5 + (2**2 + 2**2) / 2)
    assert len(weights) == 0
    course.leader.finish()
    header, weights = course.reports[-1]
    assert (header.occasion, header.rows, header.turns) == (Occasion.END, 150, 2)
    np.testing.assert_array_equal(weights[0], [3, 3])


@pytest.mark.parametrize("occasion", [TIME, PASS])
def test_a_question_is_answered_once_also_when_it_meets_a_pass(occasion) -> None:
    course = Course()
    course.orders.append(Order.MEASURE)
    course.round()
    assert course.leader.wants_measuring
    course.round(occasion)
    assert not course.leader.wants_measuring
    course.round()
    assert [header.occasion for header, _ in course.reports] == [occasion]


def test_the_word_to_stop_is_heard() -> None:
    course = Course()
    course.orders += [Order.MEASURE, Order.STOP]
    course.round()
    assert not course.leader.wants_stop
    course.round()
    assert course.leader.wants_stop


@pytest.mark.parametrize(
    ("settings", "measured", "stops"),
    [
        ({"patience": 2}, [(PASS, 0.5), (PASS, 0.4), (PASS, 0.4)], False),
        ({"patience": 2}, [(PASS, 0.4), (PASS, 0.5), (PASS, 0.4)], True),
        ({"patience": 2}, [(PASS, 0.4), (PASS, 0.5), (TIME, 0.4)], False),
        ({"target_accuracy": 0.4}, [(TIME, 0.4)], True),
        ({"target_accuracy": 0.5}, [(PASS, 0.4)], False),
        ({}, [(PASS, math.nan)], True),
    ],
)
def test_it_goes_by_the_rule(settings, measured, stops) -> None:
    course = Course(**settings)
    for occasion, objective in measured:
        course.measured(occasion, objective)
    assert course.leader.wants_stop == stops


@pytest.mark.parametrize(
    ("settings", "measured", "best"),
    [
        ({}, [(PASS, 0.5), (PASS, 0.4), (PASS, 0.45)], 3),
        ({}, [(PASS, 0.5), (TIME, 0.4), (PASS, 0.6)], 1),
        ({}, [(PASS, math.nan), (PASS, 0.4), (PASS, math.nan)], 3),
        ({}, [(PASS, math.nan)], None),
        ({"patience": None}, [(PASS, 0.5)], None),
        ({"eval_split": "test"}, [(PASS, 0.5)], None),
    ],
)
def test_the_best_weights_after_a_pass_come_with_the_end_where_they_are_kept(settings, measured, best) -> None:
    course = Course(**settings)
    for occasion, objective in measured:
        course.measured(occasion, objective)
    course.leader.finish()
    _, weights = course.reports[-1]
    last = 2 * len(measured)
    np.testing.assert_array_equal(weights[:, 0], [last] if best is None else [last, best])
