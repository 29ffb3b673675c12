"""Exchanges in memory that several processes share, their locks and their meetings, and short turns with exchanges.

They are compiled (`_locks.c`, `_hogwild.c` and `_turns.c`, parts of the kernel); without it there is no lock, and
workers exchange messages. All numbers but the weights are float64.
"""

from enum import IntEnum, unique
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpisgd.compiled_loops import Float, Rows, _kernel
from mpisgd.exchange_loops import Columns, TurnKeys
from mpisgd.vector_loops import TurnSize

LOCK_LINES = 18  # two, and one for each part of the columns: `struct locks`
Lock = NDArray[np.int64]  # (LOCK_LINES, 8), memory for one: as many cache lines
Numbers = NDArray[np.float64]


@unique
class State(IntEnum):
    """The places of what the processes share beside the vectors."""

    VERSION = 0
    ROWS = 1  # processed, in the turns merged; on one of several nodes with those that the server told of
    SCALE = 2
    LOG_FOLDED = 3
    AVERAGED_ROWS = 4  # processed when the average last took the weights in
    COUNTED = 5  # the last version whose record the server has counted, or the delegate sent


@unique
class Own(IntEnum):
    """The places of what a worker has beside its vectors."""

    VERSION = 0  # at its last exchange, and so on
    ROWS = 1
    SCALE = 2  # now
    SCALE_SENT = 3
    LOG_FOLDED = 4


@unique
class Outcome(IntEnum):
    """How an exchange ended."""

    DONE = 0
    FULL = 1  # there is no room for the record


class Memory(NamedTuple):
    """What the processes share, as a worker has it, and what is its own.

    record   of its turn, as in `turn_statistics`, to be completed and left in `records`, (room, fields), at its version
    vectors  float32 (column_count,)
    """

    lock: Lock
    state: Numbers
    records: Numbers
    record: Numbers
    own: Numbers
    local: Float
    base: Float
    vector: Float
    times_changed: Float
    average: Float
    curvatures: Float


class Rule(NamedTuple):
    """How turns are merged, see `weights`, and how the average takes the weights in, see `averaging`.

    curved_by_moved  as in `merging`, or 0 to add turns plainly
    """

    threshold: float
    smallest_scale: float
    stale_turns: float
    curved_by_moved: float
    every_rows: float
    lateness: float


class Batches(NamedTuple):
    """Labels and squared norms of the rows, float32 (rows,), and room for the margins of a batch."""

    labels: Float
    squared_norms: Float
    batch_size: int
    margins: Float


class Steps(NamedTuple):
    """How a step is taken, as in `compiled_loops.minibatch_steps`, and how its size falls, as in `schedule`.

    decay  for each pass over so many `learning_rows`
    """

    learning_rate: float
    decay: float
    power: float
    learning_rows: int
    regularization: float
    loss: int
    bias_step: float
    has_bias: bool


def meet(meetings: NDArray[np.int64], mine: int, meeting: int, first: int, looks: int) -> bool:
    """Say that the process `mine` has come to a meeting of this number; tell whether all others have.

    meetings  the last meeting that each process has come to, (processes, numbers of a cache line), the first of these
    first     the first process that is awaited
    looks     how often to look again, each time after letting others have the core

    What a process wrote before it came is seen by those that know that it has.
    """
    return bool(_kernel.meet(meetings, meetings.shape[1], mine, meeting, first, looks))


def make_lock(lock: Lock) -> None:
    """Make a lock in this memory, that nobody has."""
    _kernel.make_lock(lock)


def take_lock(lock: Lock) -> None:
    """Wait, asleep, until nobody has the lock or exchanges, and take it. What others wrote before is seen then."""
    _kernel.take_lock(lock)


def try_lock(lock: Lock) -> bool:
    """Take the lock if nobody has it, with others still exchanging or not; tell whether it was taken."""
    return bool(_kernel.try_lock(lock))


def is_alone(lock: Lock) -> bool:
    """Tell whether nobody exchanges; who has the lock is alone from then on."""
    return bool(_kernel.is_alone(lock))


def give_lock(lock: Lock) -> None:
    """Give up a lock that was taken."""
    _kernel.give_lock(lock)


def exchange(memory: Memory, rule: Rule, columns: Columns, wanted: Columns, turn_size: TurnSize) -> Outcome:
    """Do at once what the two ends of an exchange do by messages (`weights`).

    That is `exchange_loops.pack_turn`, `add_update` and `take_in`; then the average takes the weights in, if it is
    time. Unless the outcome is DONE, nothing is done.

    columns  of the turn, and `wanted` those whose weights are taken in; both None: all

    Raises:
        ValueError: arrays of lengths that do not fit.

    """
    return Outcome(_kernel.exchange_in_memory(memory, rule, columns, wanted, turn_size))


def take_turns(
    rows: Rows,
    batches: Batches,
    steps: Steps,
    keys: TurnKeys,
    memory: Memory,
    rule: Rule,
    turns_done: NDArray[np.int64],
    stop: NDArray[np.int64],
    number: int,
    until_rows: float,
) -> tuple[int, Outcome]:
    """Take the turns of a pass from that number on, each with its exchange.

    Ends with the pass; after a turn when all workers have processed `until_rows` or there is the word to stop; and
    before the exchange of a turn for whose record there is no room.

    turns_done  of every worker, (workers,): this one's are counted
    stop        (1,), not 0 when the run is over

    Returns the number of the turn after the last one that was exchanged, and the outcome.

    Raises:
        ValueError: arrays of lengths that do not fit.

    """
    reached, outcome = _kernel.take_turns(
        rows, batches, steps, keys, memory, rule, turns_done, stop, number, until_rows
    )
    return int(reached), Outcome(outcome)
