"""The arithmetic of learning: losses and their slopes, the mini-batch step, and where many steps lead."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize

from both_ways import Loops, either_way
from mpisgd.config import Config
from mpisgd.job import Job
from mpisgd.learner import Learner
from mpisgd.preprocessing import Preprocessing
from mpisgd.shard import LearningShard, Shard
from mpisgd.sparse_rows import SparseRows
from mpisgd.svm import LOSSES, Objective, ScaledVector, predicted_labels
from slow_twin import dense, loss_slope, loss_value, moved_in, step
from strategies import examples, losses, shards, vectors

BIAS_STEP = 0.01


def objective(config: Config) -> Objective:
    return Job(config, feature_count=1, learning_rows=1, bias_step=BIAS_STEP).objective


def squared_norms(shard: Shard) -> NDArray[np.float32]:
    return shard.rows.squared_norms().astype(np.float32)


# --- losses


NO_SIZE = np.zeros(1, np.float32)


@pytest.mark.parametrize("name", LOSSES)
def test_the_step_of_a_small_row_is_the_falling_of_the_value(name: str) -> None:
    loss = LOSSES[name]
    margins = np.setdiff1d(np.linspace(-8, 8, 321), [1.0])  # the hinge has a kink at 1
    h = 1e-5
    fall: Any = (loss.value(margins - h) - loss.value(margins + h)) / (2 * h)
    np.testing.assert_allclose(loss.bounded_step(margins, np.zeros_like(margins)), fall, atol=1e-5)


@pytest.mark.parametrize("size", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("name", ["hinge", "squared_hinge"])
def test_the_step_leads_to_the_proximal_point(name: str, size: float) -> None:
    """Moving by t y x raises the margin by t ||x||^2: of u l(m + t s) + t^2 s / 2, with eta = u = 1, t is the least."""
    loss, margins = LOSSES[name], np.linspace(-3, 3, 61)
    found = np.array([loss.bounded_step(np.array([m]), np.array([size]))[0] for m in margins])

    def value(t: NDArray[np.float64]) -> NDArray[np.float64]:
        return loss.value(margins + t * size) + t**2 * size / 2

    for other in (-1e-3, 1e-3):
        assert (value(found) <= value(found + other) + 1e-9).all()


@pytest.mark.parametrize("size", [0.01, 1.0, 30.0, 1e6])
def test_a_logistic_step_stays_short_of_the_proximal_point(size: float) -> None:
    margins = np.linspace(-6, 6, 61)
    found = LOSSES["logistic"].bounded_step(margins, np.full_like(margins, size))
    slope_there = 1 / (1 + np.exp(margins + found * size))
    assert (found > 0).all()
    assert (found <= slope_there + 1e-9).all()  # at the proximal point t is the slope there


@pytest.mark.parametrize(
    ("name", "values"),
    [("hinge", [3, 1, 0, 0]), ("squared_hinge", [9, 1, 0, 0]), ("logistic", [2.126928, np.log(2), 0.313262, 0.126928])],
)
def test_values_of_known_margins(name: str, values: list[float]) -> None:
    margins = np.array([-2, 0, 1, 2], np.float32)
    np.testing.assert_allclose(LOSSES[name].value(margins), values, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "values"),
    [("hinge", [10001, 101, 0, 0]), ("squared_hinge", [10001**2, 101**2, 0, 0]), ("logistic", [1e4, 100, 0, 0])],
)
def test_margins_of_any_size_neither_overflow_nor_leave_float32(name: Any, values: list[float]) -> None:
    margins = np.array([-1e4, -100, 100, 1e4], np.float32)
    with np.errstate(all="raise", under="ignore"):
        value, slope = LOSSES[name].value(margins), LOSSES[name].bounded_step(margins, NO_SIZE)
    assert value.dtype == slope.dtype == np.float32
    np.testing.assert_allclose(value, values, rtol=1e-6, atol=1e-30)
    far = [20002, 202, 0, 0] if name == "squared_hinge" else [1, 1, 0, 0]
    np.testing.assert_allclose(slope, far, rtol=1e-6, atol=1e-30)


def test_a_margin_of_zero_is_predicted_negative() -> None:
    np.testing.assert_array_equal(predicted_labels(np.array([-2, 0, 0.5], np.float32)), [-1, -1, 1])


# --- one step


@st.composite
def steps(draw: st.DrawFn) -> tuple[Config, ScaledVector, Shard, int, int, float]:
    config = Config(
        loss=draw(losses), bias=draw(st.booleans()), regularization=draw(st.sampled_from([0.0, 1e-5, 0.1, 1.0]))
    )
    shard = draw(shards(min_rows=1))
    if config.bias:  # a column of ones, or a row's size may be 0 without it
        shard = Shard(Preprocessing(bias=True, normalize=False).apply(shard.rows), shard.labels)
    start = draw(st.integers(0, len(shard.rows) - 1))
    stop = draw(st.integers(start + 1, len(shard.rows)))
    # with dyadic weights and scale the margins are exact, so that both know alike whether one is at the kink
    weights = ScaledVector(draw(vectors(shard.rows.column_count)), draw(st.sampled_from([1.0, 0.5, 0.125])))
    return config, weights, shard, start, stop, draw(st.floats(1e-3, 10))


@either_way
@examples
@given(steps())
def test_a_step_is_the_twins(loops: Loops, case: tuple[Config, ScaledVector, Shard, int, int, float]) -> None:
    config, weights, shard, start, stop, eta = case
    before = weights.vector.astype(np.float64) * weights.scale
    with loops():
        taken = objective(config).minibatch_steps(
            weights, shard.rows, shard.labels, squared_norms(shard), start, stop, stop - start, eta
        )
    batch, labels = dense(shard.rows)[start:stop], shard.labels[start:stop].astype(np.float64)
    assert taken.reached == stop
    margins = labels * (batch @ before)
    near = 1e-4 * (1 + np.abs(batch) @ np.abs(before))  # where the margin in float32 may be
    assert sum(loss_slope(config.loss, m) > 1e-6 for m in margins + near) <= taken.moved
    assert taken.moved <= moved_in(config.loss, margins - near)
    expected = step(config, before, batch, labels, eta, BIAS_STEP)
    largest = np.abs(before).max() + eta * np.abs(batch).sum() * (1 + np.abs(batch @ before).max())
    np.testing.assert_allclose(weights.weights(), expected, rtol=1e-5, atol=1e-6 * largest)


@either_way
@examples
@given(steps())
def test_a_step_leaves_the_columns_its_rows_lack_as_they_are(
    loops: Loops, case: tuple[Config, ScaledVector, Shard, int, int, float]
) -> None:
    config, weights, shard, start, stop, eta = case
    before = weights.vector.copy()
    with loops():
        objective(config).minibatch_steps(weights, shard.rows, shard.labels, squared_norms(shard), start, stop, 2, eta)
    occurring = shard.rows.part(start, stop).compact().columns
    bias = [len(before) - 1] if config.bias else []  # every row has it
    lacking = np.setdiff1d(np.arange(len(before)), [*occurring, *bias])
    np.testing.assert_array_equal(weights.vector[lacking], before[lacking])


@either_way
@examples
@given(steps(), st.integers(1, 4))
def test_steps_one_after_the_other_are_single_ones(
    loops: Loops, case: tuple[Config, ScaledVector, Shard, int, int, float], batch_size: int
) -> None:
    config, together, shard, start, stop, eta = case
    apart = ScaledVector(together.vector.copy(), together.scale)
    given = shard.rows, shard.labels, squared_norms(shard)
    with loops():
        made = objective(config)
        made.minibatch_steps(together, *given, start, stop, batch_size, eta)
        for first in range(start, stop, batch_size):
            made.minibatch_steps(apart, *given, first, min(first + batch_size, stop), batch_size, eta)
    np.testing.assert_array_equal(together.vector, apart.vector)
    assert together.scale == apart.scale


@either_way
def test_steps_end_once_the_scale_is_small(loops: Loops) -> None:
    shard, config = problem(rows=42, columns=5), Config(regularization=1.0)
    weights = ScaledVector(np.ones(5, np.float32))
    with loops():
        made = objective(config)
        given = shard.rows, shard.labels, squared_norms(shard)
        taken = made.minibatch_steps(weights, *given, 0, 42, 1, 1.0, smallest_scale=2.0**-9.5)
    assert taken.reached == 10  # each of these steps halves the scale
    assert weights.scale == 2.0**-10


# --- many steps


def problem(rows: int, columns: int) -> Shard:
    """Return rows that no plane separates, in CSR form; the last column is all ones."""
    rng = np.random.default_rng(7)
    X = rng.normal(size=(rows, columns)).astype(np.float32)
    X[:, -1] = 1
    X[rng.random(X.shape) < 0.3] = 0
    X[:, -1] = 1
    labels = np.where(X @ np.linspace(-1, 1, columns) + rng.normal(size=rows) > 0, 1, -1).astype(np.float32)
    where = np.nonzero(X)
    pointers = np.searchsorted(where[0], np.arange(rows + 1)).astype(np.int32)
    return Shard(SparseRows(X[where], where[1].astype(np.int32), pointers, columns), labels)


def value_and_gradient(w: NDArray[np.float64], config: Config, shard: Shard) -> tuple[float, NDArray[np.float64]]:
    """Return F(w) = lambda/2 ||w||^2 + mean loss and, of the smooth losses, its gradient, from the formulas."""
    X, y = dense(shard.rows), shard.labels.astype(np.float64)
    m = y * (X @ w)
    mean_loss = np.mean([loss_value(config.loss, margin) for margin in m])
    fall = {"logistic": 1 / (1 + np.exp(m)), "squared_hinge": 2 * np.maximum(0, 1 - m), "hinge": 1.0 * (m < 1)}
    gradient = config.regularization * w - X.T @ (fall[config.loss] * y) / len(y)
    return 0.5 * config.regularization * float(w @ w) + float(mean_loss), gradient


def learnt(config: Config, shard: Shard, passes: int) -> NDArray[np.float64]:
    """Return the weights after many steps that grow smaller, rows in a new order each pass."""
    rng = np.random.default_rng(1)
    weights, made = ScaledVector(np.zeros(shard.rows.column_count, np.float32)), objective(config)
    for done in range(passes):
        now = shard.shuffled(rng)
        for start in range(0, len(now.rows), 4):
            stop = min(start + 4, len(now.rows))
            given = now.rows, now.labels, squared_norms(now)
            made.minibatch_steps(weights, *given, start, stop, 4, 0.3 / (1 + 0.1 * done))
        weights = ScaledVector(weights.weights())
    return weights.weights().astype(np.float64)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_many_steps_lead_to_the_optimum(name: Any, bias: bool) -> None:
    """A bias that learns a hundred times slower gets there later, but to the same place."""
    config = Config(loss=name, bias=bias, regularization=0.1)
    shard = problem(rows=42, columns=5)
    found, gradient = value_and_gradient(learnt(config, shard, passes=400), config, shard)
    optimum = minimize(lambda v: value_and_gradient(v, config, shard)[0], np.zeros(5), method="Powell", tol=1e-10)
    assert found <= optimum.fun + 5e-3
    if name != "hinge":
        assert np.linalg.norm(gradient) < 0.06


def test_objective_and_penalty_are_those_of_the_formula() -> None:
    shard = problem(rows=42, columns=5)
    config = Config(loss="squared_hinge", regularization=0.3)
    weights = ScaledVector(np.array([1, -2, 0.5, 0, 3], np.float32), 0.25)
    made = objective(config)
    margins = shard.rows.margins(weights.weights(), 0, 42)
    found = made.penalty(weights) + float(made.losses(margins, shard.labels).mean())
    assert found == pytest.approx(value_and_gradient(weights.weights().astype(np.float64), config, shard)[0], rel=1e-6)


class OneShard:
    """What a learner asks of its shards where there is just one."""

    renews = False


@pytest.mark.parametrize("batch_size", [1, 4, 42, 100])
@pytest.mark.parametrize("iterations", [1, 3, 50])
@pytest.mark.parametrize("first", [None, 2])
def test_a_learner_knows_the_rows_of_its_next_turn(batch_size: int, iterations: int, first: int | None) -> None:
    config = Config(bias=False, regularization=0.0, batch_size=batch_size, iterations=iterations)
    job = Job(config, 5, 42, first_iterations=first)
    shuffled = LearningShard.shuffled_from(problem(rows=42, columns=5), np.random.default_rng(0))
    learner, weights = Learner(job, shuffled, OneShard()), ScaledVector(np.zeros(5, np.float32))
    for _ in range(20):
        expected = learner.rows_of_turn
        assert learner.turn(weights, 0.1).processed == expected


@pytest.mark.parametrize("iterations", [10, 1000])
@pytest.mark.parametrize("eta", [1.0, 1e2, 1e4, 1e6])
@pytest.mark.parametrize("name", ["hinge", "logistic"])
def test_turns_of_absurd_step_sizes_leave_finite_weights(name: Any, eta: float, iterations: int) -> None:
    """The penalty is an implicit step: whatever the step size, it shrinks the weights and never flips them.

    A step on a loss whose slope is at most 1 moves them by eta sum ||x|| at most. (The squared hinge's slope
    grows with the weights: that one may diverge.)
    """
    config = Config(loss=name, bias=False, regularization=1.0, batch_size=4, iterations=iterations)
    shard = problem(rows=42, columns=5)
    shuffled = LearningShard.shuffled_from(shard, np.random.default_rng(0))
    learner = Learner(Job(config, 5, 42), shuffled, OneShard())
    weights = ScaledVector(np.zeros(5, np.float32))
    for _ in range(4):
        assert 1 <= learner.turn(weights, eta).processed <= 4 * iterations
        weights = ScaledVector(weights.weights())
        assert np.isfinite(weights.vector).all()
        assert np.abs(weights.vector).max() <= 2 * eta * np.abs(dense(shard.rows)).sum()
