"""What the cores themselves allow: the kernel in processes that exchange nothing, alone and two at once."""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

from benchmarks import sets
from benchmarks.kernel import as_in_a_shard, one_pass
from mpisgd.beginning import SLOWEST_BIAS
from mpisgd.shard import LearningShard
from mpisgd.svm import LOSSES, Objective

PASSES = 5
LONGEST = 120.0  # s


def rows_per_second(path: Path, processes: int) -> float:
    """Return how many rows so many processes together take steps on in a second, each over its half of the rows.

    They begin together, and the last to end counts.
    """
    whole = as_in_a_shard(sets.load(path, "train"))
    half = len(whole.rows) // 2
    halves = [part(whole, 0, half), part(whole, half, 2 * half)][:processes]
    context = multiprocessing.get_context("fork")  # so that the rows are shared
    start, ends = context.Barrier(processes + 1, timeout=LONGEST), context.Queue()
    started = [context.Process(target=_learn, args=(some, start, ends)) for some in halves]
    for process in started:
        process.start()
    start.wait()
    began = time.perf_counter()
    seconds = max(ends.get(timeout=LONGEST) for _ in started) - began
    for process in started:
        process.join()
    return PASSES * processes * half / seconds


def part(shard: LearningShard, start: int, stop: int) -> LearningShard:
    """Return the rows start:stop as views."""
    some = slice(start, stop)
    return LearningShard(shard.rows.part(start, stop), shard.labels[some], shard.squared_norms[some])


def _learn(shard: LearningShard, start: Barrier, ends: Queue[float]) -> None:
    """Take the passes when all are ready, after one that warms up; put when they were done."""
    objective = Objective(LOSSES["hinge"], regularization=1e-6, has_bias=True, bias_step=SLOWEST_BIAS)
    one_pass(objective, shard)
    start.wait()
    for _ in range(PASSES):
        one_pass(objective, shard)
    ends.put(time.perf_counter())
