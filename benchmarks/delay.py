"""One worker of four five times as slow: what it costs each mode, and how far ahead of it the others get."""

from __future__ import annotations

import sys

from benchmarks.bench import Bench
from benchmarks.delayed import SECONDS, TIMES
from benchmarks.measure import json_lines, mpirun, run_command
from benchmarks.report import Claim, Result

WORKERS, SLOWER = 4, 5
TURN = 0.02  # s
BOUND = 4  # turns
WAYS = {
    "lock step": ("sync",),
    "asynchronous": ("async",),
    f"at most {BOUND} turns ahead": ("async", "--max-staleness", str(BOUND)),
}
LEFT = (WORKERS - 1 + 1 / SLOWER) / WORKERS  # of the rows, where each worker goes at its own pace


def run(bench: Bench) -> Result:
    """Run each way with all workers alike and with one slow, once for each seed."""
    result = Result(
        "delay", f"one of {WORKERS} workers {SLOWER} times slower, turns of {1e3 * TURN:g} ms, {bench.base.name}"
    )
    for seed in bench.seeds:
        for way in WAYS:
            for times in (1, SLOWER):
                add(bench, result, way, times, seed)
    kept = {way: result.median(slow(way), "rows/s") / result.median(way, "rows/s") for way in WAYS}
    bounded = f"at most {BOUND} turns ahead"
    result.claims = [
        Claim(f"asynchronous: rows/s that are left, of {LEFT:.2f}", kept["asynchronous"] / LEFT, 0.95, at_least=True),
        Claim("lock step: rows/s that are left", kept["lock step"], 1.1 / SLOWER),
        Claim("bounded: turns ahead of the slowest, most", max(result.rows[slow(bounded)]["turns ahead, most"]), BOUND),
        Claim(
            "unbounded: the same", min(result.rows[slow("asynchronous")]["turns ahead, most"]), BOUND + 1, at_least=True
        ),
    ]
    return result


def slow(way: str) -> str:
    """Return a way's name in the table where one worker is slow."""
    return f"{way}, one slow"


def add(bench: Bench, result: Result, way: str, times: int, seed: int) -> None:
    """Run once for three seconds and add what it did to the table."""
    directory = bench.directory / "run"
    options = [
        "--data",
        str(bench.base.path),
        "--mode",
        *WAYS[way],
        "--seed",
        str(seed),
        "--run-dir",
        str(directory),
        "--force",
    ]
    limits = ["--passes", "none", "--patience", "none", "--max-seconds", "3", "--iterations", "10"]
    command = [mpirun(sys.executable), "-n", str(WORKERS + 1), sys.executable, "-m", "benchmarks.delayed"]
    run_command([*command, *options, *limits], {SECONDS: str(TURN), TIMES: str(times)})
    last, row = json_lines(directory / "metrics.jsonl")[-1], way if times == 1 else slow(way)
    result.figure(row, "rows/s", last["rows_per_second"])
    result.figure(row, "turns ahead, most", last["turns_ahead_max"])
    result.figure(row, "staleness, most", last["staleness_max"])
