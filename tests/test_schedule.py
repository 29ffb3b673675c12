"""Step sizes, and the reasons to stop."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from mpisgd.config import Config
from mpisgd.job import Job
from mpisgd.schedule import EvenSteps, Schedule, StopRule, decay


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


PASS, WITHIN = 100, 4  # rows, passes
FALLING = Schedule(learning_rate=0.5, decay=1.0, power=0.5, learning_rows=PASS)
INVERSE, CONSTANT = replace(FALLING, power=1.0), replace(FALLING, power=0.0)
Turns = list[tuple[int, int]]


def of_two(schedule: Schedule) -> list[EvenSteps]:
    return [EvenSteps(schedule, 1 / 2, WITHIN) for _ in range(2)]


def factor(steps: EvenSteps, rows: int, schedule: Schedule) -> float:
    """Return what the schedule's steps are multiplied by after so many rows, which the steps are counted by next."""
    return steps.after(rows).step_size(rows) / schedule.step_size(rows)


def taken(turns: Turns, schedule: Schedule) -> list[float]:
    """Return the sums of rows times factors, of two workers that take such turns one after the other."""
    both, rows, sums = of_two(schedule), 0, [0.0, 0.0]
    for both_turns in turns:
        for worker, own in enumerate(both_turns):
            if own:
                sums[worker] += factor(both[worker], rows, schedule) * own
                both[worker].count(own)
            rows += own
    return sums


@pytest.mark.parametrize("schedule", [FALLING, INVERSE])
@pytest.mark.parametrize(
    "turns",
    [
        [(1, 4)] * 10_000,
        [(4, 4)] * 200 + [(4, 0)] * 100 + [(1, 4)] * 10_000,  # one stands still, then the other is slower
        ([(10, 1)] * 500 + [(1, 10)] * 500) * 5,
        [(PASS // 2, PASS // 2), (PASS // 2, 0)] * 1_000,  # turns of a whole shard
    ],
)
def test_rows_count_the_same_whoever_takes_more(turns: Turns, schedule: Schedule) -> None:
    first, second = taken(turns, schedule)
    assert first == pytest.approx(second, rel=0.03)
    assert first + second == pytest.approx(sum(map(sum, turns)), rel=0.03)


def test_in_the_first_pass_it_makes_little_difference_who_is_ahead() -> None:
    ahead, behind = of_two(FALLING)
    ahead.count(40)
    assert factor(ahead, 60, FALLING) == pytest.approx(1, abs=0.06)
    assert factor(behind, 60, FALLING) == pytest.approx(1, abs=0.17)


def test_workers_alike_take_the_steps_of_the_schedule() -> None:
    assert taken([(1, 1)] * 1_000, FALLING) == pytest.approx([1_000, 1_000], rel=0.01)


def test_of_a_node_the_workers_count_together() -> None:
    """One worker, and a node of three, each of which has processed as much."""
    alone, node = (EvenSteps(FALLING, share, WITHIN) for share in (1 / 4, 3 / 4))
    for steps, rows in (alone, 50), (node, 150):
        steps.count(rows)
        assert steps.after(200) == FALLING


@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_who_is_far_behind_takes_no_step_larger_than_the_first_of_all(decay: float) -> None:
    schedule = Schedule(learning_rate=0.5, decay=decay, power=1.0, learning_rows=PASS)
    assert of_two(schedule)[0].after(30_000).step_size(30_000) == pytest.approx(0.5)


def test_who_slept_for_long_makes_up_for_some_of_it_within_passes_and_then_is_one_of_all() -> None:
    """Not for all of it in a few rows, with steps from the beginning of the run."""
    sleeper, _ = of_two(INVERSE)
    rows, factors = 100_000, []
    for _ in range(1_000):
        factors.append(factor(sleeper, rows, INVERSE))
        sleeper.count(5)
        rows += 10
    assert max(factors) == pytest.approx(8)
    assert sum(factors[:50]) > 50 * 2  # of five passes
    assert min(factors) == pytest.approx(1, abs=0.05)


def test_what_cannot_be_made_up_for_is_forgotten() -> None:
    """With a constant schedule no step may be larger: who was slow, and is the faster now, soon goes slower."""
    steps, _ = of_two(CONSTANT)
    assert factor(steps, 100_000, CONSTANT) == 1
    steps.count(200)
    assert factor(steps, 100_200, CONSTANT) == pytest.approx(math.exp(-0.5))


def test_where_nothing_is_evened_the_steps_are_the_schedules() -> None:
    steps = EvenSteps(FALLING, 1 / 2, math.inf)
    steps.count(1_000)
    assert steps.after(1_000) == FALLING


def test_steps_that_fell_to_nothing_stay_there() -> None:
    schedule = Schedule(learning_rate=0.5, decay=1e308, power=1.0, learning_rows=PASS)
    assert of_two(schedule)[0].after(10**9).step_size(10**9) == 0


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
