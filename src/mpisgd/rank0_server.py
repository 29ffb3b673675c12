"""The server: rank 0 knows how good the weights are, decides and lets the workers know.

sync    the workers merge, and measure, among themselves; note what their leader reports
async   in memory (`memory_server`) or by messages (`message_server`)
all     once there is a reason to stop, let the workers know; return when all have gone
"""

from __future__ import annotations

from mpisgd.beginning import Beginning
from mpisgd.channel import Channel, Nodes
from mpisgd.compiled_loops import Float
from mpisgd.crew import Crew
from mpisgd.evaluation import Measurement
from mpisgd.memory_server import MemoryServer
from mpisgd.message_server import MessageServer
from mpisgd.messages import Bytes, Occasion, Order, Tag, unpack_report
from mpisgd.monitor import Monitor
from mpisgd.shared_weights import SharedWeights
from mpisgd.svm import ScaledVector
from mpisgd.weights import ServerWeights


def serve(
    channel: Channel,
    beginning: Beginning,
    monitor: Monitor,
    crew: Crew,
    weights: SharedWeights | ServerWeights | None,
    nodes: Nodes,
) -> ScaledVector:
    """Keep account of what the workers learn and say when to stop; return the final weights when all have gone.

    In lock step the workers merge their turns, and measure, among themselves. Otherwise every one learns at its own
    pace, with `weights` in memory that all ranks share, or this rank's own, by messages from each of the `nodes`;
    updates that were under way when the reason to stop came are merged as well; what a node has merged since its last
    one is lost.
    """
    if weights is None:
        return SyncServer(channel, monitor, crew, beginning.weights).serve()
    if isinstance(weights, SharedWeights):
        return MemoryServer(channel, weights, monitor, crew).serve()
    return MessageServer(channel, beginning.job, weights, monitor, crew, nodes).serve()


class SyncServer:
    """Lock step: hears the leader's reports, and gives its orders."""

    def __init__(self, channel: Channel, monitor: Monitor, crew: Crew, initial: Float) -> None:
        self._channel, self._monitor, self._crew = channel, monitor, crew
        self._weights = initial
        self._orders = 0
        self._asked = self._stopped = self._ended = False

    def serve(self) -> ScaledVector:
        """Serve until every worker has gone; return the final weights."""
        self._channel.wait_until(lambda: self._ended, self._work, hurry=False)
        self._channel.wait_until(self._crew.all_gone, self._work)
        self._crew.finish()
        return ScaledVector(self._weights)

    def _work(self) -> bool:
        letter = self._crew.look()
        if letter is not None and letter.tag is Tag.REPORT:
            self._hear(letter.content)
        sent = self._crew.send_samples()
        self._look_at_the_clock()
        return letter is not None or sent

    def _look_at_the_clock(self) -> None:
        """Order what limits, signals and the time between measurements ask for."""
        monitor = self._monitor
        if self._ended or self._stopped:
            return
        if monitor.check_limits(monitor.rows) or monitor.stop_reason is not None:
            self._stopped = True
            self._crew.tell(*self._channel.workers)
            self._order(Order.STOP)
        elif monitor.is_time() and not self._asked:
            self._asked = True
            self._order(Order.MEASURE)

    def _hear(self, report: Bytes) -> None:
        header, round_trips, spent, weights = unpack_report(report, len(self._weights))
        monitor = self._monitor
        monitor.count_rounds(header, round_trips, spent)
        if header.occasion == Occasion.END:
            self._weights, *best = weights
            self._end(best)
            return
        occasion = "time" if header.occasion == Occasion.TIME or monitor.is_time() else "pass"
        self._asked = False
        monitor.take(Measurement(header.accuracy, header.objective), occasion)

    def _end(self, best: list[Float]) -> None:
        monitor = self._monitor
        monitor.check_limits(monitor.rows)
        if best:
            monitor.best_weights = ScaledVector(best[0])
        self._crew.tell(*self._channel.workers)
        self._ended = True
        self._channel.server_announce(str(self._orders))

    def _order(self, order: Order) -> None:
        self._orders += 1
        self._channel.server_order(order)
