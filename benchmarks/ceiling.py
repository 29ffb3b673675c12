"""What the cores themselves allow: the kernel in processes that exchange nothing, alone and two at once.

Two may wait for each other after each part of a pass, as in lock step: where one core is slower for a while, both are.
"""

from __future__ import annotations

import itertools
import mmap
import multiprocessing
import queue
import time
from collections.abc import Callable
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier

import numpy as np

from benchmarks.kernel import learn
from benchmarks.measure import RunFailedError
from mpisgd import hogwild_loops
from mpisgd.beginning import SLOWEST_BIAS
from mpisgd.shard import LearningShard
from mpisgd.shared_memory import CACHE_LINE
from mpisgd.svm import LOSSES, Objective, ScaledVector
from mpisgd.turns import EXCHANGES_OF_TWO

PASSES = 20
LINE = CACHE_LINE // 8  # numbers
LONGEST = 120.0  # s


def rows_per_second(whole: LearningShard, processes: int, *, in_step: bool = False) -> float:
    """Return how many rows so many processes together take steps on in a second, each over its half of the rows.

    From the first to begin to the last to end. `in_step` they wait for each other as often as in lock step.

    Raises:
        RunFailedError: a process did not end in time.

    """
    half = len(whole.rows) // 2
    context = multiprocessing.get_context("fork")  # so that the rows are shared
    start, times = context.Barrier(processes, timeout=LONGEST), context.Queue()
    meetings = np.frombuffer(mmap.mmap(-1, mmap.PAGESIZE), np.int64)[: processes * LINE].reshape(processes, LINE)

    def take_part(number: int) -> None:
        def meet(meeting: int) -> None:
            while in_step and not hogwild_loops.meet(meetings, number, meeting, 0, looks=1_000):
                pass

        _learn(part(whole, number * half, (number + 1) * half), start, meet, times)

    started = [context.Process(target=take_part, args=(number,)) for number in range(processes)]
    try:
        for process in started:
            process.start()
        began, ended = zip(*(times.get(timeout=LONGEST) for _ in started), strict=True)
    except queue.Empty:
        raise RunFailedError(f"the kernel in {processes} processes: one did not end within {LONGEST:g} s") from None
    finally:
        for process in started:
            process.kill()
            process.join()
    return PASSES * processes * half / (max(ended) - min(began))


def part(shard: LearningShard, start: int, stop: int) -> LearningShard:
    """Return the rows start:stop as views."""
    some = slice(start, stop)
    return LearningShard(shard.rows.part(start, stop), shard.labels[some], shard.squared_norms[some])


def _learn(
    shard: LearningShard, start: Barrier, meet: Callable[[int], None], times: Queue[tuple[float, float]]
) -> None:
    """Take the passes when all are ready, after one that warms up; put when they began and were done."""
    objective = Objective(LOSSES["hinge"], regularization=1e-6, has_bias=True, bias_step=SLOWEST_BIAS)
    bounds = np.linspace(0, len(shard.rows), EXCHANGES_OF_TWO + 1).astype(int).tolist()
    parts = [part(shard, first, last) for first, last in itertools.pairwise(bounds)]
    weights = ScaledVector(np.zeros(shard.rows.column_count, np.float32))
    learn(objective, shard, weights)
    start.wait()
    began = time.perf_counter()
    for turn, some in enumerate(parts * PASSES, 1):
        learn(objective, some, weights)
        meet(turn)
    times.put((began, time.perf_counter()))
