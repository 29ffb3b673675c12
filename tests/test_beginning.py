"""Where learning begins: the bias and the curvatures that the rows suggest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mpisgd.beginning import row_facts
from starts import facts_of, job, settle, shard


def test_facts_are_of_the_rows_as_they_are_learnt_from():
    made = shard(50, size=2.0)
    in_columns = [4.0 * np.count_nonzero(made.labels == label) for label in (-1, 1)]
    np.testing.assert_allclose(
        row_facts(made), [50, 50 * (2.0**2 + 1), made.labels.sum(), *in_columns, 0, 50], rtol=1e-6
    )


@pytest.mark.parametrize(("mean_square", "expected"), [(0.0, 0.01), (0.002, 0.01), (0.3, 0.3), (40.0, 40.0)])
def test_the_bias_learns_as_fast_as_the_largest_column(mean_square: float, expected: float):
    found = settle(job(regularization=0.25), np.zeros(4, np.float32), facts_of([0.0, mean_square, mean_square / 2]))
    assert found.job.bias_step == pytest.approx(expected)
    np.testing.assert_allclose(found.curvatures, [0, mean_square, mean_square / 2, expected], rtol=1e-6)


@pytest.mark.parametrize(("loss", "largest"), [("hinge", 1.0), ("squared_hinge", 2.0), ("logistic", 0.25)])
def test_curvatures_are_the_losses_and_without_a_bias_all_columns_alike(loss: Any, largest: float):
    found = settle(job(loss=loss, bias=False, regularization=0.5), np.zeros(4, np.float32), facts_of([1.0, 2.0, 3.0]))
    np.testing.assert_allclose(found.curvatures, largest * np.array([1, 2, 3, 1]), rtol=1e-6)


def test_the_bias_begins_at_the_mean_label():
    found = settle(job(), np.zeros(4, np.float32), facts_of([1.0, 1.0, 1.0]))
    np.testing.assert_allclose(found.weights, [0, 0, 0, -0.8], rtol=1e-6)


@pytest.mark.parametrize("settings", [{"bias": False}, {"initial_model": "model.h5"}])
def test_without_a_bias_or_with_a_model_the_weights_stay_theirs(settings: Any):
    weights = np.arange(4, dtype=np.float32)
    found = settle(job(**settings), weights.copy(), facts_of([1.0, 1.0, 1.0]))
    np.testing.assert_array_equal(found.weights, weights)
