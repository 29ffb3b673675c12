"""One worker's arithmetic against SGDClassifier's and against one product with all rows."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix

from benchmarks import sets
from benchmarks.bench import ALL_ROWS, MODES, Bench, add_speed, mpisgd_row
from benchmarks.measure import timed
from benchmarks.report import Claim, Result
from mpisgd.beginning import SLOWEST_BIAS
from mpisgd.compiled_loops import Float
from mpisgd.config import Config
from mpisgd.preprocessing import Preprocessing
from mpisgd.sparse_rows import SparseRows
from mpisgd.svm import LOSSES, Objective, ScaledVector

SGD = "scikit-learn SGDClassifier"
PRODUCT = "one X @ w"
DIRECT = "mpisgd's kernel alone, called directly"


def run(bench: Bench) -> Result:
    """Run all in turn, once for each seed."""
    result = Result("kernel", f"one worker on {bench.full.name}")
    train = sets.load(bench.full.path, "train")
    count = train.rows.shape[0]
    ones = np.ones(train.rows.shape[1], np.float32)
    with_bias = as_in_a_shard(train.rows)
    objective = Objective(LOSSES["hinge"], regularization=1e-6, has_bias=True, bias_step=SLOWEST_BIAS)
    squared_norms = with_bias.squared_norms().astype(np.float32)
    for seed in bench.seeds:
        seconds = timed(lambda: train.rows @ ones, repeats=5)
        add_pass(result, PRODUCT, seconds, count)
        add_pass(result, DIRECT, timed(lambda: one_pass(objective, with_bias, train.labels, squared_norms)), count)
        for mode in MODES:
            add_speed(result, mpisgd_row(mode, 1), bench.speed_run(mode, 1, seed), count)
        bench.try_peer(SGD, bench.full, seed, result)
    for row in (DIRECT, *(mpisgd_row(mode, 1) for mode in MODES)):
        rate = result.median(row, "rows/s") / result.median(SGD, "rows/s")
        work = result.median(row, ALL_ROWS) / result.median(PRODUCT, ALL_ROWS)
        result.claims += [
            Claim(f"{row}: rows/s, over SGDClassifier's", rate, 5, at_least=True),
            Claim(f"{row}: one pass, of one X @ w", work, 1.6),
        ]
    return result


def add_pass(result: Result, row: str, seconds: float, rows: int) -> None:
    """Add one pass over so many rows."""
    result.figure(row, ALL_ROWS, seconds)
    result.figure(row, "rows/s", rows / seconds)


def as_in_a_shard(matrix: csr_matrix) -> SparseRows:
    """Return the rows as a worker keeps them: with their bias column, and columns as narrow as can be."""
    return Preprocessing(bias=True, normalize=False).apply(sets.from_matrix(matrix)).narrow()


def one_pass(objective: Objective, rows: SparseRows, labels: Float, squared_norms: Float) -> None:
    """Take one pass of mini-batch steps from zeros, as a worker's turns do: the kernel and nothing around it.

    The rows have their bias column; labels are +1 and -1; all floats are float32 (rows,).
    """
    weights = ScaledVector(np.zeros(rows.column_count, np.float32))
    objective.minibatch_steps(weights, rows, labels, squared_norms, 0, len(rows), Config().batch_size, 0.5)
