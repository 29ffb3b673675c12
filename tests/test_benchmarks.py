"""The benchmarks' own helpers: their text, copies, scores, claims and tables. What they measure is no test's matter."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix, random_array
from sklearn.datasets import load_svmlight_file

sys.path.append(str(Path(__file__).parents[1]))  # where `python -m benchmarks` is started

from benchmarks import report, scores, sets
from benchmarks.kinds import labelled
from benchmarks.measure import Training, run_module


def some_rows(rows: int = 40, columns: int = 120) -> sets.Split:
    """A fifth of the rows are empty."""
    rng = np.random.default_rng(0)
    matrix = csr_matrix(random_array((rows, columns), density=0.1, rng=rng, dtype=np.float32, format="csr"))
    matrix = csr_matrix(matrix.multiply(np.arange(rows)[:, None] % 5 > 0), dtype=np.float32)
    matrix.eliminate_zeros()
    return sets.Split(matrix, np.where(rng.random(rows) < 0.5, -1, 1).astype(np.float32))


def test_text_is_what_scikit_learn_reads(tmp_path: Path) -> None:
    split = some_rows()
    (tmp_path / "rows.svm").write_bytes(b"".join(sets.svmlight(split)))
    rows, labels = load_svmlight_file(str(tmp_path / "rows.svm"), n_features=split.rows.shape[1])
    np.testing.assert_array_equal(labels, split.labels)
    np.testing.assert_allclose(rows.toarray(), split.rows.toarray(), atol=5e-7)


def test_text_of_large_values_and_last_columns() -> None:
    split = sets.Split(csr_matrix(np.array([[1, 0, 9.5]], np.float32)), np.array([-1], np.float32))
    assert b"".join(sets.svmlight(split)) == b"-1 1:1.000000 3:9.500000\n"


def test_a_set_written_is_the_set_read(tmp_path: Path) -> None:
    split = some_rows()
    sets.write_set(tmp_path / "rows.h5", split, sets.Split(sets.part(split.rows, 3, 9), split.labels[3:9]))
    read = sets.load(tmp_path / "rows.h5", "test")
    np.testing.assert_array_equal(read.rows.toarray(), split.rows[3:9].toarray())
    np.testing.assert_array_equal(read.labels, split.labels[3:9])
    assert sets.row_count(tmp_path / "rows.h5", "train") == 40


def test_copies_lack_terms_and_keep_unit_rows() -> None:
    rng = np.random.default_rng(0)
    dense = csr_matrix(rng.random((200, 50)).astype(np.float32))
    thinned = sets.thinned(dense, rng)
    assert thinned.nnz == pytest.approx((1 - sets.DROPPED) * dense.nnz, rel=0.02)
    np.testing.assert_allclose(thinned.multiply(thinned).sum(axis=1), 1, rtol=1e-5)


def test_scores_of_weights() -> None:
    rows, labels = csr_matrix(np.array([[1, 0], [0, 2]], np.float32)), np.array([1, -1], np.float32)
    weights = scores.with_bias([[2, -0.25]], [0.0])
    assert scores.accuracy(weights, rows, labels) == 1
    assert scores.objective(weights, rows, labels, 0.1) == pytest.approx(0.05 * (4 + 0.0625) + 0.25)


@pytest.mark.parametrize(("objective", "seconds"), [(0.9, 1.0), (0.8, 1.0), (0.75, 1.5), (0.5, 3.0), (0.4, math.inf)])
def test_the_time_to_an_objective_or_accuracy_is_found_between_measurements(objective: float, seconds: float) -> None:
    at = {1.0: 0.8, 2.0: 0.7, 3.0: 0.5, 4.0: 0.6}
    metrics = [{"seconds": second, "objective": value, "accuracy": 1 - value} for second, value in at.items()]
    run = Training(5.0, 1.0, metrics, 0.9, [], Path("model.h5"))
    assert run.seconds_to_objective(objective) == pytest.approx(seconds)
    assert run.seconds_to_accuracy(1 - objective) == pytest.approx(seconds)


def test_labels_have_the_share_of_positives() -> None:
    rng = np.random.default_rng(0)
    train, test = labelled(rng, csr_matrix(rng.standard_normal((11_000, 5))), positives=0.03)
    assert train.rows.shape[0] == 1_000
    assert np.sum(train.labels > 0) + np.sum(test.labels > 0) == 330


@pytest.mark.parametrize(
    ("found", "at_least", "holds"), [(1, False, True), (2, False, False), (2, True, True), (math.nan, True, False)]
)
def test_a_claim_holds_within_its_bound(found: float, at_least: bool, holds: bool) -> None:
    assert report.Claim("a figure", found, 1.5, at_least).holds is holds


def test_a_report_has_medians_and_no_number_that_json_lacks(tmp_path: Path) -> None:
    result = report.Result("part", "a title", [report.Claim("a time", math.inf, 1)])
    for value in (3.0, 1.0, 2.0):
        result.figure("a row", "s", value)
    report.write(tmp_path, {"seeds": "0, 1, 2"}, [result])
    assert "| a row | 2 (1 to 3) |" in (tmp_path / "results.md").read_text()
    found = json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)
    assert found["parts"][0]["claims"][0]["found"] is None


def test_usage_is_written_when_a_module_ends_by_exit() -> None:
    seconds, usage = run_module("mpisgd", "--version")
    assert len(usage) == 1
    assert 0 < usage[0].cpu_seconds <= 4 * seconds
    assert usage[0].peak_bytes > 1e6
