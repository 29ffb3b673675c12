"""A learner's turns, where they have keys: a pass is the same turns every time, whatever cut one of them short."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mpisgd import learner as learner_module
from mpisgd.config import Config
from mpisgd.job import Job
from mpisgd.learner import Learner
from mpisgd.shard import LearningShard, Shard
from mpisgd.svm import Objective, ScaledVector, Taken
from strategies import examples, rows_from, shards

ONE_SHARD: Any = SimpleNamespace(renews=False, names=None)  # what a learner asks of its shards where there is just one
ABSURD = 1e9  # a step size whose penalty leaves next to nothing of the weights: the turn ends after one step


def made(shard: Shard, batch_size: int, iterations: int, first: int | None = None, *, by_keys: bool) -> Learner:
    config = Config(loss="hinge", bias=False, regularization=1.0, batch_size=batch_size, iterations=iterations)
    job = Job(config, shard.rows.column_count, len(shard.rows), first_iterations=first, by_keys=by_keys)
    return Learner(job, LearningShard.shuffled_from(shard, np.random.default_rng(0)), ONE_SHARD)


def rows_of_turn(learner: Learner, weights: ScaledVector, step_size: float) -> tuple[int, list[int]]:
    """Take a turn, interrupted as often as can be; return the rows it says it processed, and those it did."""
    taken: list[int] = []
    steps = Objective.minibatch_steps

    def watched(self: Objective, *given: Any, **options: Any) -> Taken:
        found = steps(self, *given, **options)
        taken.extend(range(given[4], found.reached))
        return found

    with (
        mock.patch.object(Objective, "minibatch_steps", watched),
        mock.patch.object(learner_module, "BETWEEN_ROWS", 2),
    ):
        return learner.turn(weights, step_size, lambda: True).processed, taken


cut_or_not = st.lists(st.sampled_from([0.1, 0.1, ABSURD]), min_size=1, max_size=12)


@examples
@given(shards(min_rows=6, max_rows=12), st.integers(1, 3), st.integers(1, 3), cut_or_not)
def test_a_pass_takes_each_row_once_in_turns_of_one_number(
    shard: Shard, batch_size: int, iterations: int, step_sizes: list[float]
) -> None:
    """A turn that was cut short is taken to its end by the next, with the same number."""
    learner = made(shard, batch_size, iterations, by_keys=True)
    rows, turn_rows, next_row = len(shard.rows), batch_size * iterations, 0
    for step_size in step_sizes:
        number = learner.number
        assert number == next_row // turn_rows
        end = min((number + 1) * turn_rows, rows)
        stop = min(next_row + batch_size, end) if step_size == ABSURD else end
        processed, taken = rows_of_turn(learner, ScaledVector(np.ones(shard.rows.column_count, np.float32)), step_size)
        assert taken == list(range(next_row, stop))
        assert processed == len(taken)
        next_row = stop % rows


@examples
@given(shards(min_rows=6, max_rows=12), st.integers(1, 3), st.integers(1, 3), cut_or_not)
def test_a_turn_changes_no_weights_but_those_of_its_keys(
    shard: Shard, batch_size: int, iterations: int, step_sizes: list[float]
) -> None:
    learner = made(shard, batch_size, iterations, by_keys=True)
    keys = learner.keys()
    assert keys is not None
    for step_size in step_sizes:
        others = np.delete(np.arange(shard.rows.column_count), keys.of(learner.number))
        weights = ScaledVector(np.zeros(shard.rows.column_count, np.float32))
        learner.turn(weights, step_size)
        np.testing.assert_array_equal(weights.vector[others], 0)


def test_rows_are_those_of_turns_taken_here_and_elsewhere() -> None:
    """Of eleven rows in turns of four: two turns, the last three rows, and on from the beginning."""
    shard = Shard(rows_from([[(0, 1.0)]] * 11, 1), np.ones(11, np.float32))
    learner, weights = made(shard, 2, 2, by_keys=True), ScaledVector(np.zeros(1, np.float32))
    done = []
    for turns_elsewhere in (1, 0, 1, 0, 2):
        if turns_elsewhere:
            learner.took_turns(turns_elsewhere)
        else:
            learner.turn(weights, 1e-3)
        done.append(learner.rows)
    assert done == [4, 8, 11, 15, 22]


@examples
@given(shards(min_rows=1, max_rows=12), st.integers(1, 4), st.integers(1, 4), st.integers(1, 6))
def test_a_turn_without_keys_goes_on_past_the_end_of_the_shard(
    shard: Shard, batch_size: int, iterations: int, turns: int
) -> None:
    learner = made(shard, batch_size, iterations, by_keys=False)
    assert learner.keys() is None
    rows = len(shard.rows)
    batches = [range(start, min(start + batch_size, rows)) for start in range(0, rows, batch_size)]
    for turn in range(turns):
        steps = range(turn * iterations, (turn + 1) * iterations)
        processed, taken = rows_of_turn(learner, ScaledVector(np.zeros(shard.rows.column_count, np.float32)), 0.1)
        assert taken == [row for step in steps for row in batches[step % len(batches)]]
        assert processed == len(taken)


@examples
@given(shards(min_rows=1, max_rows=12), st.integers(1, 3), st.integers(1, 40), st.integers(1, 40))
def test_the_first_turns_are_as_long_as_all_before_and_full_ones_end_where_they_would(
    shard: Shard, batch_size: int, iterations: int, first: int
) -> None:
    learner = made(shard, batch_size, iterations, first, by_keys=False)
    rows, weights = len(shard.rows), ScaledVector(np.zeros(shard.rows.column_count, np.float32))
    steps_of_pass, steps_done = -(-rows // batch_size), 0
    rows_after = [step // steps_of_pass * rows + min(step % steps_of_pass * batch_size, rows) for step in range(121)]
    while steps_done < iterations:
        steps = min(max(first, steps_done), iterations - steps_done)
        assert learner.turn(weights, 0.1).processed == rows_after[steps_done + steps] - rows_after[steps_done]
        steps_done += steps
    assert learner.turn(weights, 0.1).processed == rows_after[2 * iterations] - rows_after[iterations]
