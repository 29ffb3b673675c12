"""Both ends of the asynchronous exchange in one process, where no message travels: prints seconds a turn of each.

What they take is the least that small turns can: no MPI makes them faster.

python -m benchmarks.both_ends DATA SECONDS
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np

from benchmarks import sets
from benchmarks.kernel import as_in_a_shard
from mpisgd.beginning import Beginning, largest_mean_square, row_facts, settled
from mpisgd.channel import Channel, Letter
from mpisgd.config import Config
from mpisgd.console import Console
from mpisgd.interrupt import Interrupt
from mpisgd.job import Job
from mpisgd.learner import Learner, ShardFeed
from mpisgd.messages import Bytes, Tag
from mpisgd.monitor import Monitor
from mpisgd.rank0_server import serve_async
from mpisgd.rank_worker import work_async
from mpisgd.run_log import RunLog
from mpisgd.shard import LearningShard, Shard

SMALL_TURN = 10  # rows, which change some 600 weights of RCV1's
LEARNING_RATE = 1.0


class _Post:
    """In the place of both ends' `Channel`: the server sees to each update the moment that it is sent."""

    rank, workers = 1, range(1, 2)

    def __init__(self) -> None:
        self.turns, self.server_seconds = 0, 0.0
        self._update: Bytes | None = None
        self._reply = np.empty(0, np.uint8)
        self._serve: Callable[[], bool] = bool

    def now(self) -> float:
        return time.perf_counter()

    def wait_until(self, done: Callable[[], bool], meanwhile: Callable[[], bool]) -> None:
        self._serve = meanwhile

    def wait_until_sent(self) -> None: ...

    def server_poll(self) -> Letter | None:
        update, self._update = self._update, None
        return None if update is None else Letter(Tag.UPDATE, self.rank, update)

    def server_reuse_reply(self, worker: int) -> None: ...

    def server_reply(self, worker: int, reply: Bytes) -> None:
        self._reply = reply

    def worker_expect_replies(self, largest: int) -> None: ...

    def worker_reuse_update(self) -> None: ...

    def worker_send_update(self, update: Bytes) -> None:
        self._update = update
        began = time.perf_counter()
        self._serve()
        self.server_seconds += time.perf_counter() - began
        self.turns += 1

    def worker_poll_reply(self) -> Bytes:
        return self._reply

    def worker_wait_reply(self) -> Bytes:
        return self._reply


def settle(path: Path, seconds: float) -> tuple[Beginning, LearningShard]:
    """Return where learning begins and all rows as one shard."""
    train = sets.load(path, "train")
    rows = as_in_a_shard(train.rows)
    shard = LearningShard.shuffled_from(Shard(rows, train.labels), np.random.default_rng(0))
    config = Config(
        mode="async",
        batch_size=SMALL_TURN,
        iterations=1,
        learning_rate=LEARNING_RATE,
        passes=None,
        patience=None,
        max_seconds=seconds,
        eval_interval=2 * seconds,
    )
    job = Job.planned(config, train.rows.shape[1], len(rows), workers=1, row_length=train.rows.nnz / len(rows))
    facts = row_facts(shard)
    beginning = settled(job, np.zeros(job.column_count, np.float32), facts, largest_mean_square(job, facts))
    return beginning.with_learning_rate(LEARNING_RATE), shard


def main(path: Path, seconds: float) -> dict[str, float]:
    """Exchange small turns for so many seconds; return how many a second, and the seconds that each end takes."""
    beginning, shard = settle(path, seconds)
    post = _Post()
    channel = cast("Channel", post)
    with tempfile.TemporaryDirectory() as directory:
        began = post.now()
        log, held_out = RunLog(Path(directory)), shard.first(1)
        monitor = Monitor(beginning.job, held_out, log, Console(), Interrupt(), post.now, began=began)
        serve_async(channel, beginning, monitor, None)
        work_async(channel, beginning, Learner(beginning.job, shard, ShardFeed(channel, beginning.job)))
        took = post.now() - began
    return {
        "turns/s": post.turns / took,
        "s in the server": post.server_seconds / post.turns,
        "s in the worker": (took - post.server_seconds) / post.turns,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]), float(sys.argv[2]))) + "\n")
