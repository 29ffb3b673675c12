"""The rules by which the workers' turns become one vector in lock step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mpisgd import vector_loops
from mpisgd.config import Config
from mpisgd.job import Job
from mpisgd.merging import NOTHING_MERGED, Merging, RoundFacts, TurnFacts, turn_size
from mpisgd.svm import Judged
from slow_twin import lengths, merged
from strategies import examples, ordinary, vectors

RULES = ["mean", "sum", "damped"]
STEP_SIZE, MOVED = 0.5, 1 / 8
Vector = NDArray[np.float32]


def after_round(
    rule: Any, shared: Vector, decays: list[float], changes: list[Vector], *, curved: Any = None, penalty: float = 0.0
) -> Vector:
    """Return the weights after a round in which the workers have changed these; for their rows see `facts_of`."""
    workers = len(decays)
    curvatures = np.ones(len(shared), np.float32) if curved is None else np.array(curved, np.float32)
    weights, whole = shared.copy(), sum(changes, np.zeros_like(shared))
    columns, gains = merging(rule, workers, curvatures, penalty).merge_sum(weights, whole, facts_of(decays), STEP_SIZE)
    assert columns == np.count_nonzero(whole)
    size = np.array(lengths_of(workers, curvatures.tolist(), penalty))
    each = {"mean": 1 / workers, "sum": 1.0, "damped": (1 + size) / (1 + workers * size)}[rule]
    assert gains == pytest.approx(np.where(whole != 0, each, 0).sum(), rel=1e-5)
    return weights


def facts_of(decays: list[float]) -> RoundFacts:
    """Return what workers with turns of 0, 1, 2 ... rows, of which a share MOVED took a step, say of them."""
    turns = [turn_of(number, decay) for number, decay in enumerate(decays)]
    return RoundFacts(turns)


def turn_of(rows: int, decay: float) -> TurnFacts:
    return TurnFacts(rows, MOVED * rows, 1 - decay)


def lengths_of(workers: int, curved: list[float], penalty: float = 0.0) -> list[float]:
    """Return how far such turns go."""
    rows = (workers - 1) / 2
    return lengths(Config(regularization=penalty), STEP_SIZE, rows, MOVED * rows, curved, workers)


def merging(rule: Any, workers: int, curvatures: Vector, penalty: float = 0.0) -> Merging:
    config = Config(merge=rule, regularization=penalty)
    return Merging(Job(config, len(curvatures) - 1, learning_rows=1, workers=workers), curvatures)


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
    plain = merged(rule, shared.astype(np.float64), decays, exact, lengths_of(len(changes), curved, penalty=0.25))
    found = after_round(rule, shared, decays, changes, curved=curved, penalty=0.25)
    np.testing.assert_allclose(found, plain, rtol=1e-5, atol=1e-4)


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
    np.testing.assert_allclose(found, shared + turns * (change - 0.19 * shared), rtol=1e-5)


@pytest.mark.parametrize("curvature", [0.0, 1e-3, 0.3, 40.0, 1e6])
def test_damped_turns_go_as_far_as_one_proximal_step_on_all_their_rows(curvature: float) -> None:
    """On a parabola, of which every worker has the same."""
    start, target, workers = 5.0, 2.0, 5
    (size,) = lengths_of(workers, [curvature])
    change = np.array([(target - start) * size / (1 + size)], np.float32)
    found = after_round(
        "damped", np.array([start], np.float32), [1.0] * workers, [change] * workers, curved=[curvature]
    )
    assert found[0] == pytest.approx(start + (target - start) * workers * size / (1 + workers * size), rel=1e-5)


@examples
@given(rounds())
def test_mean_is_the_mean_of_the_workers_weights(case: tuple[Vector, list[float], list[Vector]]) -> None:
    shared, decays, changes = case
    own_weights = [decay * shared + change for decay, change in zip(decays, changes, strict=True)]
    found = after_round("mean", shared, decays, changes)
    np.testing.assert_allclose(found, np.mean(own_weights, axis=0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("decay", [0.999, 0.5, 1e-6])
@pytest.mark.parametrize("rule", RULES)
def test_where_penalty_and_losses_balance_no_rule_moves_the_weights(rule: str, decay: float) -> None:
    """Where all workers together change just as much as they shrink."""
    shared, uneven = np.array([4, -2, 1], np.float32), np.array([0.7, 0.2, 0.1])
    changes = [(3 * share * (1 - decay) * shared).astype(np.float32) for share in uneven]
    np.testing.assert_allclose(after_round(rule, shared, [decay] * 3, changes), shared, rtol=1e-5)
    assert not np.allclose(after_round(rule, shared, [1.0] * 3, changes), shared, rtol=1e-4)


@pytest.mark.parametrize("size", [0.01, 0.3, 1.0, 3.0, 100.0])
@pytest.mark.parametrize("workers", [2, 8, 128])
def test_damped_turns_of_nothing_but_the_penalty_shrink_the_weights_to_nothing(workers: int, size: float) -> None:
    """Of whatever size, step size x rows x lambda: a turn of many steps shrinks to e^-size."""
    penalty = size / (STEP_SIZE * (workers - 1) / 2)
    weights, nothing = np.ones(1, np.float32), [np.zeros(1, np.float32)] * workers
    for _ in range(2_000):
        weights = after_round("damped", weights, [float(np.exp(-size))] * workers, nothing, curved=[0], penalty=penalty)
        assert abs(weights[0]) <= 1
    assert abs(weights[0]) < 1e-3


@pytest.mark.parametrize("compiled", [True, False])
def test_turns_of_huge_steps_move_no_weight_that_they_did_not_change(monkeypatch: Any, compiled: bool) -> None:
    """Nor is what they changed anything but the mean: also of columns without any curvature known."""
    if not compiled:
        monkeypatch.setattr(vector_loops, "_kernel", None)
    job = Job(Config(regularization=0.0), 3, learning_rows=1, workers=2)
    size = turn_size(job, 1e39, rows=10, moved=10)
    weights, changes = np.ones(3, np.float32), np.array([2, 0, 2], np.float32)
    vector_loops.merge(weights, changes, np.array([1, 0, 0], np.float32), turn_size=size, turns=2, shrinking=0.0)
    np.testing.assert_allclose(weights, [2, 1, 3])


@pytest.mark.parametrize("says", [[False, False, False], [True, False, False]])
def test_a_round_is_the_last_or_measured_when_a_worker_says_so(says: list[bool]) -> None:
    assert RoundFacts([turn_of(8, 1.0)._replace(stop=word) for word in says]).stop == any(says)
    assert RoundFacts([turn_of(8, 1.0)._replace(measure=word) for word in says]).measure == any(says)


def test_what_the_workers_judged_is_added_up() -> None:
    facts = RoundFacts([turn_of(8, 1.0)._replace(right=right, losses=right / 4) for right in (1, 0, 5)])
    assert facts.judged == Judged(6, 1.5)


@pytest.mark.parametrize("threshold", [0.0, 2.0])
@pytest.mark.parametrize("rule", RULES)
@examples
@given(rounds(), st.integers(0, 5), st.booleans())
def test_parts_merged_by_several_are_the_sum_merged_by_one(
    rule: Any, threshold: float, case: tuple[Vector, list[float], list[Vector]], cut: int, compiled: bool
) -> None:
    """As on one node, from all workers' own weights, which are the new ones then and what is held back."""
    shared, decays, changes = case
    workers, cut = len(decays), min(cut, len(shared))
    curvatures = np.linspace(0, 3, len(shared), dtype=np.float32)
    locals_ = np.array([shared + d / np.float32(a) for a, d in zip(decays, changes, strict=True)])
    made = (locals_ - shared) * np.array(decays, np.float32)[:, np.newaxis]
    large = np.abs(made) > threshold
    weights, rounds = shared.copy(), merging(rule, workers, curvatures)
    with pytest.MonkeyPatch.context() as patch:
        if not compiled:
            patch.setattr(vector_loops, "_kernel", None)
        parts = [
            rounds.merge_part(locals_, weights, part, facts_of(decays), STEP_SIZE, threshold)
            for part in (slice(0, cut), slice(cut, len(shared)))
        ]
    sums = NOTHING_MERGED.with_more(parts[0]).with_more(parts[1])
    sent = np.where(large, made, np.float32(0))
    expected = after_round(rule, shared, decays, [*sent], curved=curvatures)
    np.testing.assert_allclose(weights, expected, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(locals_, weights + np.where(large, 0, made), rtol=1e-5, atol=1e-4)
    assert (sums.changes_sent, sums.changes) == (np.count_nonzero(large), np.count_nonzero(made))
    by_one = rounds.merge_sum(shared.copy(), sent.sum(axis=0), facts_of(decays), STEP_SIZE)
    assert (sums.columns, sums.gains) == pytest.approx(by_one, rel=1e-5)
