"""What the cores themselves allow: the kernel in processes that exchange nothing, alone and two at once.

Two may wait for each other after each part of a pass, as in lock step: where one core is slower for a while, both are.
"""

from __future__ import annotations

import itertools
import mmap
import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np

from benchmarks import sets
from benchmarks.kernel import as_in_a_shard, one_pass
from mpisgd import hogwild_loops
from mpisgd.beginning import SLOWEST_BIAS
from mpisgd.shard import LearningShard
from mpisgd.svm import LOSSES, Objective

PASSES = 5
PARTS = 8  # of a pass: as many rounds as two workers have in it
LINE = 8  # numbers of a cache line
LONGEST = 120.0  # s


def rows_per_second(path: Path, processes: int, *, in_step: bool = False) -> float:
    """Return how many rows so many processes together take steps on in a second, each over its half of the rows.

    They begin together, and the last to end counts. `in_step` they wait for each other after each part of a pass.
    """
    whole = as_in_a_shard(sets.load(path, "train"))
    half = len(whole.rows) // 2
    context = multiprocessing.get_context("fork")  # so that the rows are shared
    start, ends = context.Barrier(processes + 1, timeout=LONGEST), context.Queue()
    meetings = np.frombuffer(mmap.mmap(-1, mmap.PAGESIZE), np.int64)[: processes * LINE].reshape(processes, LINE)

    def learn(number: int) -> None:
        def meet(meeting: int) -> None:
            while in_step and not hogwild_loops.meet(meetings, number, meeting, 0, looks=1_000):
                pass

        _learn(part(whole, number * half, (number + 1) * half), start, meet, ends)

    started = [context.Process(target=learn, args=(number,)) for number in range(processes)]
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


def _learn(shard: LearningShard, start: Barrier, meet: Callable[[int], None], ends: Queue[float]) -> None:
    """Take the passes when all are ready, after one that warms up; put when they were done."""
    objective = Objective(LOSSES["hinge"], regularization=1e-6, has_bias=True, bias_step=SLOWEST_BIAS)
    bounds = np.linspace(0, len(shard.rows), PARTS + 1).astype(int).tolist()
    parts = [part(shard, first, last) for first, last in itertools.pairwise(bounds)]
    one_pass(objective, shard)
    start.wait()
    for turn, some in enumerate(parts * PASSES, 1):
        one_pass(objective, some)
        meet(turn)
    ends.put(time.perf_counter())
