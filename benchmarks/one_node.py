"""Lock step on one node: rounds merged in memory that the workers share against rounds summed by Allreduce."""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.measure import mpi_flavour
from benchmarks.report import Claim, Result

WORKERS = (2, 4, 8)
OPTIONS = ("--passes", "20", "--patience", "none")
LEAST_GAIN = {4: 1.0, 8: 1.2}
WAYS = {"in memory": "mpisgd", "by Allreduce": "benchmarks.by_allreduce"}


def run(bench: Bench) -> Result:
    """Train either way in turn, once for each seed, MPI and number of workers."""
    result = Result("one-node", f"rounds merged in shared memory and by Allreduce, on {bench.base.name}")
    for seed in bench.seeds:
        for python in bench.pythons:
            for workers in WORKERS:
                for way, module in WAYS.items():
                    training = bench.train(
                        bench.base.path, "sync", workers, seed, *OPTIONS, python=python, module=module
                    )
                    row = f"{mpi_flavour(python)}, {workers} workers, {way}"
                    result.figure(row, "rows/s", training.rows_per_second)
                    result.figure(row, "rounds/s", training.metrics[-1]["updates_per_second"] / workers)
                    result.figure(row, "test accuracy", training.test_accuracy)
    for python in bench.pythons:
        for workers, least in LEAST_GAIN.items():
            setting = f"{mpi_flavour(python)}, {workers} workers"
            in_memory, by_allreduce = (result.median(f"{setting}, {way}", "rows/s") for way in WAYS)
            result.claims.append(
                Claim(f"{setting}: rows/s in memory, over Allreduce's", in_memory / by_allreduce, least, at_least=True)
            )
    return result
