"""The asynchronous exchange, its two ends in one process and every order in which its messages may come."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import mpisgd.weights
from exchange import (
    COLUMNS,
    TURN_SIZE,
    Action,
    Exchange,
    actions,
    assert_every_change_counted_once,
    assert_same_bits_once_settled,
    assert_who_changes_nothing_sends_nothing,
    at,
    curvatures,
    no_decay,
    pairs,
    run,
    some_decay,
)
from mpisgd.exchange_loops import PAIR
from mpisgd.updates import ReplyHeader, ReplyRoom, UpdateRoom
from mpisgd.weights import STALE_TURNS, ServerWeights, WorkerWeights
from strategies import eighths, examples, ordinary, vectors

# --- what a worker has is what the server has


@examples
@given(actions(ordinary, no_decay), vectors(COLUMNS, ordinary), st.booleans())
def test_a_worker_up_to_date_has_the_servers_bits(
    plan: list[Action], initial: NDArray[np.float32], curved: bool
) -> None:
    assert_same_bits_once_settled(Exchange(3, initial=initial, curved=curved), plan)


@examples
@given(actions(ordinary, some_decay), vectors(COLUMNS, ordinary), st.booleans())
def test_the_same_with_decay_and_folding(plan: list[Action], initial: NDArray[np.float32], curved: bool) -> None:
    with mock.patch.object(mpisgd.weights, "SMALLEST_SCALE", 0.5):
        exchange = Exchange(3, initial=initial, curved=curved)
        assert_same_bits_once_settled(exchange, plan)
        assert exchange.server.current.scale >= 0.5


@examples
@given(actions(ordinary, no_decay))
def test_a_worker_that_has_changed_nothing_sends_nothing(plan: list[Action]) -> None:
    assert_who_changes_nothing_sends_nothing(Exchange(3), plan)


# --- nothing is lost, nothing counted twice


@examples
@given(actions(eighths, no_decay), vectors(COLUMNS), st.sampled_from([0.0, 0.25, 2.0]))
def test_the_server_gets_every_change_once(plan: list[Action], initial: NDArray[np.float32], threshold: float) -> None:
    exchange = Exchange(3, threshold, initial)
    run(exchange, plan)
    assert_every_change_counted_once(exchange)


@examples
@given(vectors(COLUMNS, st.just(0.0) | eighths), st.sampled_from([0.25, 2.0]), st.sampled_from([1.0, 0.5]))
def test_what_is_sent_is_above_the_threshold_and_the_rest_below(
    changes: NDArray[np.float32], threshold: float, decay: float
) -> None:
    exchange = Exchange(1, threshold)
    exchange.take_step(0, changes, decay)
    exchange.send(0)
    np.testing.assert_array_equal(exchange.workers[0].sent, np.where(np.abs(changes) > threshold, changes, 0))


def test_withheld_changes_add_up_until_they_are_sent() -> None:
    exchange = Exchange(1, threshold=1.0)
    for turn in range(3):
        exchange.take_step(0, np.array([0.5, 0, 0, 0, 0, 0], np.float32))
        exchange.exchange(0)
        assert exchange.server.current.vector[0] == (1.5 if turn == 2 else 0.0)


# --- one worker alone


@examples
@given(
    st.lists(st.tuples(vectors(COLUMNS, st.just(0.0) | ordinary), st.floats(0.5, 1.0)), min_size=1, max_size=12),
    st.sampled_from([1e-6, 0.5]),
    st.booleans(),
)
def test_with_one_worker_the_servers_weights_are_the_workers(
    turns: list[tuple[NDArray[np.float32], float]], smallest_scale: float, curved: bool
) -> None:
    """They are those of the plain sum w <- a w + d as well, whatever the rule: no update of its is ever stale."""
    with mock.patch.object(mpisgd.weights, "SMALLEST_SCALE", smallest_scale):
        exchange = Exchange(1, curved=curved)
        expected = np.zeros(COLUMNS)
        for changes, decay in turns:
            exchange.take_step(0, changes, decay)
            alone = exchange.workers[0].weights.local.weights()
            expected = decay * expected + changes
            exchange.exchange(0)
            np.testing.assert_allclose(exchange.server.current.weights(), alone, rtol=1e-5, atol=1e-4)
            np.testing.assert_allclose(exchange.server.current.weights(), expected, rtol=1e-5, atol=1e-4)


# --- stale updates are damped


def test_only_stale_updates_are_damped_and_those_of_curved_weights_the_most() -> None:
    server = ServerWeights(np.zeros(3, np.float32), np.array([0, 1, 4], np.float32))
    server.add(at([0, 1]), np.array([1, 1], np.float32), 1.0, staleness=0, size=TURN_SIZE)
    np.testing.assert_array_equal(server.current.weights(), [1, 1, 0])
    server.add(at([0, 1, 2]), np.array([1, 1, 1], np.float32), 1.0, staleness=2, size=TURN_SIZE)
    np.testing.assert_allclose(server.current.weights(), [2, 1 + 1.5 / 3.5, 3 / 11], rtol=1e-6)


@examples
@given(
    st.lists(st.tuples(vectors(COLUMNS, st.just(0.0) | ordinary), st.integers(0, 3)), min_size=1, max_size=6),
    st.booleans(),
    st.sampled_from([1.0, 0.75]),
)
def test_a_change_counts_the_same_in_every_form_of_message(
    updates: list[tuple[NDArray[np.float32], int]], curved: bool, decay: float
) -> None:
    whole, sparse, by_keys, sparse_by_keys = (
        ServerWeights(np.ones(COLUMNS, np.float32), curvatures(curved)) for _ in range(4)
    )
    for changes, staleness in updates:
        named = at(np.flatnonzero(changes))
        few = pairs(named, changes[named])
        how = decay, staleness, TURN_SIZE
        keys = at(range(COLUMNS))[::-1].copy()
        changed, gains = whole.add(None, changes, *how)
        assert changed == len(named)
        assert changed / (1 + STALE_TURNS * staleness) - 1e-6 <= gains <= changed
        for found in (
            sparse.add(None, few, *how),
            by_keys.add(named, changes[named], *how),
            sparse_by_keys.add(keys, pairs(COLUMNS - 1 - named, changes[named]), *how),
        ):
            assert found == (changed, pytest.approx(gains))
    for other in (sparse, by_keys, sparse_by_keys):
        np.testing.assert_allclose(whole.current.weights(), other.current.weights(), rtol=1e-6, atol=1e-6)


def test_several_turns_of_a_node_are_as_a_long_one_with_fewer_of_others_for_each() -> None:
    servers = [ServerWeights(np.zeros(3, np.float32), np.array([0, 1, 4], np.float32)) for _ in range(2)]
    changes = np.array([1, 1, 1], np.float32)
    servers[0].add(None, changes, 0.5, 1, TURN_SIZE)
    servers[1].add(None, changes, 0.5, 6, TURN_SIZE, of_node=3)  # 1 + 6 / 3 turns of a round, 1 + 2 x 1 there
    np.testing.assert_array_equal(servers[0].current.weights(), servers[1].current.weights())
    assert [(server.version, server.updates) for server in servers] == [(1, 1), (3, 1)]


@pytest.mark.parametrize("decay", [0.9, 0.1, 1e-4])
def test_a_weight_that_every_update_changes_goes_by_its_gain_towards_where_the_turn_took_it(decay: float) -> None:
    """However much of it the penalty took."""
    w = np.array([4, -2], np.float32)
    server = ServerWeights(w, np.array([1, 4], np.float32))
    gains = np.array([1.5 / 3.5, 3 / 11])
    server.add(None, np.array([1, 3], np.float32), decay, staleness=2, size=TURN_SIZE)
    taken_to = decay * w + [1, 3]
    np.testing.assert_allclose(server.current.weights(), w + gains * (taken_to - w), rtol=1e-5)


@pytest.mark.parametrize("decay", [0.99, 0.7, 0.01])
@pytest.mark.parametrize("every", [1, 3, 40])
def test_no_weight_gets_more_back_than_the_penalty_took(every: int, decay: float) -> None:
    """Damped to nothing, so that all of it is to come back, in every so many updates."""
    server = ServerWeights(np.ones(1, np.float32), np.full(1, 1e9, np.float32))
    for update in range(1, 6 * every + 1):
        named = at([0]) if update % every == 0 else at([])
        server.add(named, np.full(len(named), 1e-20, np.float32), decay, 10**6, TURN_SIZE)
        assert server.current.weights()[0] <= 1 + 1e-5
    if decay**every > 0.9 or every == 1:  # then it gets back nearly all
        assert server.current.weights()[0] > 0.9


@pytest.mark.parametrize("staleness", [0, 1, 7])
def test_damping_keeps_the_balance_of_penalty_and_changes(staleness: int) -> None:
    """Where updates change a weight just as much as they shrink it, up to the square of the shrinking.

    All change the first, every fourth the other, by four times as much.
    """
    shrinking, w = 1e-3, np.array([4, -2], np.float32)
    server = ServerWeights(w, np.array([0.1, 30], np.float32))
    for update in range(40):
        named = at([0, 1]) if update % 4 == 3 else at([0])
        changes = np.float32(shrinking) * w * np.array([1, 4], np.float32)
        server.add(named, changes[: len(named)], 1 - shrinking, staleness, TURN_SIZE)
    np.testing.assert_allclose(server.current.weights(), w, rtol=2000 * shrinking**2)


@pytest.mark.parametrize("turns", [[5], [1, 10], [40] * 100 + [1]])
def test_the_balance_is_kept_where_updates_are_of_unlike_numbers_of_turns(turns: list[int]) -> None:
    """As where some nodes have more workers than others."""
    shrinking, w = 1e-4, np.array([4], np.float32)
    server = ServerWeights(w, np.array([30], np.float32))
    for update in range(400):
        some = turns[update % len(turns)]
        server.add(None, np.float32(shrinking * some) * w, 1 - shrinking * some, 7, TURN_SIZE, some)
    np.testing.assert_allclose(server.current.weights(), w, rtol=0.01)


# --- folding, versions, and what others do meanwhile


def test_decay_by_others_reaches_what_is_unsent() -> None:
    exchange = Exchange(2, initial=np.full(COLUMNS, 8, np.float32))
    nothing = np.zeros(COLUMNS, np.float32)
    exchange.send(0)
    exchange.take_step(0, np.full(COLUMNS, 4, np.float32))
    exchange.take_step(1, nothing, 0.5)
    exchange.exchange(1)
    exchange.serve(0)
    exchange.hear(0)
    np.testing.assert_array_equal(exchange.workers[0].weights.local.weights(), (8 + 4) * 0.5)
    exchange.exchange(0)
    np.testing.assert_array_equal(exchange.server.current.weights(), (8 + 4) * 0.5)


def test_folding_keeps_the_weights_and_what_is_unsent() -> None:
    with mock.patch.object(mpisgd.weights, "SMALLEST_SCALE", 0.5):
        exchange = Exchange(2, initial=np.full(COLUMNS, 8, np.float32))
        exchange.send(0)
        exchange.take_step(0, np.array([4, 0, 0, 0, 0, 0], np.float32))
        exchange.take_step(1, np.zeros(COLUMNS, np.float32), 0.25)
        exchange.exchange(1)
        assert exchange.server.current.scale == 1.0
        np.testing.assert_array_equal(exchange.server.current.vector, 2)
        exchange.serve(0)
        exchange.hear(0)
        np.testing.assert_array_equal(exchange.workers[0].weights.local.weights(), [3, 2, 2, 2, 2, 2])


def test_a_reply_brings_only_what_changed_since_the_last() -> None:
    server = ServerWeights(np.zeros(100, np.float32), curvatures(False, 100))
    server.add(at([3, 5]), np.array([1, 2], np.float32), 1.0, staleness=0, size=TURN_SIZE)
    server.add(at([5, 7]), np.array([1, 2], np.float32), 0.5, staleness=0, size=TURN_SIZE)
    found, room = {}, ReplyRoom(100)
    for version in range(3):
        content = server.changes_since(version, room)
        assert content.dtype == PAIR
        weights = content["value"] * server.current.scale
        found[version] = dict(zip(content["place"].tolist(), weights.tolist(), strict=True))
    assert found == {0: {3: 0.5, 5: 2.0, 7: 2.0}, 1: {5: 2.0, 7: 2.0}, 2: {}}


def test_hearing_of_several_updates_at_once_leaves_no_rounding_to_be_sent() -> None:
    initial = np.array([1.5], np.float32)
    server, worker = ServerWeights(initial, np.zeros_like(initial)), WorkerWeights(initial)
    for change in (-1.4, 0.0123456):
        server.add(at([0]), np.array([change], np.float32), 1.0, staleness=0, size=TURN_SIZE)
    worker.hear(ReplyHeader(False, 2, 0, 1.0, 0.0), None, server.changes_since(0, ReplyRoom(1)))
    np.testing.assert_array_equal(worker.local.vector, server.current.vector)
    content, *_ = worker.take_turn(0.0, None, UpdateRoom(1))
    assert len(content) == 0


@pytest.mark.parametrize("decay", [1e-30, 1e-45, 1e-200])
def test_a_turn_that_shrinks_the_weights_to_nothing_leaves_them_finite(decay: float) -> None:
    exchange = Exchange(1, initial=np.ones(COLUMNS, np.float32))
    exchange.server.add(at([0]), np.array([2], np.float32), decay, staleness=0, size=TURN_SIZE)
    np.testing.assert_allclose(exchange.server.current.weights(), [2, 0, 0, 0, 0, 0], atol=1e-20)
