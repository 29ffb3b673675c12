"""Ten million columns, 30 elements a row: what a worker holds, what a turn sends, and how well it learns."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix

from benchmarks.bench import Bench
from benchmarks.kinds import Parts, ten_million_columns
from benchmarks.measure import Training
from benchmarks.report import Claim, Result
from benchmarks.sets import Split, write_set

WORKERS = 2
ELEMENTS = 31  # of a row, with the bias
ONE_VECTOR = 40.0  # MB: ten million float32
FOLDED = 10_000  # columns
TURNS = (10, 20, 40)  # mini-batches of 8 rows
LONGEST, SHORTEST = f"turns of {8 * TURNS[-1]} rows", f"turns of {8 * TURNS[0]} rows"
ALL = "lock step, all columns"


def run(bench: Bench) -> Result:
    """Train on the rows, and on the same rows with their columns folded into ten thousand, once for each seed."""
    result = Result("wide", "generated rows of 10,000,000 columns, two workers")
    for seed in bench.seeds:
        wide, folded = bench.directory / "wide.h5", bench.directory / "folded.h5"
        made = ten_million_columns(np.random.default_rng(seed))
        write_set(wide, *made)
        write_set(folded, *fold(made))
        add(result, "by keys", bench.train(wide, "async", WORKERS, seed))
        add(result, "the same, few columns", bench.train(folded, "async", WORKERS, seed))
        add(result, ALL, bench.train(wide, "sync", WORKERS, seed))
        for steps in TURNS:
            options = ("--iterations", str(steps), "--passes", "5", "--patience", "none")
            add_turns(result, f"turns of {8 * steps} rows", bench.train(wide, "async", WORKERS, seed, *options))
    more = result.median("by keys", "MB of a worker") - result.median("the same, few columns", "MB of a worker")
    growth = result.median(LONGEST, "bytes an element") / result.median(SHORTEST, "bytes an element")
    short = result.median(ALL, "accuracy") - result.median("by keys", "accuracy")
    result.claims = [
        Claim("MB of a worker, beyond those for few columns", more, ONE_VECTOR / 2),
        Claim(f"bytes an element of a turn, {LONGEST} over {SHORTEST}", growth, 1.1),
        Claim("accuracy short of the dense way's", short, 0.003),
    ]
    return result


def fold(made: Parts) -> Parts:
    """Return the same rows with few columns; equal ones are added up."""
    train, test = (Split(folded(split.rows), split.labels) for split in made)
    return train, test


def folded(rows: csr_matrix) -> csr_matrix:
    """Return the rows with each column's number modulo FOLDED."""
    few = csr_matrix((rows.data, rows.indices % FOLDED, rows.indptr), (rows.shape[0], FOLDED))
    few.sum_duplicates()
    return few


def add(result: Result, row: str, training: Training) -> None:
    """Add accuracy, time and a worker's memory to the table."""
    result.figure(row, "accuracy", training.test_accuracy)
    result.figure(row, "s", training.training_seconds)
    result.figure(row, "passes", training.passes)
    result.figure(row, "MB of a worker", max(rank.peak_bytes for rank in training.ranks[1:]) / 1e6)


def add_turns(result: Result, row: str, training: Training) -> None:
    """Add the bytes of a turn to the table."""
    last = training.metrics[-1]
    turn = last["bytes_up_per_update"] + last["bytes_down_per_update"]
    result.figure(row, "bytes a turn", turn)
    result.figure(row, "bytes an element", turn / (ELEMENTS * last["rows"] / last["updates"]))
