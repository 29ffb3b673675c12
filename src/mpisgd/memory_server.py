"""Async in memory that all ranks share: the workers merge their own turns, the server counts them and measures."""

from __future__ import annotations

from mpisgd.channel import Channel
from mpisgd.crew import Crew
from mpisgd.monitor import Monitor
from mpisgd.shared_weights import SharedWeights
from mpisgd.svm import ScaledVector


class MemoryServer:
    """Counts what the workers have merged, measures, and lets them stop.

    It looks every now and then, the longer after another the longer it finds nothing to do; and counts when it
    measures, or when there is much to count: counting takes a core from those who learn.
    """

    def __init__(self, channel: Channel, shared: SharedWeights, monitor: Monitor, crew: Crew) -> None:
        self._channel, self._shared, self._monitor, self._crew = channel, shared, monitor, crew
        monitor.in_memory = True

    def serve(self) -> ScaledVector:
        """Serve until every worker has gone; return the final weights."""
        self._channel.wait_until(self._crew.all_gone, self._work, hurry=False)
        weights = self._snapshot()
        self._shared.free()  # before the last samples are sent, which workers take when they have given it back as well
        self._crew.finish()
        return weights

    def _work(self) -> bool:
        letter = self._crew.look(before_goodbye=self._count_and_tell)
        if self._shared.much_to_count:
            self._monitor.count_turns(self._shared.count())
        self._tell()
        sent, measured = self._crew.send_samples(), self._monitor.look(self._snapshot, self._shared.rows)
        return letter is not None or sent or measured

    def _count_and_tell(self) -> None:
        """Count what was merged; a worker may have seen that this was the last before the server does."""
        self._monitor.count_turns(self._shared.count())
        self._tell()

    def _tell(self) -> None:
        """Look for a reason to stop, and tell the workers of it."""
        self._monitor.check_limits(self._shared.rows)
        if self._monitor.stop_reason is not None:
            self._shared.stop()
            self._crew.tell(*self._channel.workers)

    def _snapshot(self) -> ScaledVector:
        turns, weights = self._shared.snapshot()
        self._monitor.count_turns(turns)
        return weights
