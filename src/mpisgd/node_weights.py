"""The weights that the workers of a node share where there are several nodes, and their exchange with the server.

All that they have merged since the last time goes to the server as one update, and what it answers is merged into
theirs, much as a worker's copy is brought up to date (see `weights.WorkerWeights`).
"""

from __future__ import annotations

import numpy as np

from mpisgd import exchange_loops
from mpisgd.beginning import Beginning
from mpisgd.channel import Channel
from mpisgd.exchange_loops import PAIR, Content
from mpisgd.hogwild_loops import State
from mpisgd.job import Job
from mpisgd.shared_memory import SharedMemory
from mpisgd.shared_weights import SharedWeights
from mpisgd.turn_statistics import Records
from mpisgd.updates import ReplyHeader, UpdateRoom

# Updates of a node, at least, in a pass over its rows, and so many more for each node: who has merged that much since
# the last one waits. Without, four nodes of four workers, all on two cores, took 31 passes to learn RCV1, and take 9 to
# 12 with this. Where eight nodes send half as many, 35 times RCV1's rows are at an objective of 0.046 after three
# passes instead of 0.041; twice as many take a third off the rows a second of two nodes.
UPDATES, UPDATES_BY_NODE = 4, 1 / 2


class NodeWeights(SharedWeights):
    """`SharedWeights` without a server among the ranks: one of them, the delegate, is its hand and exchanges with it.

    Each folds its scale into its vector when it likes: an entry is e^(f - g) times as large as the server's is, f and g
    being the logs of what the two have folded.
    """

    def __init__(self, channel: Channel, beginning: Beginning, memory: SharedMemory) -> None:
        """Begin with the beginning's weights. Collective."""
        super().__init__(channel, beginning, memory)
        self._records = self._records[: turns_of_update(beginning.job, memory.size)]
        self._base = beginning.weights.copy()  # the vector when the server has added every update sent
        self._scale_sent, self._rows_sent = 1.0, 0.0
        self._log_of_base = 0.0  # of all that was folded into the base
        self._threshold = beginning.job.config.gradient_threshold

    def take(self, room: UpdateRoom) -> tuple[Content, float, int, Records]:
        """Write to an update what changed by more than the threshold, as sent from now on; keep the rest.

        Returns the changes of the weights, their decay, how many weights there are to change with those held back, and
        the records of the turns that were merged.
        """
        return self._with_lock(lambda: self._take(room))

    def hear(self, header: ReplyHeader, content: Content) -> None:
        """Move to the server's weights, which contain every update sent so far, keeping what is not sent."""
        self._with_lock(lambda: self._hear(header, content))

    def _take(self, room: UpdateRoom) -> tuple[Content, float, int, Records]:
        self._fold_base()
        scale = float(self._state[State.SCALE])
        content, changes = exchange_loops.pack_turn(
            None, self._vector, self._base, scale, self._threshold, room.content
        )
        decay, self._scale_sent = scale / self._scale_sent, scale
        self._rows_sent = float(self._state[State.ROWS])
        return content, decay, changes, self._uncounted()

    def _hear(self, header: ReplyHeader, content: Content) -> None:
        self._fold_base()
        state = self._state
        unsent_decay = state[State.SCALE] / self._scale_sent
        folded_more = np.exp(state[State.LOG_FOLDED] - header.log_folded)
        if folded_more != 1:
            content = content.copy()
            values = content["value"] if content.dtype == PAIR else content
            values *= np.float32(folded_more)
        exchange_loops.take_in(None, content, self._base, self._vector)
        self._scale_sent = header.scale / folded_more
        state[State.SCALE] = self._scale_sent * unsent_decay
        state[State.ROWS] += header.rows - self._rows_sent

    def _fold_base(self) -> None:
        """Fold into the base what was folded into the vector since."""
        folded = float(self._state[State.LOG_FOLDED]) - self._log_of_base
        if folded:
            self._log_of_base += folded
            self._base *= np.float32(np.exp(folded))
            self._scale_sent /= np.exp(folded)


def turns_of_update(job: Job, workers: int) -> int:
    """Return how many turns of a node with so many workers an update has at most."""
    updates = UPDATES + UPDATES_BY_NODE * job.workers / workers
    return max(workers, round(job.learning_rows * workers / job.workers / updates / job.turn_rows))
