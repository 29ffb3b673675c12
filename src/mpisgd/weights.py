"""The two ends of the asynchronous exchange: the server's versioned weights and a worker's copy of them.

Both hold w = scale * vector. The penalty shrinks only the scale, so a vector's entry changes on the server
exactly when an update touches its column, and a reply needs just the entries that changed: everywhere else the
worker's vector already has the server's bits. Where a reply has the entries at some keys only, the worker has old ones
elsewhere, and hears of these before a turn needs them.
"""

from __future__ import annotations

import math

import numpy as np

from mpisgd import exchange_loops
from mpisgd.compiled_loops import Float
from mpisgd.exchange_loops import Columns, Content
from mpisgd.svm import ScaledVector
from mpisgd.updates import Keys, ReplyHeader, ReplyRoom, UpdateRoom
from mpisgd.vector_loops import TurnSize

# Below this the scale is multiplied into the vector, long before float32 entries of size 1/scale overflow.
SMALLEST_SCALE = 1e-6
# As how many turns of a round an update counts that came in between. In a round they would all be merged at once; one
# after the other, each answers to weights that many others are about to correct as well, and w' = -a w(t - s) settles
# soonest at a = 1/(e s), not at 1/s. So 2.7 would be its due; eight workers learn best with 1, 128 with more than 2.
STALE_TURNS = 2
LEAST_DECAY = 1e-300  # of an update: nothing is left of what was before, but float64 still has it


class ServerWeights:
    """The weights that rank 0 owns, with the update at which each column last changed.

    version  how many turns are merged
    updates  in how many updates they came

    Updates are added as Hogwild! does. Those of many workers that change the same column from the same old weights
    overshoot, though. So the rule `damped` (see `merging`) takes an update that is s updates stale as one of 1 +
    STALE_TURNS s turns from the same weights and adds
        g_j d_j,   g_j = (1 + a_j) / (1 + (1 + STALE_TURNS s) a_j),
    a_j as far as the turn goes along the weight; turns of no size are plainly added. Each turn's penalty shrinks all
    weights by its decay; a weight that it changes gets (1 - g_j) / r_j of that back, r_j the share of all updates that
    change it, so that on average its penalty is g_j of what it was, as its changes are, and the two balance where they
    did. (Of what this turn took itself exactly, of what the others did up to the square of it.)
    """

    def __init__(self, initial: Float, curvatures: Float) -> None:
        self.current = ScaledVector(initial.copy())
        self.version = self.updates = 0
        self.log_folded = 0.0
        self._changed_at = np.zeros(len(initial), np.int64)
        self._times_changed = np.zeros(len(initial), np.float32)  # exact up to 16.7 million updates
        self._curvatures = curvatures

    def add(
        self,
        columns: Columns,
        content: Content,
        decay: float,
        staleness: int,
        size: TurnSize,
        of_node: int | None = None,
    ) -> tuple[int, float]:
        """Merge a turn: shrink all by its decay, add its changes of the weights.

        Returns how many of these are not 0, and the sum of their gains.
        `content` is the changes at `columns`, as in `exchange_loops`; `size` is the turn's, by
        `merging.turn_size` at the step size as it is now.

        So many turns of a node are merged as one that is as long as all: of 1 + s / k turns from the same weights, s
        being the turns by others that came in between, k its own.
        """
        decay = max(decay, LEAST_DECAY)
        self.version += of_node or 1
        self.updates += 1
        self.current.scale *= decay
        if self.current.scale < SMALLEST_SCALE:
            self._fold_scale()
        return exchange_loops.add_update(
            self.current.vector,
            self._changed_at,
            self._times_changed,
            self._curvatures,
            columns,
            content,
            version=self.updates,
            factor=1 / self.current.scale,
            turns=1 + (STALE_TURNS * staleness if of_node is None else staleness / of_node),
            turn_size=size,
            decay=decay,
        )

    def changes_since(self, updates: int, room: ReplyRoom) -> Content:
        """Write to a reply the columns changed after so many updates, with the vector, or all if that is smaller."""
        vector = self.current.vector
        pairs = room.pairs(len(vector) // 2)
        count = exchange_loops.pick_since(self._changed_at, updates, vector, pairs)
        if count is not None:
            return pairs[:count]
        values = room.values(len(vector))
        np.copyto(values, vector)
        return values

    def at(self, keys: Keys, room: ReplyRoom) -> Content:
        """Write to a reply the vector at these columns."""
        values = room.values(len(keys))
        exchange_loops.copy_at(self.current.vector, keys, values)
        return values

    def _fold_scale(self) -> None:
        self.current.vector *= np.float32(self.current.scale)
        self.log_folded += math.log(self.current.scale)
        self.current.scale = 1.0
        self._changed_at[:] = self.updates


class WorkerWeights:
    """A worker's copy: the server's weights as last heard, plus its own changes since.

    `base` is the vector the server will have once it has added every update sent; local - base is what is not
    sent yet: the turn under way and everything the threshold held back.
    """

    def __init__(self, initial: Float) -> None:
        self.local = ScaledVector(initial.copy())
        self._base = initial.copy()
        self._scale_sent = 1.0
        self._log_folded = 0.0

    def take_turn(self, threshold: float, columns: Columns, room: UpdateRoom) -> tuple[Content, float, int]:
        """Write to an update what the turn changed by more than `threshold`, as sent from now on; keep the rest.

        Returns the changes of the weights at `columns`, outside of which it changed nothing, the turn's decay, and how
        many weights there are to change with those held back.
        """
        scale = self.local.scale
        content, changed = exchange_loops.pack_turn(
            columns, self.local.vector, self._base, scale, threshold, room.content
        )
        decay, self._scale_sent = scale / self._scale_sent, scale
        return content, decay, changed

    def hear(self, header: ReplyHeader, columns: Columns, content: Content) -> None:
        """Move to the server's weights at `columns`, which contain every update sent so far, keeping what is not sent.

        Value plus nothing unsent is the value: so the worker has the server's very bits.
        """
        unsent_decay = self.local.scale / self._scale_sent
        if header.log_folded != self._log_folded:
            factor = np.float32(math.exp(header.log_folded - self._log_folded))
            self.local.vector *= factor
            self._base *= factor
            self._log_folded = header.log_folded
        exchange_loops.take_in(columns, content, self._base, self.local.vector)
        self._scale_sent = header.scale
        self.local.scale = header.scale * unsent_decay
