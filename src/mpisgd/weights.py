"""The two ends of the asynchronous exchange: the server's versioned weights and a worker's copy of them.

Both hold w = scale * vector. The penalty shrinks only the scale, so a vector's entry changes on the server
exactly when an update touches its column, and a reply needs just the entries that changed: everywhere else the
worker's vector already has the server's bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpisgd import compiled_loops
from mpisgd.compiled_loops import Float
from mpisgd.messages import ReplyHeader, dense_is_smaller
from mpisgd.svm import ScaledVector

Columns = NDArray[np.signedinteger[Any]] | None

# Below this the scale is multiplied into the vector, long before float32 entries of size 1/scale overflow.
SMALLEST_SCALE = 1e-6


class ServerWeights:
    """The weights that rank 0 owns, with the version at which each column last changed.

    Updates are added as Hogwild! does. Those of many workers that change the same column from the same old weights
    overshoot, though, and on columns that are in most rows that never ends. So the `cautious` rule adds
        g_j d_j,   g_j = 1 / sqrt(1 + s r_j),
    where s is the update's staleness and r_j the share of all updates that change column j: s r_j is how many are
    expected to have changed it meanwhile. This is to the sum what the rule sqrt is in lock step, and it leaves one
    worker, or a column that few updates touch, alone. Each turn's penalty shrinks all weights by its decay a; the
    column gets (1 - g_j) (1 - a) / r_j of itself back when an update touches it, so that on average its penalty is
    g_j of what it was, as its changes are, and the two balance where they did.
    """

    def __init__(self, initial: Float, *, cautious: bool) -> None:
        self.current = ScaledVector(initial.copy())
        self.version = 0
        self.log_folded = 0.0
        self._cautious = cautious
        self._changed_at = np.zeros(len(initial), np.int64)
        self._times_changed = np.zeros(len(initial), np.float32)  # exact up to 16.7 million updates

    def add(self, columns: Columns, changes: Float, decay: float, staleness: int) -> int:
        """Merge a turn: shrink all by its decay, add its changes of the weights; return how many of them are not 0."""
        self.version += 1
        self.current.scale *= decay
        if self.current.scale < SMALLEST_SCALE:
            self._fold_scale()
        where: Any = changes != 0 if columns is None else columns
        if columns is None:
            np.copyto(self._changed_at, self.version, where=where)
            np.add(self._times_changed, where, out=self._times_changed)
        else:
            self._changed_at[columns] = self.version
            self._times_changed[columns] += 1
        if self._cautious and staleness > 0:
            changes = self._with_caution(columns, where, changes, decay, staleness)
        step = changes * np.float32(1 / self.current.scale)
        if columns is None:
            self.current.vector += step
            return int(np.count_nonzero(where))
        self.current.vector[columns] += step
        return len(columns)

    def changes_since(self, version: int) -> tuple[Columns, Float]:
        """Return the columns that changed after `version` and the vector there; whole where that is smaller."""
        changed = self._changed_at > version
        if dense_is_smaller(int(np.count_nonzero(changed)), len(changed)):
            return None, self.current.vector
        columns = np.flatnonzero(changed)
        return columns, self.current.vector[columns]

    def _with_caution(self, columns: Columns, where: Any, changes: Float, decay: float, staleness: int) -> Float:
        """Return g_j d_j, and give the columns that the turn changes back what is too much of its penalty."""
        times = self._times_changed if columns is None else self._times_changed[columns]
        rate = np.maximum(times, 1) * np.float32(1 / self.version)
        gain = 1 / np.sqrt(1 + np.float32(staleness) * rate)
        if decay < 1:
            given_back = 1 + (1 - gain) * np.float32(1 - decay) / rate
            if columns is None:
                np.multiply(self.current.vector, given_back, out=self.current.vector, where=where)
            else:
                self.current.vector[columns] *= given_back
        cautious: Float = changes * gain
        return cautious

    def _fold_scale(self) -> None:
        self.current.vector *= np.float32(self.current.scale)
        self.log_folded += math.log(self.current.scale)
        self.current.scale = 1.0
        self._changed_at[:] = self.version


@dataclass(slots=True)
class Turn:
    """What a worker sends of a turn: the changes of the weights at `columns` (None: at all), and the decay.

    Where they are of all columns they are the worker's own memory, and change with the next turn.
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
        self._scale_sent = 1.0
        self._log_folded = 0.0

    def take_turn(self, threshold: float) -> Turn:
        """Take out what the turn changed by more than `threshold`, as sent from now on; keep the rest."""
        vector, changes = self.local.vector, self._changes
        count = compiled_loops.subtract(vector, self._base, self.local.scale, changes)
        if threshold > 0:
            changes[np.abs(changes) <= threshold] = 0
            count = int(np.count_nonzero(changes))
        decay, self._scale_sent = self.local.scale / self._scale_sent, self.local.scale
        if dense_is_smaller(count, len(vector)):
            np.copyto(self._base, vector, where=True if threshold == 0 else changes != 0)
            return Turn(None, changes, decay)
        columns = np.flatnonzero(changes)
        self._base[columns] = vector[columns]
        return Turn(columns, changes[columns], decay)

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
        if columns is None:
            np.subtract(self.local.vector, self._base, out=self.local.vector)
            np.copyto(self._base, values)
            self.local.vector += values
        else:
            unsent = self.local.vector[columns] - self._base[columns]
            self._base[columns] = values
            self.local.vector[columns] = values + unsent
        self._scale_sent = header.scale
        self.local.scale = header.scale * unsent_decay
