"""Runs the parts that are asked for, or all but `WHEN_NAMED`, and leaves what they found in the output directory."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks import (
    defaults,
    delay,
    idle,
    kernel,
    many_workers,
    memory,
    nodes,
    one_node,
    optimum,
    rcv1,
    report,
    scaling,
    turns,
    two_workers,
    whole_process,
    wide,
)
from benchmarks.bench import Bench
from benchmarks.measure import ROOT, RunFailedError, mpi_flavour
from benchmarks.sets import base_set

PARTS: dict[str, Callable[[Bench], report.Result]] = {
    "rcv1": rcv1.run,
    "kernel": kernel.run,
    "two-workers": two_workers.run,
    "scaling": scaling.run,
    "optimum": optimum.run,
    "whole-process": whole_process.run,
    "defaults": defaults.run,
    "idle": idle.run,
    "memory": memory.run,
    "many-workers": many_workers.run,
    "turns": turns.run,
    "wide": wide.run,
    "delay": delay.run,
    "one-node": one_node.run,
    "nodes": nodes.run,
}
WHEN_NAMED = ("memory", "many-workers", "turns", "wide", "delay", "one-node", "nodes")
PACKAGES = ("mpisgd", "numpy", "scipy", "scikit-learn", "liblinear-official", "vowpalwabbit", "snapml")


def main() -> int:
    """Return 0 when every claim holds, else 1."""
    options = parse()
    directory: Path = options.out.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    pythons = (sys.executable, *([options.other_python] if options.other_python else []))
    bench = Bench(directory, base_set(options.data, directory), options.copies, range(options.seeds), pythons)
    results = []
    for name in options.parts or [part for part in PARTS if part not in WHEN_NAMED]:
        began = time.perf_counter()
        results.append(run_part(name, bench))
        print(report.section(results[-1]), f"\n({time.perf_counter() - began:.0f} s)\n", flush=True)
        report.write(directory, facts(bench), results)
    print(f"{directory}: results.md, results.json and, of two-workers, accuracy.png")
    return 0 if all(claim.holds for result in results for claim in result.claims) else 1


def parse() -> argparse.Namespace:
    """Return the options of the command line; exit with 2 when they are wrong."""
    made = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    made.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    made.add_argument("--data", type=Path, help="a prepared file with a test split, RCV1's; none: generated rows")
    made.add_argument("--out", type=Path, default=ROOT / "build" / "bench", help="directory to write to")
    made.add_argument("--seeds", type=int, default=5, help="runs of what is repeated; fewer for a trial")
    made.add_argument("--copies", type=int, default=35, help="of the rows in the full-size set; fewer for a trial")
    made.add_argument("--other-python", help="the interpreter of an environment with another MPI, for idle")
    options = made.parse_args()
    unknown = [part for part in options.parts if part not in PARTS]
    if unknown:
        made.error(f"no such part: {' '.join(unknown)}; expected some of {' '.join(PARTS)}")
    return options


def run_part(name: str, bench: Bench) -> report.Result:
    """Run a part; one that fails does not end the others, and its claim does not hold."""
    try:
        return PARTS[name](bench)
    except RunFailedError as error:
        reason = str(error)
    except Exception:  # a defect of one part
        reason = traceback.format_exc()
    return report.Result(
        name, "failed", [report.Claim("parts that ran to their end", 0, 1, at_least=True)], notes=[reason]
    )


def facts(bench: Bench) -> dict[str, object]:
    """Return what a reader must know of the run: machine, software, date, rows, seeds."""
    packages = {name: installed(name) for name in PACKAGES}
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "mpi": ", ".join(mpi_flavour(python) for python in bench.pythons),
        "packages": ", ".join(f"{name} {number}" for name, number in packages.items()),
        "rows": f"{bench.base.name}, and {bench.copies} copies of them as the full-size set",
        "seeds": ", ".join(map(str, bench.seeds)),
    }


def installed(package: str) -> str:
    """Return the version of a package, or that it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def processor() -> str:
    """Return the processor's name, as far as the system tells."""
    path = Path("/proc/cpuinfo")
    for line in path.read_text().splitlines() if path.exists() else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def commit() -> str:
    """Return the commit that is measured, marked where files have changed since."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=10"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603
    return found.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
