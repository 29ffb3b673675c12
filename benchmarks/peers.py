"""What a user might pick instead, each in a process of its own, on one split of a prepared file.

    python -m benchmarks.peers "scikit-learn SGDClassifier" FILE.h5 LAMBDA SEED OUT.json

A peer takes a task and yields points: how long it has trained, how many passes, and the weights then. Its clock
stands still while it is not learning; `main` measures the weights meanwhile. lambda is the same for all.
"""

from __future__ import annotations

import json
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from benchmarks import scores, sets
from benchmarks.measure import Usage, run_module

SGD_PASSES, SGD_POINTS_A_PASS = 3, 4
ROUNDS = (1, 2, 4, 8)  # of solvers that must start afresh for each number of rounds
VW_CONSTANT, VW_BITS = 11_650_396, 18


@dataclass(frozen=True, slots=True)
class Task:
    """What to learn from; `path` is the file the rows are from, beside which a peer may keep files of its own."""

    rows: csr_matrix
    labels: scores.Labels
    regularization: float
    seed: int
    path: Path


@dataclass(frozen=True, slots=True)
class Point:
    """Weights after so many seconds of learning; passes is no number where the solver does not say."""

    seconds: float
    passes: float
    weights: scores.Weights


@dataclass(frozen=True, slots=True)
class PeerRun:
    """What one peer did: measured points in order, seconds to load the rows, what its process used."""

    points: list[dict[str, float]]
    load_seconds: float
    usage: Usage

    def seconds_to(self, accuracy: float, *, within_passes: bool = False) -> float:
        """Return the least training time that reached a test accuracy, infinite if none did.

        Only whole passes count, after which a solver's users can stop it, unless `within_passes`.
        """
        points = [p for p in self.points if within_passes or not p["passes"] % 1 > 0]
        return min((p["seconds"] for p in points if p["accuracy"] >= accuracy), default=math.inf)

    @property
    def rows_per_second(self) -> float:
        """Rows processed in a second of training, over the whole run; no number where passes are not known."""
        return self.points[-1]["rows"] * self.points[-1]["passes"] / self.points[-1]["seconds"]


def sgd_classifier(task: Task) -> Iterator[Point]:
    """One pass after the other, in parts of a pass so that the accuracy within the first is seen as well."""
    from sklearn.linear_model import SGDClassifier  # noqa: PLC0415 - each process needs one solver alone

    solver = SGDClassifier(alpha=task.regularization, random_state=task.seed)
    cuts = np.linspace(0, task.rows.shape[0], SGD_POINTS_A_PASS + 1).astype(int)
    parts = [(sets.part(task.rows, a, b), task.labels[a:b]) for a, b in pairwise(cuts)]
    seconds = 0.0
    for step in range(SGD_PASSES * SGD_POINTS_A_PASS):
        began = time.perf_counter()
        solver.partial_fit(*parts[step % SGD_POINTS_A_PASS], classes=[-1, 1])
        seconds += time.perf_counter() - began
        yield Point(seconds, (step + 1) / SGD_POINTS_A_PASS, scores.with_bias(solver.coef_, solver.intercept_))


def linear_svc(task: Task) -> Iterator[Point]:
    """LIBLINEAR by way of scikit-learn, stopped after a number of rounds."""
    from sklearn.svm import LinearSVC  # noqa: PLC0415

    for rounds in ROUNDS:
        solver = LinearSVC(loss="hinge", C=penalty_factor(task), max_iter=rounds, random_state=task.seed)
        yield fitted(solver, task, rounds)


def snap_ml(threads: int) -> Callable[[Task], Iterator[Point]]:
    """IBM's Snap ML on so many threads, stopped after a number of rounds."""

    def fit(task: Task) -> Iterator[Point]:
        from snapml import SupportVectorMachine  # noqa: PLC0415

        weight = task.regularization * len(task.labels)
        for rounds in ROUNDS:
            settings = {"fit_intercept": True, "n_jobs": threads, "random_state": task.seed}
            yield fitted(SupportVectorMachine(max_iter=rounds, regularizer=weight, **settings), task, rounds)

    return fit


def fitted(solver: Any, task: Task, rounds: int) -> Point:
    """Fit a solver of scikit-learn's kind afresh."""
    began = time.perf_counter()
    solver.fit(task.rows, task.labels)
    seconds = time.perf_counter() - began
    return Point(seconds, rounds, scores.with_bias(solver.coef_, solver.intercept_))


def liblinear(task: Task) -> Iterator[Point]:
    """LIBLINEAR itself, its dual for the hinge loss, to its own default tolerance."""
    from liblinear.liblinearutil import problem, train  # noqa: PLC0415

    given = problem(task.labels.astype(np.float64), task.rows)
    began = time.perf_counter()
    model = train(given, f"-s 3 -c {penalty_factor(task)} -B 1 -q")
    seconds = time.perf_counter() - began
    weights, bias = model.get_decfun()
    yield Point(seconds, math.nan, model.get_labels()[0] * scores.with_bias(weights, bias))


def vowpal_wabbit(task: Task) -> Iterator[Point]:
    """Vowpal Wabbit from its own binary cache, which is made before, as it cannot be given rows in memory."""
    from vowpalwabbit import Workspace  # noqa: PLC0415

    text = task.path.with_suffix(".vw")
    common = f"-d {text} --cache_file {text}.cache --quiet --holdout_off --loss_function hinge -b {VW_BITS}"
    if not text.exists():
        partial = text.with_suffix(".partial")
        with partial.open("wb") as file:
            for block in sets.svmlight(sets.Split(task.rows, task.labels)):
                file.write(block.replace(b"+1 ", b"1 | ").replace(b"-1 ", b"-1 | "))
        partial.replace(text)
        Workspace(f"{common} --noop").finish()
    for passes in (1, 2):
        began = time.perf_counter()
        solver = Workspace(f"{common} --l2 {task.regularization} --passes {passes}")
        seconds = time.perf_counter() - began
        weights = [solver.get_weight_from_name(str(column + 1)) for column in range(task.rows.shape[1])]
        bias = solver.get_weight(VW_CONSTANT & (2**VW_BITS - 1))
        solver.finish()
        yield Point(seconds, passes, scores.with_bias(weights, bias))


def penalty_factor(task: Task) -> float:
    """Return LIBLINEAR's C for lambda: it minimises 1/2 ||w||^2 + C sum of losses."""
    return 1 / (task.regularization * len(task.labels))


PEERS: dict[str, Callable[[Task], Iterator[Point]]] = {
    "scikit-learn SGDClassifier": sgd_classifier,
    "scikit-learn LinearSVC": linear_svc,
    "LIBLINEAR": liblinear,
    "Vowpal Wabbit": vowpal_wabbit,
    "Snap ML, 1 thread": snap_ml(1),
    "Snap ML, 2 threads": snap_ml(2),
}


def run_peer(name: str, data: sets.LearningSet, seed: int, directory: Path) -> PeerRun:
    """Run a peer in a process of its own.

    Raises:
        RunFailedError: it is not installed, or failed.

    """
    out = directory / "peer.json"
    arguments = (name, str(data.path), repr(data.regularization), str(seed), str(out))
    _, usage = run_module("benchmarks.peers", *arguments, threads=2 if "2 threads" in name else 1)
    found = json.loads(out.read_text())
    return PeerRun(found["points"], found["load_seconds"], usage[0])


def main(name: str, path: str, regularization: str, seed: str, out: str) -> None:
    """Load the rows, let the peer learn, measure its weights, write the points."""
    warnings.simplefilter("ignore")  # that a bounded number of rounds has not converged is meant
    began = time.perf_counter()
    train = sets.load(Path(path), "train")
    load_seconds = time.perf_counter() - began
    test = sets.load(Path(path), "test")
    task = Task(train.rows, train.labels, float(regularization), int(seed), Path(path))
    points = [
        {
            "seconds": point.seconds,
            "passes": point.passes,
            "rows": len(train.labels),
            "accuracy": scores.accuracy(point.weights, test.rows, test.labels),
            "objective": scores.objective(point.weights, train.rows, train.labels, task.regularization),
        }
        for point in PEERS[name](task)
    ]
    Path(out).write_text(json.dumps({"points": points, "load_seconds": load_seconds}))


if __name__ == "__main__":
    main(*sys.argv[1:])
