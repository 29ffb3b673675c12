"""A long run's objective and accuracy against the optimum that LIBLINEAR finds at the same lambda."""

from __future__ import annotations

import warnings
from typing import Any

from sklearn.svm import LinearSVC

from benchmarks import scores, sets
from benchmarks.bench import MODES, Bench, mpisgd_row
from benchmarks.delayed import SECONDS, TIMES
from benchmarks.report import Claim, Result
from mpisgd.model import load_model

PASSES = 1200
WORKERS = 2
TURN, SLOWER = 4e-4, 3  # s, that a turn takes at least; times that of one worker where they are not alike
UNEVEN = f"{mpisgd_row('async', WORKERS)}, one {SLOWER} times slower"
BEST = "LIBLINEAR (scikit-learn LinearSVC), 2,000 rounds"


def run(bench: Bench) -> Result:
    """Find the optimum once, and run each mode for many passes on all training rows, once for each seed."""
    result = Result("optimum", f"{PASSES} passes on {bench.base.name}, lambda {bench.base.regularization:g}")
    train, test = sets.load(bench.base.path, "train"), sets.load(bench.base.path, "test")
    add(result, BEST, optimum(train, bench.base.regularization), train, test, bench.base.regularization)
    runs: dict[str, tuple[str, dict[str, Any]]] = {mpisgd_row(mode, WORKERS): (mode, {}) for mode in MODES}
    runs[UNEVEN] = "async", {"module": "benchmarks.delayed", "settings": {SECONDS: str(TURN), TIMES: str(SLOWER)}}
    for seed in bench.seeds:
        for row, (mode, started) in runs.items():
            # Measured on the test rows, seldom, as then no training row is set aside; they steer nothing.
            options = f"--eval-split test --eval-interval 10 --passes {PASSES} --patience none".split()
            penalty = ("--regularization", repr(bench.base.regularization))
            training = bench.train(bench.base.path, mode, WORKERS, seed, *penalty, *options, **started)
            model = load_model(training.model)
            weights = scores.with_bias(model.weights, model.bias)
            add(result, row, weights, train, test, bench.base.regularization)
            result.figure(row, "training s", training.training_seconds)
    for row in runs:
        gap = result.median(row, "objective") / result.median(BEST, "objective") - 1
        apart = abs(result.median(row, "test accuracy") - result.median(BEST, "test accuracy"))
        result.claims += [
            Claim(f"{row}: objective above the optimum, of the optimum", gap, 0.01),
            Claim(f"{row}: test accuracy apart from the optimum's", apart, 0.002),
        ]
    return result


def optimum(train: sets.Split, regularization: float) -> scores.Weights:
    """Return LIBLINEAR's weights, the bias one of them, next to the least objective."""
    factor = 1 / (regularization * len(train.labels))
    solver = LinearSVC(loss="hinge", C=factor, intercept_scaling=1, max_iter=2_000, random_state=0)
    with warnings.catch_warnings(action="ignore"):  # its tolerance is far finer than what is asked here
        solver.fit(train.rows, train.labels)
    return scores.with_bias(solver.coef_, solver.intercept_)


def add(
    result: Result, row: str, weights: scores.Weights, train: sets.Split, test: sets.Split, regularization: float
) -> None:
    """Add what some weights are worth."""
    result.figure(row, "objective", scores.objective(weights, train.rows, train.labels, regularization))
    result.figure(row, "test accuracy", scores.accuracy(weights, test.rows, test.labels))
