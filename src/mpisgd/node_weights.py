"""What is between the weights of a node, which its workers share, and the server's: updates one way, replies the other.

All that the workers have merged since the last time goes to the server as one update, and what it answers is merged
into theirs, much as a worker's copy is brought up to date (see `weights.WorkerWeights`).
"""

from __future__ import annotations

import math

import numpy as np

from mpisgd import exchange_loops
from mpisgd.beginning import Beginning
from mpisgd.exchange_loops import PAIR, Content
from mpisgd.hogwild_loops import State
from mpisgd.shared_weights import SharedWeights
from mpisgd.turn_statistics import Records
from mpisgd.updates import ReplyHeader, UpdateRoom
from mpisgd.weights import LEAST_DECAY, SMALLEST_SCALE

LEAST_LOG_OF_DECAY = math.log(LEAST_DECAY)


class NodeWeights:
    """`SharedWeights` of a node, as its delegate exchanges them with the server.

    The two fold their scales into their vectors when they like: an entry here is e^(f - g) times as large as the
    server's, f and g being the logs of what each has folded. What does not change then is the log of what the penalty
    has made of the weights: that of the scale, and of all that was folded.
    """

    def __init__(self, shared: SharedWeights, beginning: Beginning) -> None:
        self._shared = shared
        self._threshold = beginning.job.config.gradient_threshold
        self._base = beginning.weights.copy()  # the vector when the server has added every update sent
        self._unsent = np.empty_like(self._base)  # room
        self._log_of_base = 0.0  # of all that was folded into the base
        self._shrunk = 0.0  # log of what the penalty had made of the weights when they were sent or heard last
        self._not_told = 0.0  # log of what the updates' decays were smaller than was sent, all together
        self._rows_sent = 0.0

    def take(self, room: UpdateRoom) -> tuple[Content, float, int, Records]:
        """Write to an update what changed by more than the threshold, as sent from now on; keep the rest.

        Returns the changes of the weights, their decay, how many weights there are to change with those held back, and
        the records of the turns that were merged.
        """
        return self._shared.with_lock(lambda: self._take(room))

    def hear(self, header: ReplyHeader, content: Content) -> None:
        """Move to the server's weights, which contain every update sent so far, keeping what is not sent."""
        self._shared.with_lock(lambda: self._hear(header, content))

    def _take(self, room: UpdateRoom) -> tuple[Content, float, int, Records]:
        self._fold_base()
        state, shrunk = self._shared.state, self._shrunk_now()
        content, changes = exchange_loops.pack_turn(
            None, self._shared.vector, self._base, state[State.SCALE], self._threshold, room.content
        )
        log_of_decay, self._shrunk = shrunk - self._shrunk, shrunk
        self._not_told += min(0.0, log_of_decay - LEAST_LOG_OF_DECAY)
        self._rows_sent = float(state[State.ROWS])
        return content, math.exp(max(log_of_decay, LEAST_LOG_OF_DECAY)), changes, self._shared.uncounted()

    def _hear(self, header: ReplyHeader, content: Content) -> None:
        # What is not sent stays as it is: the server's penalty until now was there before it.
        self._fold_base()
        state, vector, base, unsent = self._shared.state, self._shared.vector, self._base, self._unsent
        np.subtract(vector, base, out=unsent)
        unsent *= np.float32(state[State.SCALE])
        folded_there = header.log_folded + self._not_told
        of_server = math.log(header.scale) + folded_there
        shrunk, self._shrunk = of_server + self._shrunk_now() - self._shrunk, of_server
        if shrunk - state[State.LOG_FOLDED] < math.log(SMALLEST_SCALE):
            state[State.LOG_FOLDED] = shrunk
            self._fold_base()
        scale = math.exp(shrunk - state[State.LOG_FOLDED])
        exchange_loops.take_in(None, _folded(content, state[State.LOG_FOLDED] - folded_there), base, vector)
        unsent /= np.float32(scale)
        np.add(base, unsent, out=vector)
        state[State.SCALE] = scale
        state[State.ROWS] += header.rows - self._rows_sent

    def _shrunk_now(self) -> float:
        state = self._shared.state
        return math.log(state[State.SCALE]) + float(state[State.LOG_FOLDED])

    def _fold_base(self) -> None:
        """Fold into the base what was folded into the vector since."""
        folded = float(self._shared.state[State.LOG_FOLDED]) - self._log_of_base
        if folded:
            self._log_of_base += folded
            self._base *= np.float32(math.exp(folded))


def _folded(content: Content, log: float) -> Content:
    """Return the same with the values folded by so much more."""
    if log == 0:
        return content
    content = content.copy()
    values = content["value"] if content.dtype == PAIR else content
    values *= np.float32(math.exp(log))
    return content
