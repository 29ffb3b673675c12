"""Two workers and the coordinator against every peer on the full-size set: time to accuracy, and one pass."""

from __future__ import annotations

import math

import numpy as np

from benchmarks import scores, sets
from benchmarks.bench import (
    ALL_ROWS,
    MODES,
    TO_ACCURACY,
    Bench,
    add_accuracy,
    add_speed,
    mpisgd_row,
    peer_curve,
    training_curve,
)
from benchmarks.measure import timed
from benchmarks.peers import PEERS
from benchmarks.report import Claim, Result
from mpisgd.model import load_model

PRODUCT = "one X @ w, one core"
OBJECTIVE = "objective"
LIBLINEARS = ("LIBLINEAR", "scikit-learn LinearSVC")


def run(bench: Bench) -> Result:
    """Run all in turn, once for each seed."""
    result = Result("two-workers", f"two workers on {bench.full.name}, time to {bench.full.target} test accuracy")
    train = sets.load(bench.full.path, "train")
    ones = np.ones(train.rows.shape[1], np.float32)
    for seed in bench.seeds:
        for mode in MODES:
            add_own(bench, result, mode, train, seed)
        result.figure(PRODUCT, ALL_ROWS, timed(lambda: train.rows @ ones, repeats=5))
        for name in PEERS:
            add_rival(bench, result, name, seed)
    result.claims = claims(result, bench.full.target)
    add_gaps(result)
    result.notes.append(
        "The time to an accuracy is measured on the test rows: of this program it is that of the shortest of runs for"
        " 1/256, 1/128 ... of a pass whose model reaches it; of peers after whole passes, as their users can stop them,"
        " and of SGDClassifier within them too. Solvers that start afresh took 1, 2, 4 and 8 rounds, each from the"
        " start. LIBLINEAR counts by the quicker of two forms."
    )
    return result


def add_own(bench: Bench, result: Result, mode: str, train: sets.Split, seed: int) -> None:
    """Run this program for speed and for accuracy, and add both to the table; the first seed's to the plot."""
    row = mpisgd_row(mode, 2)
    add_speed(result, row, bench.speed_run(mode, 2, seed), train.rows.shape[0])
    shortest = bench.shortest(mode, 2, seed)
    add_accuracy(result, row, math.inf if shortest is None else shortest[1])
    training = bench.curve_run(mode, 2, seed)
    result.figure(row, "test accuracy", training.test_accuracy)
    model = load_model(training.model)
    weights = scores.with_bias(model.weights, model.bias)
    value = scores.objective(weights, train.rows, train.labels, bench.full.regularization)
    result.figure(row, OBJECTIVE, value)
    if seed == bench.seeds[0]:
        result.curves.append(training_curve(row, training))


def add_rival(bench: Bench, result: Result, name: str, seed: int) -> None:
    """Add a peer's run to the table, and the first seed's to the plot."""
    peer = bench.try_peer(name, bench.full, seed, result)
    if peer is None:
        return
    result.figure(name, OBJECTIVE, peer.points[-1]["objective"])
    if seed == bench.seeds[0]:
        result.curves.append(peer_curve(name, peer))


def add_gaps(result: Result) -> None:
    """Add how far each objective is above LIBLINEAR's own, which is within its tolerance of the optimum."""
    for row, figures in result.rows.items():
        for value in figures.get(OBJECTIVE, []):
            result.figure(row, "objective gap", value / result.median("LIBLINEAR", OBJECTIVE) - 1)


def claims(result: Result, target: float) -> list[Claim]:
    """Hold each mode against SGDClassifier, LIBLINEAR and the product."""
    found = []
    sgd = result.median("scikit-learn SGDClassifier", TO_ACCURACY)
    there = [result.median(name, TO_ACCURACY) for name in LIBLINEARS if name in result.rows]
    liblinear = min(there, default=math.nan)
    for mode in MODES:
        own = result.median(mpisgd_row(mode, 2), TO_ACCURACY)
        one_pass = result.median(mpisgd_row(mode, 2), ALL_ROWS)
        found += [
            Claim(f"{mode}: time to {target}, of SGDClassifier's", own / sgd, 0.2),
            Claim(f"{mode}: time to {target}, of LIBLINEAR's", own / liblinear, 0.1),
            Claim(f"{mode}: one pass, of one X @ w", one_pass / result.median(PRODUCT, ALL_ROWS), 0.95),
        ]
    return found
