"""One node: turns merged in memory that ranks share against the same by messages, in lock step and asynchronously."""

from __future__ import annotations

from benchmarks.bench import MODES, Bench
from benchmarks.measure import mpi_flavour
from benchmarks.report import Claim, Result

WORKERS = (2, 4, 8)
OPTIONS = ("--passes", "20", "--patience", "none")
LEAST_GAIN = {"sync": {4: 1.0, 8: 1.2}, "async": {2: 1.2, 4: 1.2, 8: 1.2}}
WAYS = {"in memory": "auto", "by messages": "never"}


def run(bench: Bench) -> Result:
    """Train either way in turn, once for each seed, MPI, mode and number of workers."""
    result = Result("one-node", f"turns merged in shared memory and by messages, on {bench.base.name}")
    for seed in bench.seeds:
        for python in bench.pythons:
            for mode in MODES:
                for workers in WORKERS:
                    add(bench, result, python, mode, workers, seed)
    for python in bench.pythons:
        for mode, gains in LEAST_GAIN.items():
            for workers, least in gains.items():
                setting = f"{mpi_flavour(python)}, {mode}, {workers} workers"
                in_memory, by_messages = (result.median(f"{setting}, {way}", "rows/s") for way in WAYS)
                name = f"{setting}: rows/s in memory, over those by messages"
                result.claims.append(Claim(name, in_memory / by_messages, least, at_least=True))
    return result


def add(bench: Bench, result: Result, python: str, mode: str, workers: int, seed: int) -> None:
    """Train both ways and add their figures to the table."""
    for way, memory in WAYS.items():
        options = (*OPTIONS, "--shared-memory", memory)
        training = bench.train(bench.base.path, mode, workers, seed, *options, python=python)
        row = f"{mpi_flavour(python)}, {mode}, {workers} workers, {way}"
        result.figure(row, "rows/s", training.rows_per_second)
        result.figure(row, "turns/s", training.metrics[-1]["updates_per_second"])
        result.figure(row, "test accuracy", training.test_accuracy)
