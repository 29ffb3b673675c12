"""Whether somebody watches: rank 0's own standard output says little, for launchers put themselves between.

Open MPI gives each rank a pseudo-terminal even when its own output goes to a file, MPICH gives a pipe even when a
person watches. So what counts is the launcher's standard output, found among this process's ancestors.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

LAUNCHERS = {"mpirun", "mpiexec", "mpiexec.hydra", "prterun", "orterun", "srun"}
DEFAULT_COLUMNS = 80


def watched_columns() -> int | None:
    """Return the width of the terminal that shows the output, or None where none does (or none is found)."""
    for process in _ancestors(os.getpid()):
        if _name(process) in LAUNCHERS:
            return _columns(Path(f"/proc/{process}/fd/1"))
    launched = any(name in os.environ for name in ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK"))
    return None if launched or not sys.stdout.isatty() else os.get_terminal_size(1).columns or DEFAULT_COLUMNS


def _ancestors(process: int) -> Iterator[int]:
    while process > 1:
        try:
            # "pid (name) state parent ...": the name may hold blanks and brackets, so count from its end
            process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return
        yield process


def _name(process: int) -> str:
    try:
        return Path(f"/proc/{process}/comm").read_text().strip()
    except OSError:
        return ""


def _columns(output: Path) -> int | None:
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_NOCTTY)
    except OSError:
        return None
    try:
        return os.get_terminal_size(descriptor).columns or DEFAULT_COLUMNS
    except OSError:
        return None
    finally:
        os.close(descriptor)
