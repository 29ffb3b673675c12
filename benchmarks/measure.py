"""Starts this program as its users do, and other commands, and measures every process of theirs."""

from __future__ import annotations

import functools
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmarks.rank_usage import DIRECTORY

ROOT = Path(__file__).resolve().parents[1]
FOREIGN = ("MPISGD_", "OMP_", "PMI_", "PMIX_", "OMPI_COMM_WORLD_")  # what the surroundings may have set
OPEN_MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": "slot:oversubscribe",
    "PRTE_MCA_hwloc_default_binding_policy": "none",
}
TIMEOUT = 900.0  # s


class RunFailedError(Exception):
    """A command ended with an error or did not end, or what it needs is not there; says which and its last words."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What one process used: seconds of all its cores, user and system; the most memory it held, in bytes."""

    cpu_seconds: float
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class Training:
    """One run of this program.

    process_seconds  wall time from mpirun's start to its end
    ready_seconds    from mpirun's start until training began, the rows in place
    metrics          the lines of metrics.jsonl
    test_accuracy    of the saved model, 0 to 1
    ranks            what each rank used, rank 0 first
    model            the saved model
    """

    process_seconds: float
    ready_seconds: float
    metrics: list[dict[str, Any]]
    test_accuracy: float
    ranks: list[Usage]
    model: Path

    @property
    def training_seconds(self) -> float:
        """Training time alone."""
        return float(self.metrics[-1]["seconds"])

    @property
    def passes(self) -> float:
        """Passes over the training rows."""
        return float(self.metrics[-1]["passes"])

    @property
    def rows_per_second(self) -> float:
        """Rows that all workers together processed in a second of training."""
        return float(self.metrics[-1]["rows_per_second"])

    def seconds_to_objective(self, objective: float) -> float:
        """Return the training time at which an objective was reached, infinite if it never was.

        Between two measurements by a straight line.
        """
        return self._seconds_to([-line["objective"] for line in self.metrics], -objective)

    def seconds_to_accuracy(self, accuracy: float) -> float:
        """Return the same for an accuracy on the measured rows."""
        return self._seconds_to([line["accuracy"] for line in self.metrics], accuracy)

    def _seconds_to(self, measured: list[float], wanted: float) -> float:
        """Return when what was measured first rose to this."""
        reached = next((n for n, value in enumerate(measured) if value >= wanted), None)
        if reached is None:
            return math.inf
        seconds = [line["seconds"] for line in self.metrics[: reached + 1]]
        if reached == 0:
            return float(seconds[0])
        share = (wanted - measured[reached - 1]) / (measured[reached] - measured[reached - 1])
        return float(seconds[-2] + share * (seconds[-1] - seconds[-2]))


def train(
    data: Path,
    run: Path,
    workers: int,
    *options: str,
    python: str = sys.executable,
    module: str = "mpisgd",
    settings: Mapping[str, str] = MappingProxyType({}),
    nodes: int = 1,
    timeout: float = TIMEOUT,
) -> Training:
    """Train on workers + 1 ranks with mpirun, into the directory `run`, which is overwritten.

    `module` is this program or one that starts it, `settings` are environment variables. MPICH takes the ranks for
    those of so many `nodes`: every second of two, and so on.

    Raises:
        RunFailedError: it ended with an error, or not within `timeout` seconds.

    """
    launcher = (mpirun(python), "-n", str(workers + 1))
    arguments = (module, "--data", str(data), "--run-dir", str(run), "--force", *options)
    began_at = time.time()
    of_nodes = {"MPIR_CVAR_NUM_CLIQUES": str(nodes)} if nodes > 1 else {}
    settings = {**settings, **of_nodes}
    seconds, ranks = run_module(*arguments, launcher=launcher, python=python, settings=settings, timeout=timeout)
    events = {line["event"]: line for line in json_lines(run / "events.jsonl")}
    ready_at = datetime.fromisoformat(events["training"]["time"]).timestamp()
    test = events["finished"]["test"]
    return Training(
        process_seconds=seconds,
        ready_seconds=ready_at - began_at,
        metrics=json_lines(run / "metrics.jsonl"),
        test_accuracy=test["accuracy"] if test else math.nan,
        ranks=ranks,
        model=run / "model.h5",
    )


def run_module(
    module: str,
    *arguments: str,
    launcher: Sequence[str] = (),
    python: str = sys.executable,
    threads: int = 1,
    settings: Mapping[str, str] = MappingProxyType({}),
    timeout: float = TIMEOUT,
) -> tuple[float, list[Usage]]:
    """Run `python -m module arguments` behind a launcher; return the wall time in seconds and each rank's usage.

    `settings` are environment variables.

    Raises:
        RunFailedError: as for `run_command`.

    """
    with tempfile.TemporaryDirectory() as directory:
        command = [*launcher, python, "-m", "benchmarks.rank_usage", module, *arguments]
        environment = {DIRECTORY: directory, "OMP_NUM_THREADS": str(threads), **settings}
        seconds = run_command(command, environment, python=python, timeout=timeout)
        files = sorted(Path(directory).iterdir(), key=lambda path: int(path.stem))
        return seconds, [Usage(**json.loads(file.read_text())) for file in files]


def run_command(
    command: Sequence[str], environment: dict[str, str], *, python: str = sys.executable, timeout: float = TIMEOUT
) -> float:
    """Run a command from the repository's root to its end; return the wall time in seconds.

    Raises:
        RunFailedError: its exit code was not 0, or it did not end within `timeout` seconds.

    """
    with tempfile.TemporaryFile() as said:
        began = time.perf_counter()
        process = start(command, environment, python=python, said=said)
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            end(process)
            raise RunFailedError(f"{' '.join(command)}: did not end within {timeout:g} s") from None
        seconds = time.perf_counter() - began
        said.seek(0)
        words = said.read().decode(errors="replace").strip().splitlines()
    if code != 0:
        raise RunFailedError(f"{' '.join(command)}: exit code {code}: {' / '.join(words[-3:])}")
    return seconds


def start(
    command: Sequence[str], environment: dict[str, str], *, python: str = sys.executable, said: Any = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """Start a command from the repository's root, with no settings but these from the surroundings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    flavoured = OPEN_MPI if mpi_flavour(python) == "Open MPI" else {}
    places = {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])}
    return subprocess.Popen(  # noqa: S603 - the commands are ours
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=said,
        stderr=subprocess.STDOUT,
        env={**kept, "OMP_NUM_THREADS": "1", **flavoured, **places, **environment},
    )


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end, as mpirun passes on to its ranks; kill it when it does not."""
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def mpirun(python: str) -> str:
    """Return the mpirun beside a Python, or else the one on the path."""
    beside = Path(python).with_name("mpirun")
    return str(beside) if beside.exists() else "mpirun"


@functools.cache
def mpi_flavour(python: str) -> str:
    """Return the MPI of a Python's mpirun: "Open MPI" or "MPICH"."""
    command = [mpirun(python), "--version"]
    words = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603
    return "Open MPI" if "Open MPI" in words else "MPICH"


def json_lines(path: Path) -> list[dict[str, Any]]:
    """Return what is in a file of one JSON object a line."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def timed(call: Callable[[], object], repeats: int = 1) -> float:
    """Return the median wall time of a call in seconds."""
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)
