"""A worker's learning: where its shards come from, and its turns over them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mpisgd.channel import Channel
from mpisgd.compiled_loops import Float, Rows
from mpisgd.hogwild_loops import Batches, Steps
from mpisgd.job import Job
from mpisgd.messages import unpack_rows
from mpisgd.preprocessing import Preprocessing
from mpisgd.scaling import scale
from mpisgd.schedule import Schedule
from mpisgd.shard import LearningShard, Shard, ShardBuilder
from mpisgd.svm import ScaledVector
from mpisgd.turn_keys import WorkerKeys
from mpisgd.updates import ALL_COLUMNS, Keys
from mpisgd.waiting import Work

SMALLEST_DECAY = 1e-6  # of a turn
BETWEEN_ROWS = 1_024  # some 100 us of text rows: a message under way waits no longer to be moved along


class ShardFeed:
    """Receives this worker's shards: one for good, or with sample sharding one after the other.

    The blocks of the next sample are taken in between turns: it travels while the worker learns from the last.
    """

    def __init__(self, channel: Channel, job: Job) -> None:
        self._channel = channel
        self._feature_count = job.feature_count
        self._builder = ShardBuilder(job.preprocessing)
        self._rng = np.random.default_rng([job.config.seed, channel.rank])
        self._next: Shard | None = None
        self._column_count = job.column_count
        self._wide = job.wide
        self.names: Keys | None = None
        self.scales: Float | None = None
        self._ended = False
        self.renews = job.config.sharding == "sample"

    def take(self) -> LearningShard | None:
        """Wait for the next shard and return it in random order; None when the server ended the rows instead.

        Of wide rows only the columns that occur are kept; `names` tells which they are. Where `scales` are set, float32
        (column_count,), the columns are scaled.
        """
        shard = self._wait_for_rows(self.look)
        if shard is not None and self._wide:
            shard, self.names = shard.renumbered()
        if shard is not None and self.scales is not None:
            scale(shard.rows, self.scales)
        return LearningShard.shuffled_from(shard, self._rng) if shard is not None else None

    def take_held_out(self) -> Shard | None:
        """Wait for the part of the held-out rows that comes after the first shard; None when the rows ended instead."""
        builder = ShardBuilder(Preprocessing(bias=False, normalize=False))  # they are preprocessed
        return self._wait_for_rows(lambda: self._look(builder, self._column_count))

    def _wait_for_rows(self, look: Work) -> Shard | None:
        """Look until all rows that come next are here, or there are no more; return them."""
        self._channel.wait_until(self._is_there, look)
        rows, self._next = self._next, None
        return rows

    def ask_next(self) -> None:
        """Let the server begin to send the next sample; to be taken in between turns."""
        self._channel.worker_ask_next_shard()

    def look(self) -> bool:
        """Take in one block if one has come; tell whether one had."""
        return self._look(self._builder, self._feature_count)

    def _look(self, builder: ShardBuilder, columns: int) -> bool:
        content = self._channel.worker_poll_rows()
        if content is None:
            return False
        header, rows, labels = unpack_rows(content, columns)
        if header.ended:
            self._ended = True
        else:
            self._next = builder.add(header, rows, labels)
        return True

    def drain(self) -> None:
        """Take what is still on its way, so that nothing sent is left unreceived."""
        self._channel.wait_until(lambda: self._ended, self.look)

    def _is_there(self) -> bool:
        return self._ended or self._next is not None


class RestOfPass(NamedTuple):
    """The turns of a pass from that number on."""

    number: int
    rows: Rows
    batches: Batches


class TurnRows(NamedTuple):
    """The rows of a turn: processed, and those of them that took a step."""

    processed: int
    moved: int


class Learner:
    """Takes turns over a shard in contiguous mini-batches, again and again.

    rows  that it has processed
    """

    def __init__(self, job: Job, shard: LearningShard, shards: ShardFeed) -> None:
        self._config = job.config
        self._objective = job.objective
        self._shards = shards
        self._shard = shard
        self._iterations = job.iterations
        self._first_iterations = job.first_iterations
        self._turn_rows = job.turn_rows
        self._by_keys = job.by_keys
        self._steps_between = max(1, BETWEEN_ROWS // job.config.batch_size)
        self._next_row = 0
        self._steps_done = 0
        self.rows = 0
        self._passes = 0
        if shards.renews:
            shards.ask_next()

    def turn(self, weights: ScaledVector, step_size: float, between: Callable[[], bool] = lambda: False) -> TurnRows:
        """Take `iterations` mini-batch steps on the weights, in place.

        A batch ends with the shard, and so does a turn that has keys. `between` is called after every BETWEEN_ROWS rows
        or so, for as long as it is true that it waits for something. A turn ends early when the penalty has left next
        to nothing of the weights it began with: float32 entries of size 1/scale would overflow. What would be the first
        turn of a run may be several, each as long as all before it (`Job.first_iterations`).
        """
        if self._shards.renews:
            self._shards.look()
        steps_left, processed, moved = self._steps_of_turn(), 0, 0
        smallest_scale = SMALLEST_DECAY * weights.scale
        waits = between()
        while steps_left > 0 and weights.scale >= smallest_scale:
            steps = min(steps_left, self._steps_between) if waits else steps_left
            rows = self._steps(weights, steps, step_size, smallest_scale)
            taken = -(-rows.processed // self._config.batch_size)
            steps_left -= taken
            self._steps_done += taken
            processed += rows.processed
            moved += rows.moved
            if self._by_keys and self._next_row == 0:
                break
            waits = waits and between()
        self.rows += processed
        return TurnRows(processed, moved)

    @property
    def rows_of_turn(self) -> int:
        """The rows of the next turn of all columns, unless it ends early; the last batch of a pass is smaller."""
        rows, batch_size = len(self._shard.rows), self._config.batch_size
        passes, batches = divmod(self._next_row // batch_size + self._steps_of_turn(), -(-rows // batch_size))
        return passes * rows + batches * batch_size - self._next_row

    def rest_of_pass(self) -> RestOfPass | None:
        """Return what is left of the pass, if its turns have keys and the next one is not begun yet."""
        if not self._by_keys or self._next_row % self._turn_rows:
            return None
        batch_size = self._config.batch_size
        margins = np.empty(batch_size, np.float32)
        batches = Batches(self._shard.labels, self._shard.squared_norms, batch_size, margins)
        return RestOfPass(self.number, self._shard.rows.arrays, batches)

    def steps(self, schedule: Schedule) -> Steps:
        """Return how steps are taken."""
        of = self._objective
        return Steps(
            schedule.learning_rate, schedule.decay, schedule.power, schedule.learning_rows,
            of.regularization, of.loss.number, of.bias_step, of.has_bias,
        )  # fmt: skip

    def took_turns(self, turns: int) -> None:
        """Go on after so many turns of the rest of the pass, which were taken elsewhere."""
        reached = min(self._next_row + turns * self._turn_rows, len(self._shard.rows))
        self.rows += reached - self._next_row
        self._next_row = reached
        if self._next_row == len(self._shard.rows):
            self._end_pass()

    @property
    def number(self) -> int:
        """The number, in a pass, of the turn that comes next; ALL_COLUMNS where turns have no keys."""
        return self._next_row // self._turn_rows if self._by_keys else ALL_COLUMNS

    def keys(self) -> WorkerKeys | None:
        """Return the account of this worker's keys, if its turns have any."""
        return WorkerKeys(self._shard.rows, self._turn_rows, self._shards.names) if self._by_keys else None

    def _steps_of_turn(self) -> int:
        """Return the steps of a turn; one that has keys and ended early is taken to the end it had."""
        if self._first_iterations is not None and self._steps_done < self._iterations:
            return min(max(self._first_iterations, self._steps_done), self._iterations - self._steps_done)
        taken = self._next_row // self._config.batch_size % self._iterations if self._by_keys else 0
        return self._iterations - taken

    def _steps(self, weights: ScaledVector, steps: int, step_size: float, smallest_scale: float) -> TurnRows:
        """Take up to so many steps, as far as the shard's end."""
        rows, start, batch_size = self._shard.rows, self._next_row, self._config.batch_size
        stop = min(start + steps * batch_size, len(rows))
        self._next_row, moved = self._objective.minibatch_steps(
            weights,
            rows,
            self._shard.labels,
            self._shard.squared_norms,
            start,
            stop,
            batch_size,
            step_size,
            smallest_scale=smallest_scale,
        )
        taken = TurnRows(self._next_row - start, moved)
        if self._next_row == len(rows):
            self._end_pass()
        return taken

    def _end_pass(self) -> None:
        self._next_row = 0
        self._passes += 1
        if self._shards.renews and self._passes % self._config.resample_passes == 0:
            self._shard = self._shards.take() or self._shard
            self._shards.ask_next()
