"""Starts the program the way its users do: under the environment's own mpirun, MPICH's or Open MPI's, or alone.

Every job carries a mark in its environment, so that its processes are found whatever their parents do, and at the
end of a job it is asserted that none is left.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil

from mpisgd.main import main

MARK = "JOB_OF_A_TEST"
RANK_VARIABLES = ("PMI_RANK", "OMPI_COMM_WORLD_RANK")
FOREIGN = ("MPISGD_", "OMP_", "PMI_", "PMIX_", "OMPI_COMM_WORLD_")  # what the tests' own surroundings may have set
OPEN_MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": "slot:oversubscribe",
    "PRTE_MCA_hwloc_default_binding_policy": "none",
}
# What launchers add: MPICH's banner and its last words; Open MPI's paragraphs between two rules, and what its event
# loop says of a rank's pipe that closed before it was looked at.
_PARAGRAPH = re.compile(r"^-{40,}\n.*?^-{40,}\n", re.MULTILINE | re.DOTALL)
_BANNER = re.compile(
    r"^(?:={40,}|=   .*|YOUR APPLICATION TERMINATED WITH.*|This typically refers to a problem.*|Please see the FAQ.*"
    r"|Abort\(\d+\) on node .*|\[mpiexec@.*|\[warn\] Epoll .*)\n",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Ended:
    """How a job ended: mpirun's exit code, and what the program wrote, without what the launcher added."""

    code: int
    out: str
    errors: str

    @property
    def error_lines(self) -> list[str]:
        return [line for line in self.errors.splitlines() if line.strip()]

    @property
    def said(self) -> list[str]:
        """The program's own lines on standard error."""
        return [line for line in self.error_lines if line.startswith("mpisgd")]


class Job:
    """A started job; a context manager that kills whatever is left of it."""

    def __init__(
        self,
        *arguments: str | Path,
        ranks: int = 3,
        program: tuple[str, ...] = ("-m", "mpisgd"),
        settings: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        """Start it: on so many ranks, or with ranks=0 without mpirun; `settings` are environment variables."""
        self._mark = uuid.uuid4().hex
        launcher = [mpirun(), "-n", str(ranks)] if ranks else []
        self._command = [*launcher, sys.executable, *program, *map(str, arguments)]
        # Files, for a pipe that nobody reads would fill up.
        self._out, self._errors = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 - see __exit__
        self.process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._errors,
            cwd=cwd,
            env={**clean_environment(), **(settings or {}), MARK: self._mark},
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()
        self._out.close()
        self._errors.close()

    def ranks(self) -> dict[int, int]:
        """Return the pids of the job's living ranks, by rank."""
        environments = self._environments()
        return {
            int(environment[name]): process
            for process, environment in environments.items()
            for name in RANK_VARIABLES
            if name in environment
        }

    def kill(self) -> None:
        """Kill every process of the job."""
        for pid in self._environments():
            with contextlib.suppress(psutil.Error):
                psutil.Process(pid).kill()
        self.process.wait(10)

    def finish(self, timeout: float = 60) -> Ended:
        """Wait for the job's end, and see that it leaves no process."""
        try:
            self.process.wait(timeout)
            wait_until(lambda: not self._environments(), 5, "the end of all the job's processes")
        except (subprocess.TimeoutExpired, AssertionError) as error:
            left = [" ".join(psutil.Process(pid).cmdline()) for pid in self._environments()]
            raise AssertionError(f"{error}; left: {left}; said: {self._read()}") from None
        return self._read()

    def _read(self) -> Ended:
        texts = []
        for file in (self._out, self._errors):
            file.seek(0)
            text = file.read().decode(errors="replace").replace("\r\n", "\n")
            texts.append(_BANNER.sub("", _PARAGRAPH.sub("", text)))
        return Ended(self.process.poll() if self.process.poll() is not None else -1, *texts)

    def _environments(self) -> dict[int, dict[str, str]]:
        """Return the environments of the job's living processes, by pid."""
        found = {}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                environment = process.environ()
                if environment.get(MARK) == self._mark and process.status() != psutil.STATUS_ZOMBIE:
                    found[process.pid] = environment
        return found


def run(*arguments: str | Path, timeout: float = 60, **options: Any) -> Ended:
    """Start a job and wait for its end; the options are those of `Job`."""
    with Job(*arguments, **options) as job:
        return job.finish(timeout)


def serial(*arguments: str | Path, settings: Mapping[str, str] | None = None) -> Ended:
    """Run a command that needs no MPI in this process."""
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            code = main([str(argument) for argument in arguments], settings or {})
        except SystemExit as error:  # --help
            code = int(error.code or 0)
    return Ended(code, out.getvalue(), errors.getvalue())


def wait_until(condition: Callable[[], object], seconds: float = 30, what: str = "what was waited for") -> None:
    """Poll a condition until it holds; AssertionError when it still does not after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come within {seconds} s"
        time.sleep(0.02)


def clean_environment() -> dict[str, str]:
    """Return this process's environment as a child's: no settings of ours, one thread, what the launcher needs."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    return {**kept, "OMP_NUM_THREADS": "1", **(OPEN_MPI if flavour() == "openmpi" else {})}


@functools.cache
def flavour() -> str:
    """Return which launcher there is: "mpich" or "openmpi"."""
    said = subprocess.run([mpirun(), "--version"], check=True, capture_output=True, text=True).stdout
    return "openmpi" if "Open MPI" in said else "mpich"


@functools.cache
def mpirun() -> str:
    """Return the mpirun beside this Python, or else the one on the path."""
    beside = Path(sys.executable).with_name("mpirun")
    found = str(beside) if beside.exists() else shutil.which("mpirun")
    assert found is not None, "no mpirun beside this Python or on the path: pip install 'mpisgd[mpich]'"
    return found


def json_lines(path: Path) -> list[dict[str, Any]]:
    """Return what is in a file of one JSON object a line; a missing file has none, nor has a line under way."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]
