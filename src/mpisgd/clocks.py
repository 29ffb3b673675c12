"""How many turns each worker has done, so that none gets too far ahead (Ho et al. 2013, stale synchronous parallel)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable


class Clocks:
    """Counts every worker's turns.

    With a bound s a worker begins a turn only when it is at most s turns ahead of the slowest: 0 is lock step.
    """

    def __init__(self, workers: Iterable[int], bound: int | None) -> None:
        self._turns = dict.fromkeys(workers, 0)
        self._workers_at = Counter(self._turns.values())
        self._slowest = 0
        self._bound = bound

    def tick(self, worker: int, more: int = 1) -> None:
        """Count a turn of this worker, or so many."""
        turns = self._turns[worker]
        self._turns[worker] = turns + more
        self._workers_at[turns + more] += 1
        self._workers_at[turns] -= 1
        if self._workers_at[turns] == 0:
            del self._workers_at[turns]
            if turns == self._slowest:
                self._slowest = min(self._workers_at)

    def ahead(self, worker: int) -> int:
        """Return how many turns this worker is ahead of the slowest."""
        return self._turns[worker] - self._slowest

    def must_wait(self, worker: int) -> bool:
        """Tell whether this worker is further ahead of the slowest than it may be when it begins a turn."""
        return self._bound is not None and self.ahead(worker) > self._bound
