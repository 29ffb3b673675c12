"""What a turn costs: turns a second against bare messages as large, and bytes against the changes they carry."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from benchmarks.bench import Bench
from benchmarks.measure import ROOT, mpirun
from benchmarks.report import Claim, Result

SMALL = ("--batch-size", "10", "--iterations", "1")
LONG_TURN = 640  # rows
BYTES_OF_A_CHANGE = 8
SECONDS = 2.0
WAYS = {"": "auto", ", by messages": "never"}
THRESHOLD = 0.25  # lets about one value in twenty of RCV1's turns pass


def run(bench: Bench) -> Result:
    """Run small turns and the same bytes bare, then long turns, once for each seed."""
    result = Result("turns", f"asynchronous turns on {bench.base.name}")
    for seed in bench.seeds:
        for workers in (1, 2, 8):
            add_small(bench, result, workers, seed)
        add_long(bench, result, seed)
        for share in (0.0, THRESHOLD):
            add_threshold(bench, result, share, seed)
    for workers in (1, 2, 8):
        row = f"small turns, {workers} workers"
        share = result.median(row, "turns/s") / result.median(row, "bare turns/s")
        result.claims.append(Claim(f"{row}: turns/s, of bare mpi4py's", share, 0.8, at_least=True))
    result.claims.append(
        Claim(
            f"turns of {LONG_TURN} rows: bytes, over {BYTES_OF_A_CHANGE} a change each way",
            result.median("long turns", "bytes ratio"),
            1.2,
        )
    )
    add_threshold_claims(result)
    result.notes.append(
        "Bare turns are messages as large, there and back, that nothing is done with. On one node turns are exchanged"
        " in memory; their bytes are what they would take as messages."
    )
    return result


def last_of(bench: Bench, workers: int, seed: int, *options: str) -> tuple[dict[str, Any], float]:
    """Train asynchronously; return the last measurement and the test accuracy."""
    training = bench.train(bench.base.path, "async", workers, seed, "--patience", "none", *options)
    return training.metrics[-1], training.test_accuracy


def add_small(bench: Bench, result: Result, workers: int, seed: int) -> None:
    """Add the turns a second of turns of ten rows, which change some 600 weights, and of bare messages as large."""
    row = f"small turns, {workers} workers"
    for way, memory in WAYS.items():
        limits = ("--passes", "none", "--max-seconds", str(SECONDS), "--shared-memory", memory)
        last, _ = last_of(bench, workers, seed, *SMALL, *limits)
        size = (last["bytes_up_per_update"] + last["bytes_down_per_update"]) / 2
        result.figure(row + way, "turns/s", last["updates_per_second"])
        result.figure(row + way, "bytes each way", size)
    ranks = [mpirun(sys.executable), "-n", str(workers + 1)]
    bare = said_by(*ranks, sys.executable, "-m", "benchmarks.ping_pong", str(round(size)), str(SECONDS))
    result.figure(row, "bare turns/s", float(bare))


def said_by(*command: str) -> str:
    """Run a command and return what it printed."""
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout  # noqa: S603


def add_long(bench: Bench, result: Result, seed: int) -> None:
    """Add the bytes of turns of 640 rows at eight workers against what their changes need."""
    last, accuracy = last_of(bench, 8, seed, "--iterations", str(LONG_TURN // 8), "--passes", "10")
    need = 2 * BYTES_OF_A_CHANGE * last["changes_sent"]
    result.figure("long turns", "bytes ratio", (last["bytes_up"] + last["bytes_down"]) / need)
    result.figure("long turns", "changes a turn", last["changes_sent"] / last["updates"])
    result.figure("long turns", "accuracy", accuracy)


def add_threshold(bench: Bench, result: Result, threshold: float, seed: int) -> None:
    """Add accuracy and bytes of a run of ten passes with a threshold."""
    last, accuracy = last_of(bench, 8, seed, "--gradient-threshold", str(threshold), "--passes", "10")
    row = f"threshold {threshold:g}"
    result.figure(row, "accuracy", accuracy)
    result.figure(row, "values a turn", last["changes_sent"] / last["updates"])
    result.figure(row, "bytes up a turn", last["bytes_up_per_update"])


def add_threshold_claims(result: Result) -> None:
    """Hold the run with a threshold to the one without."""
    every, few = "threshold 0", f"threshold {THRESHOLD:g}"
    passed = result.median(few, "values a turn") / result.median(every, "values a turn")
    short = result.median(every, "accuracy") - result.median(few, "accuracy")
    fewer = result.median(every, "bytes up a turn") / result.median(few, "bytes up a turn")
    result.claims += [
        Claim(f"{few}: share of the values that pass", passed, 0.06),
        Claim(f"{few}: accuracy short of the full exchange's", short, 0.003),
        Claim(f"{few}: bytes up, times fewer", fewer, 8.0, at_least=True),
    ]
