"""Scores are scikit-learn's; measuring in small steps is measuring at once."""

from __future__ import annotations

import warnings
from typing import get_args
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics

from both_ways import Loops, either_way
from mpisgd import evaluation
from mpisgd.config import Config, LossName
from mpisgd.evaluation import measure_in_steps, score
from mpisgd.job import Job
from mpisgd.shard import Shard
from mpisgd.svm import ScaledVector
from slow_twin import dense, loss_value
from strategies import examples, labels, losses, rows_from, shards, vectors


@st.composite
def margins_and_labels(draw: st.DrawFn) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rows = draw(st.integers(1, 25))
    few = st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0])  # so that there are ties
    return draw(vectors(rows, few)), draw(labels(rows))


@examples
@given(margins_and_labels())
def test_scores_are_those_of_scikit_learn(case: tuple[NDArray[np.float32], NDArray[np.float32]]) -> None:
    margins, truth = case
    predicted = np.where(margins > 0, 1, -1)
    found = score(margins, truth)
    (tn, fp), (fn, tp) = metrics.confusion_matrix(truth, predicted, labels=[-1, 1])
    counts = (found.true_negatives, found.false_positives, found.false_negatives, found.true_positives)
    assert counts == (tn, fp, fn, tp)
    assert found.rows == len(truth)
    assert found.accuracy == pytest.approx(metrics.accuracy_score(truth, predicted))
    assert found.precision == pytest.approx(metrics.precision_score(truth, predicted, zero_division=0))
    assert found.recall == pytest.approx(metrics.recall_score(truth, predicted, zero_division=0))
    assert found.f1 == pytest.approx(metrics.f1_score(truth, predicted, zero_division=0))
    if len(np.unique(truth)) == 2:
        assert found.auc == pytest.approx(metrics.roc_auc_score(truth, margins))
    else:
        assert found.auc == 0


def test_scores_of_no_rows_are_zero() -> None:
    empty = np.empty(0, np.float32)
    found = score(empty, empty)
    assert (found.rows, found.accuracy, found.f1, found.auc) == (0, 0, 0, 0)


@st.composite
def measurable(draw: st.DrawFn) -> tuple[ScaledVector, Shard, Config]:
    shard = draw(shards(min_rows=1))
    weights = ScaledVector(draw(vectors(shard.rows.column_count)), draw(st.sampled_from([1.0, 0.25])))
    return weights, shard, Config(loss=draw(losses), regularization=draw(st.sampled_from([0.0, 0.5])))


@either_way
@examples
@given(measurable(), st.integers(1, 4))
def test_measuring_in_steps_is_the_formula_on_all_rows(
    loops: Loops, case: tuple[ScaledVector, Shard, Config], step_rows: int
) -> None:
    weights, shard, config = case
    objective = Job(config, feature_count=1, learning_rows=1).objective
    with mock.patch.object(evaluation, "STEP_ROWS", step_rows), loops():
        *nothing_yet, found = measure_in_steps(weights, shard, objective)
    assert nothing_yet == [None] * -(-len(shard.rows) // step_rows)
    assert found is not None
    w = weights.vector.astype(np.float64) * weights.scale
    margins, y = dense(shard.rows) @ w, shard.labels
    mean_loss = np.mean([loss_value(config.loss, m) for m in y * margins])
    assert found.accuracy == np.mean(np.where(margins > 0, 1, -1) == y)
    assert found.objective == pytest.approx(0.5 * config.regularization * w @ w + mean_loss, rel=1e-5, abs=1e-6)
    with loops():
        *_, at_once = measure_in_steps(weights, shard, objective)
    assert at_once is not None
    assert at_once.objective == pytest.approx(found.objective, rel=1e-6)


@either_way
@pytest.mark.parametrize("loss", get_args(LossName))
def test_weights_that_diverged_are_told_by_their_objective_and_no_warning(loops: Loops, loss: LossName) -> None:
    rows = Shard(rows_from([[(0, 1.0)]], 1), np.ones(1, np.float32))
    objective = Job(Config(loss=loss, regularization=1e-5), feature_count=1, learning_rows=1).objective
    with loops(), warnings.catch_warnings():
        warnings.simplefilter("error")
        for value in (np.nan, np.inf, -np.inf):
            *_, found = measure_in_steps(ScaledVector(np.array([value], np.float32)), rows, objective)
            assert found is not None
            assert not np.isfinite(found.objective)
