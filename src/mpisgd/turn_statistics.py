"""What the workers' turns were like: round trips, staleness, how far apart the workers are, where their time goes."""

from __future__ import annotations

import struct
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpisgd.compiled_loops import Float

Records = NDArray[np.float64]  # (turns, fields), the fields of `Record` in order
# Round trips are reported over this many of the latest turns: of each worker, and of all.
RECENT_TURNS = 4_096


class Record(NamedTuple):
    """What there is to count of a turn that was merged."""

    worker: int
    rows: int
    moved: int  # of these rows: took a step
    staleness: int  # turns by others that were merged since the version most of it was computed from
    changes_sent: int
    changes: int  # those held back by the threshold included
    gains: float  # sum of what the changes sent were multiplied by
    bytes_up: int  # of the update
    bytes_down: int  # of the reply before
    round_trip: float  # s, of the exchange before; 0: there was none
    computing: float  # s
    waiting: float  # s, for others, in the exchange before
    ahead: int  # by how many turns its worker was ahead of the slowest when it began; below 0: it was the first
    merged_at: float  # s


FIELDS = {name: place for place, name in enumerate(Record._fields)}
_LINE = struct.Struct(f"{len(FIELDS)}d")


class RecordBook:
    """Room for the records of turns until they are counted: one by one that takes longer than to merge a short one."""

    def __init__(self, enough: int) -> None:
        self._enough = enough
        self._make_room(enough)
        self._noted = 0

    @property
    def is_full(self) -> bool:
        """Whether there are enough records to be counted, which is to be done before another is noted."""
        return self._noted >= self._enough

    def note(self, turn: Record) -> None:
        """Write a record down."""
        _LINE.pack_into(self._lines, self._noted * _LINE.size, *turn)
        self._noted += 1

    def note_all(self, turns: Records) -> None:
        """Write several down; there is room for any number."""
        noted = self._noted + len(turns)
        if noted > len(self._records):
            before = self.take()
            self._make_room(noted)
            self._records[: len(before)] = before
        self._records[noted - len(turns) : noted] = turns
        self._noted = noted

    def _make_room(self, room: int) -> None:
        self._records = np.zeros((room, len(Record._fields)))
        self._lines = self._records.data.cast("B")

    def take(self) -> Records:
        """Return the records in order, to be counted before there is another, and forget them."""
        taken = self._records[: self._noted]
        self._noted = 0
        return taken


def retold(turns: Records, workers: Sequence[int], lead: int, update: Record) -> Records:
    """Return the records of a node's turns as the server has them, to which all came in one update.

    turns    as the workers of the node left them, who are numbered from 1 there
    workers  of the node, by their numbers in the run
    lead     how many turns the slowest of them is ahead of the slowest of all
    update   its own record, the worker being the delegate; its changes, gains and bytes are counted once, with the
             first turn, and its round trip with the delegate's first
    """
    told = turns.copy()
    of = dict(zip(Record._fields, told.T, strict=True))
    merged_once = of["gains"].sum() / max(1.0, of["changes_sent"].sum())
    of["worker"][:] = np.array(workers)[of["worker"].astype(int) - 1]
    of["staleness"] += update.staleness
    of["ahead"][of["ahead"] >= 0] += lead
    of["merged_at"][:] = update.merged_at
    of["round_trip"][of["worker"] == update.worker] = 0
    for name in ("changes_sent", "changes", "gains", "bytes_up", "bytes_down"):
        of[name][:] = 0
        of[name][0] = getattr(update, name)
    of["gains"][0] *= merged_once
    own = np.flatnonzero(of["worker"] == update.worker)
    of["round_trip"][own[:1]] = update.round_trip
    return told


class TurnStatistics:
    """Counts turns as they are merged, and sums them up for the log."""

    def __init__(self) -> None:
        self._round_trips: deque[float] = deque(maxlen=RECENT_TURNS)
        self._merged, self._gains = 0, 0.0
        self._of_worker: defaultdict[int, deque[float]] = defaultdict(lambda: deque(maxlen=RECENT_TURNS))
        self._staleness: Counter[int] = Counter()
        self._turns_ahead: Counter[int] = Counter()
        self._computing: defaultdict[int, float] = defaultdict(float)
        self._waiting: defaultdict[int, float] = defaultdict(float)

    def count(self, turns: Records) -> None:
        """Count turns in the order in which they were merged."""
        of = dict(zip(Record._fields, turns.T, strict=True))
        self._staleness.update(_whole(of["staleness"]))
        self._turns_ahead.update(_whole(of["ahead"][of["ahead"] >= 0]))
        measured = of["round_trip"] > 0
        self._round_trips.extend(of["round_trip"][measured].tolist())
        for worker in set(_whole(of["worker"])):
            own = of["worker"] == worker
            self._computing[worker] += float(of["computing"][own].sum())
            self._waiting[worker] += float(of["waiting"][own].sum())
            self._of_worker[worker].extend(of["round_trip"][own & measured].tolist())
        self.count_merged(int(of["changes_sent"].sum()), float(of["gains"].sum()))

    def count_rounds(self, round_trips: Float, spent: Float) -> None:
        """Count rounds in lock step, where no turn is stale.

        round_trips  s, of the latest rounds, (rounds, workers)
        spent        s, of each worker in all rounds: (workers, 2), computing and waiting
        """
        self._round_trips.extend(round_trips.ravel().tolist())
        for worker, (times, (computing, waiting)) in enumerate(
            zip(round_trips.T.tolist(), spent.tolist(), strict=True), 1
        ):
            self._of_worker[worker].extend(times)
            self._computing[worker] += computing
            self._waiting[worker] += waiting

    def count_merged(self, changes: int, gains: float) -> None:
        """Count changes that were merged, and the sum of the gains that they were multiplied by."""
        self._merged += changes
        self._gains += gains

    def summary(self) -> dict[str, Any]:
        """Return what a line of the log says of the turns so far."""
        p50, p99 = percentiles(self._round_trips, 50, 99)
        return {
            "round_trip_p50": p50,
            "round_trip_p99": p99,
            "merge_weight": self._gains / max(1, self._merged),
            "staleness_p50": self._median_staleness(),
            "staleness_max": max(self._staleness, default=0),
            "turns_ahead_max": max(self._turns_ahead, default=0),
        }

    def details(self, seconds: float) -> dict[str, Any]:
        """Return what the log says once, at the end: histograms, and each worker's round trips and shares of time."""
        workers = {str(worker): self._of(worker, seconds) for worker in sorted(self._computing)}
        return {"staleness": _ordered(self._staleness), "turns_ahead": _ordered(self._turns_ahead), "workers": workers}

    def _of(self, worker: int, seconds: float) -> dict[str, float]:
        """Return a worker's round trips, and what part of so many seconds it spent how: exchanging is the rest."""
        p50, p99 = percentiles(self._of_worker[worker], 50, 99)
        computing, waiting = (spent[worker] / seconds if seconds else 0.0 for spent in (self._computing, self._waiting))
        return {
            "round_trip_p50": p50,
            "round_trip_p99": p99,
            "computing": computing,
            "waiting": waiting,
            "exchanging": max(0.0, 1 - computing - waiting),
        }

    def _median_staleness(self) -> int:
        before, half = 0, -(-self._staleness.total() // 2)
        for staleness, turns in sorted(self._staleness.items()):
            before += turns
            if before >= half:
                return staleness
        return 0


def percentiles(values: Sequence[float] | deque[float], *percents: int) -> list[float]:
    """Return for each the smallest value that so many per cent of all are no larger than; 0 of none."""
    if not values:
        return [0.0] * len(percents)
    places = [-(-len(values) * percent // 100) - 1 for percent in percents]
    found: list[float] = np.partition(np.fromiter(values, np.float64, len(values)), places)[places].tolist()
    return found


def _whole(values: NDArray[np.float64]) -> list[int]:
    numbers: list[int] = values.astype(np.int64).tolist()
    return numbers


def _ordered(counts: Counter[int]) -> dict[str, int]:
    return {str(value): counts[value] for value in sorted(counts)}
