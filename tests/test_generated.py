"""The generated set: the shape of RCV1, two classes a line tells apart, the same rows for the same seed."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from sklearn.linear_model import SGDClassifier
from sklearn.svm import LinearSVC

from mpisgd import generated
from mpisgd.generated import DEFAULT_ROWS, DEFAULT_TEST_ROWS, GeneratedRows, generate
from mpisgd.sparse_rows import SparseRows


@pytest.fixture(scope="module")
def default_set() -> GeneratedRows:
    return generate(DEFAULT_ROWS, DEFAULT_TEST_ROWS, seed=0)


def matrix(rows: SparseRows) -> csr_matrix:
    return csr_matrix((rows.values, rows.columns, rows.row_pointers), shape=(len(rows), rows.column_count))


def row_set(rows: SparseRows) -> set[bytes]:
    """The columns and values of every row, as something that can be looked up."""
    ends = rows.row_pointers
    return {rows.columns[start:stop].tobytes() + rows.values[start:stop].tobytes() for start, stop in pairwise(ends)}


def assert_well_formed(rows: SparseRows, labels: np.ndarray, row_count: int, column_count: int) -> None:
    assert len(rows) == len(labels) == row_count
    assert rows.column_count == column_count
    SparseRows.checked(rows.values, rows.columns, rows.row_pointers, column_count, where="generated")
    assert (rows.values > 0).all()
    assert (np.diff(rows.row_pointers) >= 1).all()
    steps_back = np.flatnonzero(np.diff(rows.columns) <= 0) + 1
    assert np.isin(steps_back, rows.row_pointers).all(), "columns must rise within a row"
    np.testing.assert_allclose(rows.squared_norms(), 1, atol=1e-5)
    assert rows.values.dtype == labels.dtype == np.float32
    assert rows.columns.dtype == rows.row_pointers.dtype == np.int32
    assert set(labels) <= {1.0, -1.0}
    assert labels.sum() == row_count % 2


def assert_same_rows(one: SparseRows, other: SparseRows) -> None:
    np.testing.assert_array_equal(one.values, other.values)
    np.testing.assert_array_equal(one.columns, other.columns)
    np.testing.assert_array_equal(one.row_pointers, other.row_pointers)


def test_default_is_well_formed(default_set: GeneratedRows) -> None:
    assert_well_formed(default_set.rows, default_set.labels, DEFAULT_ROWS, 47_236)
    assert_well_formed(default_set.test_rows, default_set.test_labels, DEFAULT_TEST_ROWS, 47_236)


def test_row_lengths_are_log_normal_like_rcv1(default_set: GeneratedRows) -> None:
    # The real 22,079 rows: mean 77.7, median 62, deviation of the logarithm 0.695.
    lengths = np.diff(default_set.rows.row_pointers)
    assert 74 < lengths.mean() < 81
    assert 58 < np.median(lengths) < 66
    logs = np.log(lengths)
    assert 0.64 < logs.std() < 0.75
    assert abs(((logs - logs.mean()) ** 3).mean()) / logs.std() ** 3 < 0.2, "symmetric in the logarithm"


def test_column_frequencies_fall_like_rcv1(default_set: GeneratedRows) -> None:
    rows = default_set.rows
    shares = np.sort(np.bincount(rows.columns, minlength=rows.column_count))[::-1] / len(rows)
    real = {0: 0.440, 10: 0.253, 100: 0.113, 1_000: 0.0164, 5_000: 0.00136, 10_000: 0.00041}
    for rank, share in real.items():
        assert shares[rank] == pytest.approx(share, rel=0.25), f"column of rank {rank}"
    assert shares[40_000] <= 1 / len(rows), "thousands of columns occur once or never"


def test_column_number_does_not_tell_frequency(default_set: GeneratedRows) -> None:
    frequencies = np.bincount(default_set.rows.columns, minlength=47_236)
    assert abs(np.corrcoef(np.arange(47_236), np.log1p(frequencies))[0, 1]) < 0.05


def test_held_out_rows_share_none_with_train(default_set: GeneratedRows) -> None:
    assert not row_set(default_set.rows) & row_set(default_set.test_rows)


@pytest.mark.parametrize("seed", [0, 1])
def test_linear_models_separate_held_out_rows(seed: int) -> None:
    data = generate(DEFAULT_ROWS, DEFAULT_TEST_ROWS, seed)
    for model in (LinearSVC(C=1, random_state=0), SGDClassifier(random_state=0)):
        model.fit(matrix(data.rows), data.labels)
        assert 0.93 < model.score(matrix(data.test_rows), data.test_labels) < 0.97


def test_same_seed_same_bits() -> None:
    first, second = generate(300, 100, seed=7), generate(300, 100, seed=7)
    assert_same_rows(first.rows, second.rows)
    assert_same_rows(first.test_rows, second.test_rows)
    np.testing.assert_array_equal(first.labels, second.labels)
    np.testing.assert_array_equal(first.test_labels, second.test_labels)


def test_other_seed_other_rows_and_labels() -> None:
    first, second = generate(300, 100, seed=7), generate(300, 100, seed=8)
    assert not row_set(first.rows) & row_set(second.rows)
    assert (first.labels != second.labels).any()


def test_more_rows_are_of_the_same_classes() -> None:
    few, many = generate(2_000, 0, seed=3), generate(9_000, 0, seed=3)
    model = LinearSVC(C=0.1, random_state=0).fit(matrix(many.rows), many.labels)
    assert model.score(matrix(few.rows), few.labels) > 0.85


def test_values_are_log_tf_times_the_idf_of_the_rows_to_train_on(default_set: GeneratedRows) -> None:
    rows = default_set.rows
    idf = np.log((len(rows) + 1) / np.maximum(np.bincount(rows.columns, minlength=rows.column_count), 1))
    for part in (rows.part(0, 500).compact(), default_set.test_rows.part(0, 500).compact()):
        scaled_tf = part.values / idf[part.columns]
        starts, lengths = part.row_pointers[:-1], np.diff(part.row_pointers)
        # The rarest word of a row with 20 different ones or more occurs once: tf = 1 + log(1).
        tf = scaled_tf / np.repeat(np.minimum.reduceat(scaled_tf, starts), lengths)
        counts = np.exp(tf - 1)[np.repeat(lengths >= 20, lengths)]
        np.testing.assert_allclose(counts, counts.round(), rtol=1e-5)
        assert set(counts.round()) >= {1, 2, 3}


def test_rows_to_train_on_do_not_depend_on_held_out_rows() -> None:
    assert_same_rows(generate(200, 0, seed=5).rows, generate(200, 1_000, seed=5).rows)


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generated, "CHUNK_ROWS", 7)
    data = generate(50, 15, seed=2, column_count=200)
    assert_well_formed(data.rows, data.labels, 50, 200)
    assert_well_formed(data.test_rows, data.test_labels, 15, 200)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 60),
    test_rows=st.integers(0, 30),
    column_count=st.integers(1, 300),
    seed=st.integers(0, 2**32),
)
def test_any_small_size_is_well_formed(rows: int, test_rows: int, column_count: int, seed: int) -> None:
    data = generate(rows, test_rows, seed, column_count=column_count)
    assert_well_formed(data.rows, data.labels, rows, column_count)
    assert_well_formed(data.test_rows, data.test_labels, test_rows, column_count)
