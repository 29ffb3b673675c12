"""The README's table: test accuracy and time of this program and of single-machine solvers on one data set.

    make results DATA=rcv1.h5

Every run is a whole process, started as a user starts it, over several seeds; the solvers are scikit-learn's, on
the same training rows, with what they call default but for SGDClassifier's penalty, which is set to ours.
Prints Markdown: medians, with the least and the most in brackets.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix, vstack
from sklearn.linear_model import SGDClassifier
from sklearn.svm import LinearSVC

from mpisgd.data.dataset import Dataset, open_dataset
from mpisgd.evaluation import score

RANKS = (2, 3, 9)


@dataclass
class Outcome:
    """One run: test accuracy, passes, seconds of training alone and of the whole process."""

    accuracy: float
    passes: float
    training_seconds: float
    process_seconds: float | None = None


def main() -> None:
    """Run all and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="a prepared file with a test split")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    rows = []
    for mode in ("sync", "async"):
        for ranks in RANKS:
            outcomes = [run_mpisgd(options.data, mode, ranks, seed) for seed in range(options.seeds)]
            rows.append((f"mpisgd {mode}, {ranks - 1} worker{'s' * (ranks > 2)}", outcomes))
    with open_dataset(options.data) as dataset:
        train, test = read(dataset, "train"), read(dataset, "test")
    for name, make in SOLVERS.items():
        rows.append((name, [run_solver(make(seed), train, test) for seed in range(options.seeds)]))
    print_table(options.data, options.seeds, rows)


def run_mpisgd(data: Path, mode: str, ranks: int, seed: int) -> Outcome:
    """Train in a process of its own."""
    with tempfile.TemporaryDirectory() as directory:
        command = ["mpirun", "-n", str(ranks), sys.executable, "-m", "mpisgd", "--data", str(data)]
        command += ["--mode", mode, "--seed", str(seed), "--run-dir", f"{directory}/run"]
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - the command is ours
        seconds = time.perf_counter() - began
        events = [json.loads(line) for line in Path(directory, "run/events.jsonl").read_text().splitlines()]
    finished = events[-1]
    return Outcome(finished["test"]["accuracy"], finished["passes"], finished["seconds"], seconds)


SOLVERS: dict[str, Callable[[int], Any]] = {
    "scikit-learn LinearSVC": lambda seed: LinearSVC(random_state=seed),
    "scikit-learn SGDClassifier": lambda seed: SGDClassifier(alpha=1e-5, random_state=seed),
}


def read(dataset: Dataset, split: str) -> tuple[csr_matrix, np.ndarray]:
    """Return a split as scikit-learn wants it."""
    blocks = list(dataset.blocks(split))
    parts = [csr_matrix((b.rows.values, b.rows.columns, b.rows.row_pointers - b.rows.row_pointers[0])) for b in blocks]
    for part in parts:
        part.resize(part.shape[0], dataset.column_count)
    return csr_matrix(vstack(parts)), np.concatenate([block.labels for block in blocks])


def run_solver(solver: Any, train: tuple[csr_matrix, np.ndarray], test: tuple[csr_matrix, np.ndarray]) -> Outcome:
    """Fit one solver."""
    began = time.perf_counter()
    solver.fit(*train)
    seconds = time.perf_counter() - began
    scores = score(solver.decision_function(test[0]).astype(np.float32), test[1])
    return Outcome(scores.accuracy, float(solver.n_iter_), seconds)


def print_table(data: Path, seeds: int, rows: list[tuple[str, list[Outcome]]]) -> None:
    """Print the table in Markdown."""
    today = datetime.now(UTC).date()
    print(f"{data.name}, {today}, {processor()}, {os.cpu_count()} cores, {mpi()}, {seeds} seeds:\n")
    print("| | test accuracy | passes | training (s) | whole process (s) |")
    print("|---|---|---|---|---|")
    for name, outcomes in rows:
        cells = [
            spread([o.accuracy for o in outcomes], "{:.4f}"),
            spread([o.passes for o in outcomes], "{:.1f}"),
            spread([o.training_seconds for o in outcomes], "{:.2f}"),
            spread([o.process_seconds for o in outcomes if o.process_seconds is not None], "{:.1f}"),
        ]
        print(f"| {name} | {' | '.join(cells)} |")


def spread(values: list[float], form: str) -> str:
    """Return the median, with the least and the most in brackets."""
    if not values:
        return ""
    middle, least, most = (form.format(value) for value in (statistics.median(values), min(values), max(values)))
    return f"{middle} ({least} to {most})"


def processor() -> str:
    """Return the processor's name, as far as the system tells."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def mpi() -> str:
    """Return the MPI that mpirun belongs to."""
    words = subprocess.run(["mpirun", "--version"], capture_output=True, text=True, check=True).stdout  # noqa: S607
    return "Open MPI" if "Open MPI" in words else "MPICH"


if __name__ == "__main__":
    main()
