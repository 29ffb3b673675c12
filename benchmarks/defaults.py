"""Nothing set, on generated rows of many kinds: test accuracy against scikit-learn's defaults."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable

import numpy as np
from sklearn.linear_model import SGDClassifier
from sklearn.svm import LinearSVC

from benchmarks import sets
from benchmarks.bench import Bench
from benchmarks.kinds import KINDS
from benchmarks.measure import RunFailedError, train
from benchmarks.report import Claim, Result

WORKERS = (1, 2, 8)
LEAST = -0.005  # of the difference in test accuracy
TIMEOUT = 120.0  # s, of one such run
SOLVERS = {
    "scikit-learn LinearSVC": lambda seed: LinearSVC(random_state=seed),
    "scikit-learn SGDClassifier": lambda seed: SGDClassifier(random_state=seed),
}


def run(bench: Bench) -> Result:
    """Run both on every kind."""
    result = Result("defaults", "test accuracy on generated rows, nothing set")
    for kind in KINDS:
        add_kind(bench, result, kind)
    result.notes.append("A run that fails counts as an accuracy of 0.")
    return result


def add_kind(bench: Bench, result: Result, kind: str) -> None:
    """Run both on one kind, and hold this program's worst number of workers to the better solver."""
    parts = KINDS[kind](np.random.default_rng(0))
    path = bench.directory / "kind.h5"
    sets.write_set(path, *parts)
    solvers = Result("", "")
    best = add_solvers(solvers, *parts, bench.seeds)
    apart = []
    for workers in WORKERS:
        name = f"mpisgd, {workers} worker{'s' * (workers > 1)}"
        for seed in bench.seeds:
            result.figure(kind, name, accuracy(bench, workers, seed, result))
        apart.append(result.median(kind, name) - best)
    for solver in SOLVERS:
        result.figure(kind, solver, solvers.median(solver, "test accuracy"))
    result.figure(kind, "worst difference", min(apart))
    result.claims.append(Claim(f"{kind}: test accuracy above the better solver's", min(apart), LEAST, at_least=True))
    path.unlink()


def accuracy(bench: Bench, workers: int, seed: int, result: Result) -> float:
    """Return the test accuracy of one run of this program, 0 if it failed."""
    try:
        run = train(bench.directory / "kind.h5", bench.directory / "run", workers, "--seed", str(seed), timeout=TIMEOUT)
    except RunFailedError as error:
        result.notes.append(str(error)[-300:])
        return 0.0
    return run.test_accuracy


def add_solvers(result: Result, train: sets.Split, test: sets.Split, seeds: Iterable[int]) -> float:
    """Fit scikit-learn's solvers for each seed; return the better median test accuracy."""
    for seed in seeds:
        for name, make in SOLVERS.items():
            solver = make(seed)
            began = time.perf_counter()
            with warnings.catch_warnings(action="ignore"):  # a default that stops short is measured as it is
                solver.fit(train.rows, train.labels)
            result.figure(name, "test accuracy", float(solver.score(test.rows, test.labels)))
            result.figure(name, "passes", float(solver.n_iter_))
            result.figure(name, "s training", time.perf_counter() - began)
    return max(result.median(name, "test accuracy") for name in SOLVERS)
