"""The asynchronous exchange by keys: each turn has columns of its own, and hears of no others before they are its."""

from __future__ import annotations

from unittest import mock

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import mpisgd.weights
from exchange import (
    ALL,
    COLUMNS,
    TURN_SIZE,
    Action,
    Exchange,
    actions,
    assert_every_change_counted_once,
    assert_same_bits_once_settled,
    assert_who_changes_nothing_sends_nothing,
    at,
    no_decay,
    run,
    some_decay,
)
from mpisgd.exchange_loops import PAIR
from mpisgd.updates import Keys, ReplyRoom
from mpisgd.weights import ServerWeights
from strategies import eighths, examples, ordinary, vectors

key_lists = st.sets(st.integers(0, COLUMNS - 1)).map(lambda columns: at(sorted(columns)))
passes = st.lists(key_lists, min_size=1, max_size=4)
of_three = st.lists(passes, min_size=3, max_size=3)


# --- what a worker has of a turn's columns is what the server has


@examples
@given(actions(ordinary, no_decay), of_three, vectors(COLUMNS, ordinary), st.booleans())
def test_a_worker_that_has_just_heard_of_keys_has_the_servers_bits_there(
    plan: list[Action], turns: list[list[Keys]], initial: NDArray[np.float32], curved: bool
) -> None:
    exchange = Exchange(3, initial=initial, curved=curved, turns=turns)
    run(exchange, plan)
    for number in range(3):
        exchange.exchange(number)
        assert exchange.is_up_to_date(number)
        exchange.assert_same_bits(number)
    exchange.settle()
    for number in range(3):
        np.testing.assert_array_equal(exchange.workers[number].heard, ALL)
        exchange.assert_same_bits(number)


@examples
@given(actions(ordinary, some_decay), of_three, vectors(COLUMNS, ordinary), st.booleans())
def test_the_same_with_decay_and_folding(
    plan: list[Action], turns: list[list[Keys]], initial: NDArray[np.float32], curved: bool
) -> None:
    with mock.patch.object(mpisgd.weights, "SMALLEST_SCALE", 0.5):
        exchange = Exchange(3, initial=initial, curved=curved, turns=turns)
        assert_same_bits_once_settled(exchange, plan)
        assert exchange.server.current.scale >= 0.5


@examples
@given(actions(ordinary, no_decay), of_three)
def test_a_worker_that_has_changed_nothing_sends_nothing(plan: list[Action], turns: list[list[Keys]]) -> None:
    assert_who_changes_nothing_sends_nothing(Exchange(3, turns=turns), plan)


# --- nothing is lost, nothing counted twice


@examples
@given(actions(eighths, no_decay), of_three, vectors(COLUMNS), st.sampled_from([0.0, 0.25, 2.0]))
def test_the_server_gets_every_change_once(
    plan: list[Action], turns: list[list[Keys]], initial: NDArray[np.float32], threshold: float
) -> None:
    exchange = Exchange(3, threshold, initial, turns=turns)
    run(exchange, plan)
    assert_every_change_counted_once(exchange)


@examples
@given(actions(eighths, no_decay), of_three, vectors(COLUMNS), st.lists(st.booleans(), min_size=3, max_size=3))
def test_the_same_beside_workers_of_all_columns(
    plan: list[Action], turns: list[list[Keys]], initial: NDArray[np.float32], whole: list[bool]
) -> None:
    exchange = Exchange(3, 0.0, initial, turns=turns)
    for worker, has_all in zip(exchange.workers, whole, strict=True):
        worker.turns = [None] if has_all else worker.turns
    run(exchange, plan)
    assert_every_change_counted_once(exchange)
    for number in range(3):
        exchange.assert_same_bits(number)


@examples
@given(vectors(COLUMNS, st.just(0.0) | eighths), key_lists, st.sampled_from([0.25, 2.0]), st.sampled_from([1.0, 0.5]))
def test_what_is_sent_is_above_the_threshold_and_of_the_turn(
    changes: NDArray[np.float32], keys: Keys, threshold: float, decay: float
) -> None:
    exchange = Exchange(1, threshold, turns=[[keys]])
    exchange.take_step(0, changes, decay)
    exchange.send(0)
    expected = np.where(np.isin(ALL, keys) & (np.abs(changes) > threshold), changes, 0)
    np.testing.assert_array_equal(exchange.workers[0].sent, expected)


def test_what_a_turn_withholds_waits_for_the_next_with_that_column() -> None:
    """The turns between have another column, and hear of this one from the others."""
    exchange = Exchange(2, threshold=1.0, turns=[[at([0]), at([1])], [at([0])]])
    first = np.array([0.75, 0, 0, 0, 0, 0], np.float32)
    exchange.take_step(0, first)
    exchange.exchange(0)
    exchange.take_step(1, 8 * first)
    exchange.exchange(1)
    exchange.exchange(0)
    assert exchange.server.current.vector[0] == 6
    assert exchange.workers[0].weights.local.vector[0] == 0.75  # of column 1 it has just heard, not of this one
    exchange.take_step(0, first)
    exchange.exchange(0)
    assert exchange.server.current.vector[0] == 6 + 2 * 0.75
    exchange.exchange(0)
    exchange.exchange(0)
    assert exchange.workers[0].weights.local.vector[0] == 6 + 2 * 0.75


# --- one worker alone


@examples
@given(
    st.lists(st.tuples(vectors(COLUMNS, st.just(0.0) | ordinary), st.floats(0.5, 1.0)), min_size=1, max_size=12),
    passes,
    st.sampled_from([1e-6, 0.5]),
    st.booleans(),
)
def test_with_one_worker_the_servers_weights_are_those_of_the_plain_sum(
    steps: list[tuple[NDArray[np.float32], float]], turns: list[Keys], smallest_scale: float, curved: bool
) -> None:
    """And the worker's: alone, it needs to hear of nothing."""
    with mock.patch.object(mpisgd.weights, "SMALLEST_SCALE", smallest_scale):
        exchange = Exchange(1, curved=curved, turns=[turns])
        expected = np.zeros(COLUMNS)
        for number, (changes, decay) in enumerate(steps):
            touched = np.isin(ALL, turns[number % len(turns)])
            exchange.take_step(0, changes, decay)
            expected = decay * expected + np.where(touched, changes, 0)
            exchange.exchange(0)
            for weights in (exchange.server.current, exchange.workers[0].weights.local):
                np.testing.assert_allclose(weights.weights(), expected, rtol=1e-5, atol=1e-4)


# --- what is sent is no more than the columns of a turn


@examples
@given(vectors(COLUMNS, ordinary), key_lists)
def test_a_reply_has_the_weights_of_the_keys_in_their_order(initial: NDArray[np.float32], keys: Keys) -> None:
    server = ServerWeights(initial, np.zeros_like(initial))
    server.add(ALL, np.ones(COLUMNS, np.float32), 1.0, staleness=0, size=TURN_SIZE)
    for order in (keys, keys[::-1].copy()):
        np.testing.assert_array_equal(server.at(order, ReplyRoom(COLUMNS)), server.current.vector[order])


@examples
@given(vectors(COLUMNS, st.just(0.0) | eighths), key_lists)
def test_an_update_takes_the_smaller_of_its_two_forms(changes: NDArray[np.float32], keys: Keys) -> None:
    exchange = Exchange(1, turns=[[keys]])
    exchange.take_step(0, changes)
    worker = exchange.workers[0]
    content, *_ = worker.weights.take_turn(0.0, keys, worker.room)
    changed = np.count_nonzero(changes[keys])
    assert content.nbytes == min(4 * len(keys), PAIR.itemsize * changed)
