"""The average of the weights over a run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpisgd.averaging import Average, Latest, made_for
from mpisgd.config import Config
from mpisgd.job import Job
from mpisgd.svm import ScaledVector
from slow_twin import TwinAverage

JOB = Job(Config(bias=False), feature_count=2, learning_rows=800)


def averaged(points: list[list[float]], scale: float = 1.0) -> np.ndarray:
    average, weights = Average(JOB, np.zeros(2, np.float32)), ScaledVector(np.zeros(2, np.float32))
    for number, point in enumerate(points):
        weights = ScaledVector(np.array(point, np.float32) / np.float32(scale), scale)
        average.look(weights, rows=20 * (number + 1))
    return average.measured(weights).weights()


def test_a_point_that_is_stayed_at_is_the_average():
    np.testing.assert_allclose(averaged([[1, -2]] * 9), [1, -2], rtol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_late_points_count_more(scale: float):
    """The t-th of T points, equally many rows apart, has a share in proportion to t (t + 1) (t + 2)."""
    points = np.random.default_rng(0).normal(size=(12, 2))
    t = np.arange(1, 13)
    shares = t * (t + 1) * (t + 2)
    expected = shares @ points / shares.sum()
    np.testing.assert_allclose(averaged(points.tolist(), scale), expected, rtol=1e-5)


def test_how_many_early_points_there_were_makes_no_difference_to_a_late_one():
    """Weights are taken in after eight rows, or after two, four and eight: those after sixteen count the same."""
    few, many = Average(JOB, np.zeros(2, np.float32)), Average(JOB, np.zeros(2, np.float32))
    early, late = (ScaledVector(np.full(2, x, np.float32)) for x in (1, 5))
    for rows in (2, 4, 8):
        many.look(early, rows)
    few.look(early, rows=8)
    few.look(late, rows=16)
    many.look(late, rows=16)
    for average in (few, many):
        np.testing.assert_allclose(average.measured(late).weights(), 1 + 4 * 4 / 5, rtol=1e-6)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60), st.integers(0, 2**32 - 1))
def test_it_is_that_of_its_slow_twin_whatever_the_rows_in_between(steps: list[int], seed: int):
    average, twin = Average(JOB, np.zeros(2, np.float32)), TwinAverage(JOB.config, JOB.learning_rows)
    for rows, point in zip(np.cumsum(steps).tolist(), np.random.default_rng(seed).normal(size=(60, 2)), strict=False):
        average.look(ScaledVector(point.astype(np.float32)), rows)
        twin.look(point, rows)
    last = ScaledVector(point.astype(np.float32))
    np.testing.assert_allclose(average.measured(last).weights(), twin.final(point), rtol=1e-4, atol=1e-5)


def test_points_close_to_each_other_are_left_out():
    average, one, other = (
        Average(JOB, np.zeros(2, np.float32)),
        *(ScaledVector(np.full(2, x, np.float32)) for x in (1, 5)),
    )
    average.look(one, rows=100)
    average.look(other, rows=109)  # less than an 80th of a pass later
    np.testing.assert_array_equal(average.measured(other).weights(), [1, 1])
    average.look(other, rows=110)
    assert average.measured(other).weights()[0] > 1


def test_early_points_are_taken_in_when_there_have_been_twice_the_rows():
    average, one, other = (
        Average(JOB, np.zeros(2, np.float32)),
        *(ScaledVector(np.full(2, x, np.float32)) for x in (1, 5)),
    )
    average.look(one, rows=3)
    average.look(other, rows=5)
    np.testing.assert_array_equal(average.measured(other).weights(), [1, 1])
    average.look(other, rows=6)
    assert average.measured(other).weights()[0] > 1


def test_however_many_the_columns_points_are_taken_in_several_times_a_pass():
    job = Job(Config(), 3_000_000, 800)
    average, rows = Average(job, np.zeros(2, np.float32)), range(0, 801, 50)
    for done in rows:
        average.look(ScaledVector(np.full(2, done, np.float32)), done)
    assert average.measured(ScaledVector(np.zeros(2, np.float32))).weights()[0] > 400


def test_before_any_point_the_weights_stand_for_themselves():
    weights = ScaledVector(np.ones(2, np.float32), 0.5)
    np.testing.assert_array_equal(Average(JOB, np.zeros(2, np.float32)).measured(weights).weights(), [0.5, 0.5])


def test_without_averaging_the_last_weights_are_taken():
    latest = made_for(Job(Config(averaging=False), 2, 800), np.zeros(3, np.float32))
    assert isinstance(latest, Latest)
    weights = ScaledVector(np.ones(3, np.float32), 0.5)
    latest.look(weights, 0)
    np.testing.assert_array_equal(latest.measured(weights).weights(), np.full(3, 0.5))


@pytest.mark.parametrize("settings", [{}, {"averaging": False}])
def test_one_that_goes_on_from_anothers_vector_and_state_is_the_same(settings: Any):
    job, points = Job(Config(**settings), 2, 800), np.random.default_rng(1).normal(size=(12, 2)).astype(np.float32)
    alone, vector = made_for(job, np.zeros(2, np.float32)), np.zeros(2, np.float32)
    averaged_rows = made_for(job, vector).averaged_rows
    for number, point in enumerate(points):
        alone.look(ScaledVector(point), rows=7 * number)
        handed_on = made_for(job, vector)
        handed_on.averaged_rows = averaged_rows
        handed_on.look(ScaledVector(point), rows=7 * number)
        averaged_rows = handed_on.averaged_rows
    last = ScaledVector(points[-1])
    np.testing.assert_array_equal(handed_on.measured(last).vector, alone.measured(last).vector)
