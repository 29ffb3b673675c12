"""One worker's arithmetic against SGDClassifier's and against one product with all rows."""

from __future__ import annotations

import numpy as np

from benchmarks import sets
from benchmarks.bench import ALL_ROWS, MODES, Bench, add_speed, mpisgd_row
from benchmarks.measure import timed
from benchmarks.report import Claim, Result
from mpisgd.beginning import SLOWEST_BIAS
from mpisgd.config import Config
from mpisgd.preprocessing import Preprocessing
from mpisgd.shard import LearningShard, Shard
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
    shard = as_in_a_shard(train)
    objective = Objective(LOSSES["hinge"], regularization=1e-6, has_bias=True, bias_step=SLOWEST_BIAS)
    for seed in bench.seeds:
        seconds = timed(lambda: train.rows @ ones, repeats=5)
        add_pass(result, PRODUCT, seconds, count)
        add_pass(result, DIRECT, timed(lambda: one_pass(objective, shard)), count)
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


def as_in_a_shard(split: sets.Split) -> LearningShard:
    """Return the rows as a worker keeps them: with their bias column, and columns as narrow as can be."""
    rows = Preprocessing(bias=True, normalize=False).apply(sets.from_matrix(split.rows)).narrow()
    return LearningShard.made_of(Shard(rows, split.labels))


def one_pass(objective: Objective, shard: LearningShard) -> None:
    """Take one pass of mini-batch steps from zeros."""
    learn(objective, shard, ScaledVector(np.zeros(shard.rows.column_count, np.float32)))


def learn(objective: Objective, shard: LearningShard, weights: ScaledVector) -> None:
    """Take one pass of mini-batch steps as a worker's turns do: the kernel and nothing around it."""
    rows, batch_size = shard.rows, Config().batch_size
    objective.minibatch_steps(weights, rows, shard.labels, shard.squared_norms, 0, len(rows), batch_size, 0.5)
