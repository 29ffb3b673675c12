"""The rules by which the workers' turns become one vector in lock step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mpisgd.merging import Exchange, buffer_length
from slow_twin import merged
from strategies import examples, ordinary, vectors

RULES = ["mean", "sum", "damped"]
STEP_SIZE = 0.5
Vector = NDArray[np.float32]


def after_round(
    rule: Any, shared: Vector, decays: list[float], changes: list[Vector], *, curved: Any = None, stop: bool = False
) -> Vector:
    """Return the weights after a round in which the workers, having processed 0, 1, 2 ... rows, send these."""
    workers = len(decays)
    curvatures = np.ones(len(shared), np.float32) if curved is None else np.array(curved, np.float32)
    exchanges = [Exchange(workers, rule, curvatures) for _ in range(workers)]
    weights = [shared.copy() for _ in range(workers)]
    sums = [
        add(exchange, k, *given, stop=stop)
        for k, (exchange, *given) in enumerate(zip(exchanges, decays, changes, strict=True))
    ]
    whole = sum(mine.copy() for mine, _ in sums)
    for (_, total), exchange, w in zip(sums, exchanges, weights, strict=True):
        total[:] = whole
        exchange.take_sum()
        exchange.merge(w, STEP_SIZE)
        assert exchange.stops == stop
        assert exchange.turns[:, 0].tolist() == list(range(workers))
        assert exchange.turns[:, 1].tolist() == [np.count_nonzero(change) for change in changes]
        np.testing.assert_allclose(exchange.turns[:, 2:], [[len(w), 0.001, 0.002]] * workers, rtol=1e-6)
    for w in weights[1:]:
        np.testing.assert_array_equal(w, weights[0])
    return weights[0]


def add(exchange: Exchange, k: int, decay: float, changes: Vector, *, stop: bool) -> tuple[Vector, Vector]:
    """Return what worker k, counted from 0, adds to the sum, having processed k rows, and where the sum goes."""
    exchange.changes[:] = changes
    exchange.fill_slots(
        k + 1,
        rows=k,
        changes_sent=np.count_nonzero(changes),
        changes=len(changes),
        round_trip=0.001,
        computing=0.002,
        log_decay=np.log(decay),
        stop=stop and k == 0,
    )
    return exchange.mine, exchange.total


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
    exact = [d.astype(np.float64) for d in changes]
    curved = np.linspace(0, 3, len(shared)).tolist()
    size = STEP_SIZE * (len(changes) - 1) / 2  # rows: 0, 1, 2 ... of the workers
    plain = merged(rule, shared.astype(np.float64), decays, exact, curved, size)
    np.testing.assert_allclose(after_round(rule, shared, decays, changes, curved=curved), plain, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("rule", RULES)
@examples
@given(rounds())
def test_one_worker_alone_is_the_serial_program(rule: str, case: tuple[Vector, list[float], list[Vector]]) -> None:
    shared, (decay, *_), (change, *_) = case
    np.testing.assert_allclose(
        after_round(rule, shared, [decay], [change]), decay * shared + change, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(("rule", "turns"), [("mean", 1), ("sum", 4)])
def test_four_identical_workers(rule: str, turns: int) -> None:
    shared, change = np.array([1, -2, 3], np.float32), np.array([0.5, 0.25, -1], np.float32)
    found = after_round(rule, shared, [0.81] * 4, [change] * 4)
    np.testing.assert_allclose(found, 0.81**turns * shared + turns * change, rtol=1e-5)


@pytest.mark.parametrize("curvature", [0.0, 1e-3, 0.3, 40.0, 1e6])
def test_damped_turns_go_as_far_as_one_proximal_step_on_all_their_rows(curvature: float) -> None:
    """On a parabola, of which every worker has the same."""
    start, target, rows, workers = 5.0, 2.0, 2.0, 5  # the mean of 0, 1, 2, 3 and 4 rows
    size = STEP_SIZE * rows * curvature
    change = np.array([(target - start) * size / (1 + size)], np.float32)
    found = after_round(
        "damped", np.array([start], np.float32), [1.0] * workers, [change] * workers, curved=[curvature]
    )
    assert found[0] == pytest.approx(start + (target - start) * workers * size / (1 + workers * size), rel=1e-5)


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
@examples
@given(rounds(), st.integers(0, 5))
def test_parts_added_up_and_merged_by_several_are_the_whole(
    rule: Any, case: tuple[Vector, list[float], list[Vector]], cut: int
) -> None:
    """Every part by an exchange of its own, over one total, as on one node; to the bits of one that has it all."""
    shared, decays, changes = case
    workers, columns = len(decays), len(shared)
    length = buffer_length(columns, workers)
    buffers, total = np.zeros((workers, length), np.float32), np.zeros(length, np.float32)
    curvatures = np.linspace(0, 3, columns, dtype=np.float32)
    for k, given_ in enumerate(zip(decays, changes, strict=True)):
        add(Exchange(workers, rule, curvatures, mine=buffers[k]), k, *given_, stop=False)
    whole, weights = shared.copy(), shared.copy()
    one = Exchange(workers, rule, curvatures)
    one.add_up(buffers, slice(0, columns))
    one.merge(whole, STEP_SIZE)
    for part in (slice(0, cut), slice(cut, columns)):
        of_part = Exchange(workers, rule, curvatures, mine=buffers[0], total=total)
        of_part.add_up(buffers, part)
        of_part.merge(weights, STEP_SIZE, part)
    np.testing.assert_array_equal(weights, whole)
    assert of_part.merge_weight == one.merge_weight
    np.testing.assert_array_equal(of_part.turns, one.turns)
    np.testing.assert_allclose(
        whole, after_round(rule, shared, decays, changes, curved=curvatures), rtol=1e-5, atol=1e-4
    )
