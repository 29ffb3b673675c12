"""What waiting costs: CPU seconds of ranks while others sleep, on each MPI.

In lock step one of two workers sleeps: the other waits for it, the coordinator for both. Asynchronously both workers
sleep: the coordinator has nothing to do.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from benchmarks.bench import Bench
from benchmarks.measure import RunFailedError, end, mpi_flavour, mpirun, start
from benchmarks.report import Claim, Result
from benchmarks.straggler import ASLEEP, DIRECTORY

MOST = 0.5  # CPU seconds
MEASURED = 10.0  # s; the stragglers sleep a little longer
WHO = {0: "coordinator", 1: "worker 1", 2: "worker 2"}
CASES = (("sync", (2,)), ("async", (1, 2)))


def run(bench: Bench) -> Result:
    """Measure each case on each MPI once."""
    result = Result("idle", f"CPU seconds while waiting for {MEASURED:g} s")
    for python in bench.pythons:
        for mode, sleepers in CASES:
            used = waiting(bench.base.path, python, mode, sleepers)
            for rank, seconds in used.items():
                row = f"{mpi_flavour(python)}, {mode}, {WHO[rank]}"
                result.figure(row, "CPU s", seconds)
                result.claims.append(Claim(f"{row}: CPU seconds", seconds, MOST))
    if len(bench.pythons) < 2:
        result.notes.append("Measured on one MPI: no environment with the other was named.")
    return result


def waiting(data: Path, python: str, mode: str, sleepers: tuple[int, ...]) -> dict[int, float]:
    """Return the CPU seconds of each waking rank while the others sleep.

    Raises:
        RunFailedError: they did not fall asleep within a minute.

    """
    with tempfile.TemporaryDirectory() as directory:
        environment = {DIRECTORY: directory, ASLEEP: " ".join(map(str, sleepers))}
        options = ["--data", str(data), "--mode", mode, "--run-dir", f"{directory}/run"]
        command = [mpirun(python), "-n", "3", python, "-m", "benchmarks.straggler", *options]
        process = start(command, environment, python=python)
        try:
            wait_for(lambda: all(Path(directory, f"{rank}.asleep").exists() for rank in sleepers))
            waking = {rank: process_of(directory, rank) for rank in WHO if rank not in sleepers}
            before = {rank: cpu_seconds(waked) for rank, waked in waking.items()}
            time.sleep(MEASURED)
            return {rank: cpu_seconds(waked) - before[rank] for rank, waked in waking.items()}
        finally:
            end(process)


def wait_for(there: Callable[[], bool], seconds: float = 60) -> None:
    """Poll until something is there; RunFailedError when it is not after so many seconds."""
    deadline = time.monotonic() + seconds
    while not there():
        if time.monotonic() > deadline:
            raise RunFailedError(f"no rank fell asleep within {seconds:g} s")
        time.sleep(0.05)


def process_of(directory: str, rank: int) -> psutil.Process:
    """Return a rank's process."""
    return psutil.Process(int(Path(directory, f"{rank}.pid").read_text()))


def cpu_seconds(process: psutil.Process) -> float:
    """Return the CPU seconds, user and system, that a process has used so far."""
    used = process.cpu_times()
    return used.user + used.system
