"""Rank 0's memory on a training set of 5 GB. Takes minutes and the disk; runs only when it is named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.bench import Bench, add_usage
from benchmarks.measure import train
from benchmarks.report import Claim, Result
from benchmarks.sets import CLASSES
from mpisgd.compiled_loops import Float
from mpisgd.data.dataset_writer import DatasetWriter
from mpisgd.sparse_rows import SparseRows

TRAINING_BYTES = 5_000_000_000
COLUMNS, ELEMENTS = 47_236, 64  # of the set, of a row
BYTES_A_ROW = 8 * ELEMENTS
TEST_ROWS = VALIDATION_ROWS = 10_000
BLOCK_ROWS = 50_000
MOST_BYTES = 1_500_000_000  # and the rows held out


def run(bench: Bench) -> Result:
    """Write the set, learn one pass of it with two workers, remove it."""
    result = Result("memory", f"{TRAINING_BYTES / 1e9:g} GB of training rows in HDF5, two workers, one pass")
    path = bench.directory / "memory.h5"
    try:
        write(path, TRAINING_BYTES // BYTES_A_ROW)
        training = train(path, bench.directory / "run", 2, "--passes", "1")
    finally:
        path.unlink(missing_ok=True)
    row = "mpisgd"
    add_usage(result, row, training.ranks)
    result.figure(row, "s until training", training.ready_seconds)
    result.figure(row, "rows/s", training.rows_per_second)
    result.figure(row, "test accuracy", training.test_accuracy)
    limit = MOST_BYTES + (TEST_ROWS + VALIDATION_ROWS) * BYTES_A_ROW
    result.claims.append(Claim("peak memory of rank 0, MB", training.ranks[0].peak_bytes / 1e6, limit / 1e6))
    return result


def write(path: Path, rows: int) -> None:
    """Write so many training rows, and test rows, holding one block of them."""
    rng = np.random.default_rng(0)
    truth = rng.standard_normal(COLUMNS).astype(np.float32)
    positive = []
    with DatasetWriter(path, force=True) as writer:
        for split, count in (("train", rows), ("test", TEST_ROWS)):
            for block, labels in made(rng, truth, count):
                writer.append(split, block)
                positive.append(labels)
        writer.finish(np.concatenate(positive), CLASSES)


def made(rng: np.random.Generator, truth: Float, rows: int) -> Iterator[tuple[SparseRows, np.ndarray]]:
    """Yield blocks of unit rows, the first columns far more frequent than the last, and which are positive."""
    for start in range(0, rows, BLOCK_ROWS):
        count = min(BLOCK_ROWS, rows - start)
        columns = (COLUMNS * rng.random((count, ELEMENTS), np.float32) ** 3).astype(np.int32)
        columns = np.minimum(columns, COLUMNS - 1)
        values = rng.random((count, ELEMENTS), np.float32)
        values /= np.linalg.norm(values, axis=1, keepdims=True)
        pointers = np.arange(0, ELEMENTS * count + 1, ELEMENTS, dtype=np.int32)
        positive = np.einsum("ij,ij->i", values, truth[columns]) > 0
        yield SparseRows(values.ravel(), columns.ravel(), pointers, COLUMNS), positive
