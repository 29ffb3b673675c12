"""Exchanges in memory that several processes share, and the lock that keeps them apart.

They are compiled (`_hogwild.c`, a part of the kernel); without it there is no lock, and workers exchange messages.
All numbers but the weights are float64.
"""

from enum import IntEnum, unique

import numpy as np
from numpy.typing import NDArray

from mpisgd.compiled_loops import Float, _kernel
from mpisgd.exchange_loops import Columns

Lock = NDArray[np.int64]  # (8,), memory for one
Numbers = NDArray[np.float64]

# What the processes share beside the vectors: version, rows, scale, log folded; rows at which the average takes weights
# in next, how many it has taken; the last version that the server has counted.
STATE_LENGTH = 7
# What a worker has: the version heard, its rows; its scale, that at the last exchange; log folded.
OWN_LENGTH = 5


@unique
class Outcome(IntEnum):
    """How an exchange ended."""

    DONE = 0
    FULL = 1  # there is no room for the record


def make_lock(lock: Lock) -> None:
    """Make a lock in this memory, that nobody has."""
    _kernel.make_lock(lock)


def take_lock(lock: Lock) -> None:
    """Wait, asleep, until nobody has the lock, and take it. What its last owner wrote is seen then."""
    _kernel.take_lock(lock)


def give_lock(lock: Lock) -> None:
    """Give up a lock that was taken."""
    _kernel.give_lock(lock)


def exchange(
    lock: Lock,
    state: Numbers,
    records: Numbers,
    record: Numbers,
    own: Numbers,
    local: Float,
    base: Float,
    vector: Float,
    times_changed: Float,
    curvatures: Float,
    columns: Columns,
    wanted: Columns,
    *,
    threshold: float,
    turn_size: float,
    smallest_scale: float,
    stale_turns: float,
) -> Outcome:
    """Do at once, with the lock, what the two ends of an exchange do by messages (`weights`).

    That is `vector_loops.subtract` and `exchange_loops.pack_changes`, `add_update` and `take_in`. Unless the outcome is
    DONE, nothing is done.

    columns  of the turn, and `wanted` those whose weights are taken in; both None: all
    record   of this turn, as in `turn_statistics`; completed and left in `records`, (room, fields), at its version

    Raises:
        ValueError: vectors of lengths that do not fit.

    """
    return Outcome(
        _kernel.exchange_in_memory(
            lock, state, records, record, own, local, base, vector, times_changed, curvatures, columns, wanted,
            threshold, turn_size, smallest_scale, stale_turns,
        )
    )  # fmt: skip
