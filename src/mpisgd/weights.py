"""The two ends of the asynchronous exchange: the server's versioned weights and a worker's copy of them.

Both hold w = scale * vector. The penalty shrinks only the scale, so a vector's entry changes on the server
exactly when an update touches its column, and a reply needs just the entries that changed: everywhere else the
worker's vector already has the server's bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpisgd import vector_loops
from mpisgd.compiled_loops import Float
from mpisgd.messages import ReplyHeader, dense_is_smaller
from mpisgd.svm import ScaledVector

Columns = NDArray[np.int32] | None

# Below this the scale is multiplied into the vector, long before float32 entries of size 1/scale overflow.
SMALLEST_SCALE = 1e-6


class ServerWeights:
    """The weights that rank 0 owns, with the version at which each column last changed.

    Updates are added as Hogwild! does. Those of many workers that change the same column from the same old weights
    overshoot, though. So the rule `damped` (see `merging`) takes an update that is s updates stale, of a turn of size
    u, as one of s + 1 turns from the same weights and adds
        g_j d_j,   g_j = (1 + a_j) / (1 + (1 + s) a_j),   a_j = u h_j,
    h_j the curvature along the weight; without curvatures updates are plainly added. Each turn's penalty shrinks all
    weights by its decay; a weight that it changes gets (1 - g_j) / r_j of that back, r_j the share of all updates that
    change it, so that on average its penalty is g_j of what it was, as its changes are, and the two balance where they
    did.
    """

    def __init__(self, initial: Float, curvatures: Float | None = None) -> None:
        self.current = ScaledVector(initial.copy())
        self.version = 0
        self.log_folded = 0.0
        self._changed_at = np.zeros(len(initial), np.int64)
        self._times_changed = np.zeros(len(initial), np.float32)  # exact up to 16.7 million updates
        self._curvatures = np.zeros_like(initial) if curvatures is None else curvatures
        self._picked = np.empty(len(initial), np.int32), np.empty(len(initial), np.float32)

    def add(self, columns: Columns, changes: Float, decay: float, staleness: int, turn_size: float) -> int:
        """Merge a turn: shrink all by its decay, add its changes of the weights; return how many of them are not 0.

        `turn_size` is the step size, as it is now, times the rows of the turn.
        """
        self.version += 1
        self.current.scale *= decay
        if self.current.scale < SMALLEST_SCALE:
            self._fold_scale()
        return vector_loops.add_update(
            self.current.vector,
            self._changed_at,
            self._times_changed,
            self._curvatures,
            columns,
            changes,
            version=self.version,
            factor=1 / self.current.scale,
            turns=1 + staleness,
            turn_size=turn_size,
            shrinking=1 - decay,
        )

    def changes_since(self, version: int) -> tuple[Columns, Float]:
        """Return the columns that changed after `version` and the vector there; whole where that is smaller.

        They are the server's own memory, and change with the next update.
        """
        vector = self.current.vector
        columns, values = vector_loops.pick_since(self._changed_at, version, vector, *self._picked)
        if dense_is_smaller(len(columns), len(vector)):
            return None, vector
        return columns, values

    def _fold_scale(self) -> None:
        self.current.vector *= np.float32(self.current.scale)
        self.log_folded += math.log(self.current.scale)
        self.current.scale = 1.0
        self._changed_at[:] = self.version


@dataclass(slots=True)
class Turn:
    """What a worker sends of a turn: the changes of the weights at `columns` (None: at all), and the decay.

    They are the worker's own memory, and change with the next turn.
    """

    columns: Columns
    changes: Float
    decay: float


class WorkerWeights:
    """A worker's copy: the server's weights as last heard, plus its own changes since.

    `base` is the vector the server will have once it has added every update sent; local - base is what is not
    sent yet: the turn under way and everything the threshold held back.
    """

    def __init__(self, initial: Float) -> None:
        self.local = ScaledVector(initial.copy())
        self._base = initial.copy()
        self._changes = np.empty_like(initial)
        self._picked = np.empty(len(initial), np.int32), np.empty(len(initial), np.float32)
        self._scale_sent = 1.0
        self._log_folded = 0.0

    def take_turn(self, threshold: float) -> Turn:
        """Take out what the turn changed by more than `threshold`, as sent from now on; keep the rest."""
        vector, changes = self.local.vector, self._changes
        count = vector_loops.subtract(vector, self._base, self.local.scale, threshold, changes)
        decay, self._scale_sent = self.local.scale / self._scale_sent, self.local.scale
        if dense_is_smaller(count, len(vector)):
            np.copyto(self._base, vector, where=True if threshold == 0 else changes != 0)
            return Turn(None, changes, decay)
        return Turn(*vector_loops.pick_changes(changes, vector, self._base, *self._picked), decay)

    def hear(self, header: ReplyHeader, columns: Columns, values: Float) -> None:
        """Move to the server's weights, which contain every update sent so far, keeping what is not sent.

        Value plus nothing unsent is the value: so the worker has the server's very bits.
        """
        unsent_decay = self.local.scale / self._scale_sent
        if header.log_folded != self._log_folded:
            factor = np.float32(math.exp(header.log_folded - self._log_folded))
            self.local.vector *= factor
            self._base *= factor
            self._log_folded = header.log_folded
        vector_loops.take_in(columns, values, self._base, self.local.vector)
        self._scale_sent = header.scale
        self.local.scale = header.scale * unsent_decay
