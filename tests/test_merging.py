"""The rules by which the workers' turns become one vector in lock step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mpisgd.merging import Exchange
from slow_twin import merged
from strategies import examples, ordinary, vectors

RULES = ["mean", "sum", "sqrt"]
Vector = NDArray[np.float32]


def after_round(rule: Any, shared: Vector, decays: list[float], changes: list[Vector], *, stop: bool = False) -> Vector:
    """Return the weights after the round in which the workers send these."""
    exchange = Exchange(len(shared), len(changes), rule)
    total = exchange.buffer()  # rank 0's
    exchange.shared(total)[0] = stop
    for k, (decay, change) in enumerate(zip(decays, changes, strict=True)):
        total += worker_buffer(exchange, k, change, decay)
    weights = shared.copy()
    exchange.merge(weights, total)
    assert exchange.stops(total) == stop
    assert exchange.rows(total) == sum(range(len(changes)))
    return weights


def worker_buffer(exchange: Exchange, k: int, changes: Vector, decay: float) -> Vector:
    """Return what worker k writes, having processed k rows."""
    mine = exchange.buffer()
    exchange.changes(mine)[:] = changes
    if exchange.rule == "sqrt":
        exchange.counts(mine)[:] = changes != 0
    exchange.shared(mine)[1] = np.log(decay)
    exchange.of_workers(mine)[k] = k, np.count_nonzero(changes), 0.001
    return mine


@st.composite
def rounds(draw: st.DrawFn) -> tuple[Vector, list[float], list[Vector]]:
    columns, workers = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    changes = [draw(vectors(columns, st.just(0.0) | ordinary)) for _ in range(workers)]
    decays = st.floats(0.5, 1) | st.just(1.0)
    return draw(vectors(columns, ordinary)), [draw(decays) for _ in range(workers)], changes


@pytest.mark.parametrize("rule", RULES)
@examples
@given(rounds())
def test_a_round_is_the_plain_loops(rule: str, case: tuple[Vector, list[float], list[Vector]]) -> None:
    shared, decays, changes = case
    plain = merged(rule, shared.astype(np.float64), decays, [d.astype(np.float64) for d in changes])
    np.testing.assert_allclose(after_round(rule, shared, decays, changes), plain, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("rule", RULES)
@examples
@given(rounds())
def test_one_worker_alone_is_the_serial_program(rule: str, case: tuple[Vector, list[float], list[Vector]]) -> None:
    shared, (decay, *_), (change, *_) = case
    np.testing.assert_allclose(
        after_round(rule, shared, [decay], [change]), decay * shared + change, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(
    ("rule", "decay", "gain"), [("mean", 0.81, 1.0), ("sum", 0.81**4, 4.0), ("sqrt", 0.81**2, 2.0)]
)
def test_four_identical_workers(rule: str, decay: float, gain: float) -> None:
    shared, change = np.array([1, -2, 3], np.float32), np.array([0.5, 0.25, -1], np.float32)
    found = after_round(rule, shared, [0.81] * 4, [change] * 4)
    np.testing.assert_allclose(found, decay * shared + gain * change, rtol=1e-5)


def test_sqrt_is_the_sum_where_one_worker_changed_a_weight() -> None:
    shared = np.array([1, 1, 1], np.float32)
    changes = [np.array(d, np.float32) for d in ([3, 1, 0], [0, 1, 0], [0, 1, 0], [0, 1, 0])]
    np.testing.assert_allclose(after_round("sqrt", shared, [1.0] * 4, changes), [1 + 3, 1 + 4 / 2, 1])


@examples
@given(rounds(), st.floats(0.5, 1))
def test_mean_is_the_mean_of_the_workers_weights(case: tuple[Vector, list[float], list[Vector]], decay: float) -> None:
    shared, _, changes = case
    own_weights = [decay * shared + change for change in changes]
    found = after_round("mean", shared, [decay] * len(changes), changes)
    np.testing.assert_allclose(found, np.mean(own_weights, axis=0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rule", RULES)
def test_where_penalty_and_losses_balance_no_rule_moves_the_weights(rule: str) -> None:
    """Where all workers together change just as much as they shrink, up to the square of the shrinking."""
    shared, shrinking = np.array([4, -2, 1], np.float32), 1e-3
    uneven = np.array([0.7, 0.2, 0.1])
    changes = [(3 * share * shrinking * shared).astype(np.float32) for share in uneven]
    found = after_round(rule, shared, [float(np.exp(-shrinking))] * 3, changes)
    np.testing.assert_allclose(found, shared, rtol=10 * (3 * shrinking) ** 2)
    assert not np.allclose(after_round(rule, shared, [1.0] * 3, changes), shared, rtol=10 * (3 * shrinking) ** 2)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("stop", [True, False])
def test_the_word_to_stop_changes_nothing_else(rule: str, stop: bool) -> None:
    shared, changes = np.array([1, 2], np.float32), [np.array([1, 0], np.float32)] * 2
    np.testing.assert_array_equal(
        after_round(rule, shared, [0.9, 0.9], changes, stop=stop), after_round(rule, shared, [0.9, 0.9], changes)
    )


@pytest.mark.parametrize("rule", RULES)
def test_the_parts_of_the_buffer_cover_it_and_do_not_overlap(rule: Any) -> None:
    exchange = Exchange(column_count=5, workers=3, rule=rule)
    buffer = exchange.buffer()
    parts = [exchange.changes(buffer), exchange.shared(buffer), exchange.of_workers(buffer)]
    if rule == "sqrt":
        parts.append(exchange.counts(buffer))
    for part in parts:
        np.add(part, 1, out=part)
    np.testing.assert_array_equal(buffer, 1)
    assert exchange.changes(buffer).shape == (5,)
    assert exchange.of_workers(buffer).shape == (3, 3)
