"""From one worker to 128 on the given rows, no setting touched: accuracy, passes, and the memory of a worker."""

from __future__ import annotations

import sys
import time

import psutil

from benchmarks.bench import MODES, Bench, mpisgd_row
from benchmarks.measure import RunFailedError, end, mpirun, start
from benchmarks.report import Claim, Result

WORKERS = (1, 2, 8, 32, 128)
MANY, SEEDS_OF_MANY = 32, 3  # from so many workers on, which here are many for each core
SHORT_OF = 0.003
PASSES = 1.5
MOST_MEMORY = 90.0  # MB and the shard
EVERY = 1.0  # s


def run(bench: Bench) -> Result:
    """Train with each number of workers in each mode; hold all to one worker."""
    result = Result("many-workers", f"1 to {WORKERS[-1]} workers on {bench.base.name}")
    for mode in MODES:
        for workers in WORKERS:
            for seed in bench.seeds[: SEEDS_OF_MANY if workers >= MANY else None]:
                add_run(bench, result, mode, workers, seed)
        one = mpisgd_row(mode, 1)
        for workers in WORKERS[1:]:
            row = mpisgd_row(mode, workers)
            short = result.median(one, "accuracy") - result.median(row, "accuracy")
            passes = result.median(row, "passes") / result.median(one, "passes")
            result.claims.append(Claim(f"{row}: accuracy short of one worker's", short, SHORT_OF))
            result.claims.append(Claim(f"{row}: passes, over one worker's", passes, PASSES))
        row = mpisgd_row(mode, WORKERS[-1])
        result.figure(row, "MB of the largest worker (PSS)", largest_worker(bench, mode, WORKERS[-1]))
        result.claims.append(
            Claim(f"{row}: MB of the largest", result.median(row, "MB of the largest worker (PSS)"), MOST_MEMORY)
        )
    result.notes.append(
        f"Medians; from {MANY} workers on, of {SEEDS_OF_MANY} seeds at most: all ranks share this machine's cores."
        " The memory is the proportional set size, pages that ranks share counted in part, the shard within it."
    )
    return result


def add_run(bench: Bench, result: Result, mode: str, workers: int, seed: int) -> None:
    """Train once and add its figures to the table."""
    row, training = mpisgd_row(mode, workers), bench.train(bench.base.path, mode, workers, seed)
    last = training.metrics[-1]
    result.figure(row, "accuracy", training.test_accuracy)
    result.figure(row, "passes", training.passes)
    result.figure(row, "s", training.training_seconds)
    result.figure(row, "turns/s", last["updates_per_second"])
    result.figure(row, "kB a turn, both ways", (last["bytes_up_per_update"] + last["bytes_down_per_update"]) / 1e3)
    result.figure(row, "staleness", last["staleness_p50"])


def largest_worker(bench: Bench, mode: str, workers: int) -> float:
    """Return the most memory that any worker was seen to hold while it learnt, in MB."""
    options = ("--data", str(bench.base.path), "--run-dir", str(bench.directory / "run"), "--force", "--mode", mode)
    long = ("--passes", "4", "--patience", "none")
    process = start(
        [mpirun(sys.executable), "-n", str(workers + 1), sys.executable, "-m", "mpisgd", *options, *long], {}
    )
    most = 0.0
    try:
        while process.poll() is None:
            held = [memory(child) for child in psutil.Process(process.pid).children(recursive=True)]
            most = max([most, *sorted(held)[:-1]])  # the largest is rank 0
            time.sleep(EVERY)
    finally:
        end(process)
    if process.returncode != 0:
        raise RunFailedError(f"{workers} workers, {mode}: exit code {process.returncode}")
    return most / 1e6


def memory(process: psutil.Process) -> float:
    """Return a rank's proportional set size in bytes; 0 of one that has gone."""
    try:
        return float(process.memory_full_info().pss)
    except psutil.Error:
        return 0.0
