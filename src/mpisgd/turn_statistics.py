"""What the workers' turns were like: round trips, staleness, how far apart the workers are, where their time goes."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from typing import Any

from mpisgd.compiled_loops import Float

# Round trips are reported over this many of the latest turns: of each worker, and of all.
RECENT_TURNS = 4_096


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

    def count(self, worker: int, staleness: int, round_trip: float, computing: float, waiting: float) -> None:
        """Count one turn: staleness in updates by others, times in seconds (a round trip of 0: none yet)."""
        self._staleness[staleness] += 1
        self._computing[worker] += computing
        self._waiting[worker] += waiting
        if round_trip > 0:
            self._round_trips.append(round_trip)
            self._of_worker[worker].append(round_trip)

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

    def count_turns_ahead(self, turns: int) -> None:
        """Count a turn that begins by how many turns its worker is ahead of the slowest."""
        self._turns_ahead[turns] += 1

    def summary(self) -> dict[str, Any]:
        """Return what a line of the log says of the turns so far."""
        return {
            "round_trip_p50": percentile(self._round_trips, 50),
            "round_trip_p99": percentile(self._round_trips, 99),
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
        times = self._of_worker[worker]
        computing, waiting = (spent[worker] / seconds if seconds else 0.0 for spent in (self._computing, self._waiting))
        return {
            "round_trip_p50": percentile(times, 50),
            "round_trip_p99": percentile(times, 99),
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


def percentile(values: Sequence[float] | deque[float], percent: int) -> float:
    """Return the smallest value that so many per cent of all are no larger than; 0 of none."""
    return float(sorted(values)[-(-len(values) * percent // 100) - 1]) if values else 0.0


def _ordered(counts: Counter[int]) -> dict[str, int]:
    return {str(value): counts[value] for value in sorted(counts)}
