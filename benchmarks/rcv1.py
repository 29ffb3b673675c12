"""The given rows as they are, nothing set: this program at 1, 2 and 8 workers, and scikit-learn's defaults."""

from __future__ import annotations

from benchmarks import sets
from benchmarks.bench import MODES, Bench, mpisgd_row
from benchmarks.defaults import LEAST, WORKERS, add_solvers
from benchmarks.report import Claim, Result


def run(bench: Bench) -> Result:
    """Run all in turn, once for each seed."""
    rows = sets.row_count(bench.base.path, "train")
    result = Result("rcv1", f"{bench.base.name}, {rows:,} training rows, nothing set")
    train, test = sets.load(bench.base.path, "train"), sets.load(bench.base.path, "test")
    for seed in bench.seeds:
        for mode in MODES:
            for workers in WORKERS:
                add(bench, result, mode, workers, seed)
    best = add_solvers(result, train, test, bench.seeds)
    for mode in MODES:
        for workers in WORKERS:
            row = mpisgd_row(mode, workers)
            apart = result.median(row, "test accuracy") - best
            result.claims.append(
                Claim(f"{row}: test accuracy above scikit-learn's better", apart, LEAST, at_least=True)
            )
    return result


def add(bench: Bench, result: Result, mode: str, workers: int, seed: int) -> None:
    """Run this program once and add it to the table."""
    row = mpisgd_row(mode, workers)
    run = bench.train(bench.base.path, mode, workers, seed)
    result.figure(row, "test accuracy", run.test_accuracy)
    result.figure(row, "passes", run.passes)
    result.figure(row, "s training", run.training_seconds)
    result.figure(row, "s whole process", run.process_seconds)
