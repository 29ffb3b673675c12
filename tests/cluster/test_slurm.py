"""jobs/train.sbatch under a Slurm of three virtual nodes: a job's state says how training ended, whatever MPI it is."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from clusters import HERE, MARKS, REPOSITORY, each_environment, outer_variables

from conftest import Small
from launch import RANK_VARIABLES, json_lines, wait_until

pytestmark = MARKS

SCRIPT = REPOSITORY / "jobs" / "train.sbatch"
NINE_RANKS = ("-N", "3", "-n", "9", "--ntasks-per-node", "3")
WITHOUT_END = ("--passes", "none", "--patience", "none", "--max-seconds", "120")
RUNNING = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING")


@dataclass(frozen=True)
class Slurm:
    """Submits jobs from a directory and says how they ended."""

    directory: Path
    variables: dict[str, str]

    def submit(self, *arguments: str | Path, options: tuple[str, ...] = NINE_RANKS, **variables: str) -> str:
        """Return the number of a new job; the variables are environment variables."""
        command = ["sbatch", "--parsable", "--output=%j.out", *options, str(SCRIPT), *map(str, arguments)]
        return self._call(*command, **variables).strip()

    def cancel(self, *arguments: str) -> None:
        self._call("scancel", *arguments)

    def end(self, job: str) -> tuple[str, int]:
        """Wait for the job's end; return its state and the script's exit code."""
        wait_until(lambda: self._field(job, "JobState") not in RUNNING, 120, f"the end of job {job}: {self.said(job)}")
        return self._field(job, "JobState"), int(self._field(job, "ExitCode").split(":")[0])

    def said(self, job: str) -> str:
        """Return what the job wrote so far."""
        file = self.directory / f"{job}.out"
        return file.read_bytes().decode(errors="replace") if file.exists() else ""

    def left(self, job: str) -> list[str]:
        """Return the names of what the job left in the directory it was submitted from, besides its output."""
        return [path.name for path in self.directory.iterdir() if job in path.name and path.name != f"{job}.out"]

    def _field(self, job: str, name: str) -> str:
        words = self._call("scontrol", "show", "job", job, "--oneliner").split()
        return next(word.removeprefix(f"{name}=") for word in words if word.startswith(f"{name}="))

    def _call(self, *command: str, **variables: str) -> str:
        done = subprocess.run(
            command,
            check=True,
            cwd=self.directory,
            env={**self.variables, **variables},
            stdout=subprocess.PIPE,
            text=True,
        )
        return done.stdout


@pytest.fixture(scope="module")
def slurm_conf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The configuration of a running Slurm."""
    directory = tmp_path_factory.mktemp("slurm")
    script = HERE / "slurm_up.sh"
    try:
        subprocess.run(["bash", script, "up", directory], check=True, timeout=300)
        yield directory / "slurm.conf"
    finally:
        subprocess.run(["bash", script, "down", directory], check=True, timeout=60)


@pytest.fixture
def slurm(slurm_conf: Path, tmp_path: Path) -> Iterator[Slurm]:
    """Slurm, as seen from a directory of the test's own; jobs left over end with the test."""
    cluster = Slurm(tmp_path, {**outer_variables(), "SLURM_CONF": str(slurm_conf)})
    yield cluster
    cluster.cancel("--user=root")


@pytest.fixture
def training(slurm: Slurm, environment: Path, small: Small) -> str:
    """A job in the midst of training on nine ranks; it leaves the directory `run`."""
    arguments = ("--data", small.h5, "--run-dir", "run", *WITHOUT_END)
    job = slurm.submit(*arguments, MPISGD_VENV=str(environment))
    begun = slurm.directory / "run" / "metrics.jsonl"
    wait_until(lambda: json_lines(begun), 60, f"the first measurement of job {job}")
    return job


@each_environment
def test_a_job_that_is_done_has_completed(slurm: Slurm, environment: Path, small: Small) -> None:
    job = slurm.submit("--data", small.h5, "--run-dir", "run", "--passes", "2", MPISGD_VENV=str(environment))
    assert slurm.end(job) == ("COMPLETED", 0), slurm.said(job)
    assert (slurm.directory / "run" / "model.h5").exists()
    (begun,) = [event for event in events(slurm) if event["event"] == "training"]
    assert begun["workers"] == 8
    assert slurm.left(job) == []


@each_environment
def test_defaults_are_those_of_the_directory_sbatch_was_called_in(
    slurm: Slurm, environment: Path, small: Small
) -> None:
    (slurm.directory / ".venv").symlink_to(environment)
    job = slurm.submit("--data", small.h5, "--passes", "2", options=("-N", "1", "-n", "3"))
    assert slurm.end(job) == ("COMPLETED", 0), slurm.said(job)
    assert (slurm.directory / "runs" / f"slurm-{job}" / "model.h5").exists()


def test_without_an_environment_the_job_fails_with_a_word(slurm: Slurm) -> None:
    job = slurm.submit(options=("-n", "3"), MPISGD_VENV="/nowhere")
    assert slurm.end(job) == ("FAILED", 2)
    assert slurm.said(job) == "train.sbatch: no Python environment at /nowhere: set MPISGD_VENV\n"


@each_environment
def test_a_wrong_setting_fails_the_job(slurm: Slurm, environment: Path) -> None:
    job = slurm.submit("--batch-size", "0", options=("-N", "1", "-n", "3"), MPISGD_VENV=str(environment))
    state, code = slurm.end(job)
    assert state == "FAILED"
    assert code != 0
    assert "--batch-size" in slurm.said(job)


@each_environment
def test_a_killed_rank_fails_the_job(slurm: Slurm, training: str) -> None:
    os.kill(ranks_of(training)[5], signal.SIGKILL)
    state, code = slurm.end(training)
    assert state == "FAILED"
    assert code != 0
    assert slurm.left(training) == []


@each_environment
def test_a_lost_daemon_of_mpirun_fails_the_job(slurm: Slurm, training: str) -> None:
    """As when a host dies: Open MPI's mpirun ends with 0 then."""
    daemons = [process for process in processes_of(training) if process.name() == "prted"]
    if not daemons:
        pytest.skip("this MPI is not Open MPI")
    daemons[-1].kill()
    assert slurm.end(training) == ("FAILED", 1)
    assert "train.sbatch: mpirun ended with 0, but rank 0 did not finish" in slurm.said(training)
    assert slurm.left(training) == []


@each_environment
def test_a_job_told_to_end_saves_its_model(slurm: Slurm, training: str) -> None:
    """As Slurm itself does a minute before the time limit."""
    slurm.cancel("--batch", "--signal=TERM", training)
    assert slurm.end(training) == ("COMPLETED", 0), slurm.said(training)
    assert (slurm.directory / "run" / "model.h5").exists()
    assert events(slurm)[-1]["reason"] == "signal SIGUSR1"


def events(slurm: Slurm) -> list[dict[str, object]]:
    return json_lines(slurm.directory / "run" / "events.jsonl")


def processes_of(job: str) -> list[psutil.Process]:
    """Return the living processes that Slurm or mpirun started for a job."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("SLURM_JOB_ID") == job and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def ranks_of(job: str) -> dict[int, int]:
    """Return the pids of a job's ranks, by rank."""
    return {
        int(process.environ()[name]): process.pid
        for process in processes_of(job)
        for name in RANK_VARIABLES
        if name in process.environ()
    }
