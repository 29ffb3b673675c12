"""Runs a module as `python -m` does, and writes what the process used to a file of its own when it ends.

    RANK_USAGE=DIRECTORY mpirun -n 3 python -m benchmarks.rank_usage mpisgd --data rcv1.h5

leaves DIRECTORY/0.json to 2.json. It is written at exit, after all else, however the module ends but by a signal.
"""

from __future__ import annotations

import atexit
import json
import os
import resource
import runpy
import sys
from pathlib import Path

DIRECTORY = "RANK_USAGE"
RANK_VARIABLES = ("PMI_RANK", "OMPI_COMM_WORLD_RANK")


def main() -> None:
    """Run the module that the command line names, with the arguments after it."""
    atexit.register(write_usage, Path(os.environ[DIRECTORY], f"{own_rank()}.json"))
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def own_rank() -> int:
    """Return this process's rank as the launcher says it, 0 without one."""
    return next((int(os.environ[name]) for name in RANK_VARIABLES if name in os.environ), 0)


def write_usage(path: Path) -> None:
    """Write CPU seconds, user and system, and the most memory held, in bytes."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    facts = {"cpu_seconds": used.ru_utime + used.ru_stime, "peak_bytes": peak_bytes(used.ru_maxrss)}
    path.write_text(json.dumps(facts))


def peak_bytes(peak_kilobytes: int) -> int:
    """Return VmHWM, or else the given ru_maxrss, which may be the parent's from before this program was started."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    found = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), peak_kilobytes)
    return 1024 * found


if __name__ == "__main__":
    main()
