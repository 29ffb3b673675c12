"""Step sizes, and the reasons to stop."""

from __future__ import annotations

import math
from typing import Any

import pytest

from mpisgd.config import Config
from mpisgd.job import Job
from mpisgd.schedule import Evening, Schedule, StopRule, decay


@pytest.mark.parametrize(
    ("schedule", "decay", "passes", "expected"),
    [
        ("constant", 2.0, 0.0, 0.6),
        ("constant", 2.0, 100.0, 0.6),
        ("inverse", 2.0, 0.0, 0.6),
        ("inverse", 2.0, 0.5, 0.3),
        ("inverse", 2.0, 1.0, 0.2),
        ("inverse", 0.0, 100.0, 0.6),
        ("inverse_sqrt", 1.0, 0.0, 0.6),
        ("inverse_sqrt", 1.0, 3.0, 0.3),
        ("inverse_sqrt", 4.0, 2.0, 0.2),
    ],
)
def test_step_sizes(schedule: Any, decay: float, passes: float, expected: float) -> None:
    config = Config(learning_rate_schedule=schedule, learning_rate_decay=decay, regularization=0.1)
    steps = Job(config, 3, learning_rows=200).schedule(0.6)
    assert steps.step_size(int(200 * passes)) == pytest.approx(expected)


def rule(**settings: Any) -> StopRule:
    return StopRule(Config(**{"passes": None, "patience": None, **settings}))


PASS = 100  # rows
FALLING = Schedule(learning_rate=0.5, decay=1.0, power=0.5, learning_rows=PASS)


def taken(speeds: list[tuple[int, int]], schedule: Schedule = FALLING) -> list[float]:
    """Return the sums of rows times what their steps are multiplied by, of two workers that take such turns in turn."""
    both, rows, sums = [Evening(schedule, share=1 / 2, slowness=4 * PASS) for _ in range(2)], 0, [0.0, 0.0]
    for turns in speeds:
        for worker, own in enumerate(turns):
            factor = both[worker].steps(rows).step_size(rows) / schedule.step_size(rows)
            both[worker].count(own)
            rows += own
            sums[worker] += factor * own
    return sums


@pytest.mark.parametrize(
    "speeds",
    [
        [(1, 4)] * 10_000,
        [(4, 0)] * 2_000 + [(1, 4)] * 10_000,  # one stood still, then the other is slower
        [(10, 1), (10, 3), (1, 10)] * 4_000,
    ],
)
def test_rows_count_the_same_whoever_takes_more(speeds: list[tuple[int, int]]) -> None:
    first, second = taken(speeds)
    assert first == pytest.approx(second, rel=0.03)
    assert first + second == pytest.approx(sum(map(sum, speeds)), rel=0.03)


def test_in_the_first_pass_it_makes_little_difference_who_is_ahead() -> None:
    ahead, behind = (Evening(FALLING, share=1 / 2, slowness=4 * PASS) for _ in range(2))
    ahead.steps(0)
    ahead.count(40)
    assert ahead.steps(60).step_size(60) == pytest.approx(FALLING.step_size(60), rel=0.06)
    assert behind.steps(60).step_size(60) == pytest.approx(FALLING.step_size(60), rel=0.17)


def test_workers_alike_take_the_steps_of_the_schedule() -> None:
    sums = taken([(1, 1)] * 1_000)
    assert sums == pytest.approx([1_000, 1_000], rel=0.01)


def test_of_a_node_the_workers_count_together() -> None:
    """One worker, and a node of three, each of which has processed as much."""
    alone, node = (Evening(FALLING, share, slowness=4 * PASS) for share in (1 / 4, 3 / 4))
    for evening, rows in (alone, 50), (node, 150):
        evening.steps(0)
        evening.count(rows)
        assert evening.steps(200) == FALLING


@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_who_is_far_behind_takes_no_step_larger_than_the_first_of_all(decay: float) -> None:
    schedule = Schedule(learning_rate=0.5, decay=decay, power=0.5, learning_rows=PASS)
    assert Evening(schedule, 1 / 100, 4 * PASS).steps(100_000).step_size(100_000) == pytest.approx(0.5)


def test_where_nothing_is_evened_the_steps_are_the_schedules() -> None:
    evening = Evening(FALLING, share=1 / 2, slowness=math.inf)
    evening.steps(0)
    evening.count(1_000)
    assert evening.steps(1_000) == FALLING


def test_steps_that_fell_to_nothing_stay_there() -> None:
    schedule = Schedule(learning_rate=0.5, decay=1e308, power=1.0, learning_rows=PASS)
    assert Evening(schedule, 1 / 2, 4 * PASS).steps(10_000).step_size(10_000) == 0


def test_passes_and_seconds_stop_once_they_are_reached() -> None:
    limits = rule(passes=2.0, max_seconds=10.0)
    assert limits.after_update(1.99, 9.99) is None
    assert limits.after_update(2.0, 0.0) == "passes"
    assert limits.after_update(0.0, 10.0) == "max_seconds"
    assert rule().after_update(1e9, 1e9) is None


@pytest.mark.parametrize("at_pass_end", [True, False])
def test_target_and_divergence_stop_on_every_measurement(at_pass_end: bool) -> None:
    target = rule(target_accuracy=0.9)
    assert target.after_measurement(0.89, 1.0, 1, at_pass_end=at_pass_end) is None
    assert target.after_measurement(0.9, 1.0, 1, at_pass_end=at_pass_end) == "target_accuracy"
    for objective in (math.inf, math.nan):
        assert target.after_measurement(1.0, objective, 1, at_pass_end=at_pass_end) == "diverged"


def reasons(objectives: list[float], **settings: Any) -> list[str | None]:
    """Return what a rule says to these objectives after one pass, two passes, and so on."""
    patient = rule(**settings)
    return [
        patient.after_measurement(0.5, objective, passes, at_pass_end=True)
        for passes, objective in enumerate(objectives, start=1)
    ]


def test_patience_counts_the_passes_since_the_best_objective() -> None:
    assert reasons([1, 0.5, 0.6, 0.5, 0.55], patience=3) == [None, None, None, None, "no_improvement"]
    assert reasons([1, 0.5, 0.6, 0.5, 0.4, 0.5], patience=3) == [None] * 6
    assert reasons([1, 1], patience=1) == [None, "no_improvement"]
    assert reasons([1] * 50) == [None] * 50


def test_a_fall_smaller_than_the_tolerance_is_no_improvement() -> None:
    assert reasons([1, 0.95, 0.89], patience=1, tolerance=0.1) == [None, "no_improvement", None]
    # many small steps down add up: they are compared with the best that counted, not with the one before
    assert reasons([1, 0.95, 0.89], patience=2, tolerance=0.1) == [None, None, None]
    assert reasons([1, 0.95, 0.91], patience=2, tolerance=0.1) == [None, None, "no_improvement"]


def test_measurements_between_passes_do_not_touch_patience() -> None:
    patient = rule(patience=1)
    assert patient.after_measurement(0.5, 1.0, 1.0, at_pass_end=True) is None
    assert patient.after_measurement(0.5, 0.1, 1.5, at_pass_end=False) is None  # better, but by the clock
    assert patient.after_measurement(0.5, 9.0, 1.9, at_pass_end=False) is None  # worse, but by the clock
    assert patient.after_measurement(0.5, 0.9, 2.0, at_pass_end=True) is None  # better than 1.0
    assert patient.after_measurement(0.5, 0.9, 3.0, at_pass_end=True) == "no_improvement"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"learning_rate_decay": 3.0}, 3.0),
        ({}, 0.5),
        ({"patience": None, "regularization": 1e-5}, 0.5 * 1e-5 * 20_000),
        ({"patience": None, "regularization": 1.0}, 0.5),
        ({"patience": None, "regularization": 0.0}, 0.05),
    ],
)
def test_the_step_size_falls_as_what_ends_the_run_wants(settings: dict[str, Any], expected: float) -> None:
    assert decay(Config(**settings), learning_rate=0.5, rows=20_000) == pytest.approx(expected)
