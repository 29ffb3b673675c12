"""The server: rank 0 owns the weights.

sync    repeat: add up all workers' turns (one Allreduce), merge; measure while they take the next
async   repeat: take whichever update has come, add it, answer with what changed; measure when none has
both    once there is a reason to stop, tell each worker when it next asks; return when all have gone
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mpisgd.channel import Channel, Letter
from mpisgd.compiled_loops import Float
from mpisgd.job import Job
from mpisgd.merging import Exchange
from mpisgd.messages import Bytes, ReplyHeader, Tag, pack_reply, unpack_update
from mpisgd.monitor import Monitor
from mpisgd.rank0_rows import SampleSender
from mpisgd.svm import ScaledVector
from mpisgd.weights import ServerWeights

# A server that always finds another letter measures and sends samples after this many all the same.
LETTERS_BEFORE_THE_REST = 16


def serve_sync(
    channel: Channel, job: Job, initial: Float, monitor: Monitor, samples: SampleSender | None
) -> ScaledVector:
    """Merge the workers' turns round by round; return the final weights when every worker has gone.

    The word to stop goes into the next round, which is merged as well: its turns are already under way. Passes
    are measured between two rounds and not beside them, so that where passes or patience end a run, a seed on the same
    ranks gives the same run every time.
    """
    exchange = Exchange(job.column_count, len(channel.workers), job.config.merge)
    mine = exchange.buffer()
    weights = initial.copy()
    crew = Crew(channel, monitor, samples)

    def meanwhile() -> bool:
        sent, measured = crew.send_samples(), monitor.look(lambda: ScaledVector(weights.copy()))
        return crew.look() is not None or sent or measured

    while True:
        if monitor.stop_reason is not None:
            exchange.shared(mine)[0] = 1
            crew.tell(*channel.workers)
        total = channel.server_merge(mine, meanwhile)
        exchange.merge(weights, total)
        monitor.bytes_up += mine.nbytes * len(channel.workers)
        monitor.bytes_down += mine.nbytes * len(channel.workers)
        for rows, changes, round_trip in exchange.of_workers(total).tolist():
            monitor.count_turn(int(rows), int(changes), round_trip, staleness=0)
        if exchange.stops(total):
            crew.wait_until_gone()
            return ScaledVector(weights)
        monitor.check_limits()
        if monitor.at_pass_end() and monitor.stop_reason is None:
            monitor.measure_now(ScaledVector(weights.copy()), "pass")


def serve_async(
    channel: Channel, job: Job, initial: Float, monitor: Monitor, samples: SampleSender | None
) -> ScaledVector:
    """Add every update as it comes, waiting for nobody; return the final weights when every worker has gone.

    Updates that were under way when the reason to stop came are added as well; each is answered STOP.
    """
    weights = ServerWeights(initial, cautious=job.config.merge == "sqrt")
    return AsyncServer(channel, weights, monitor, Crew(channel, monitor, samples)).serve()


class AsyncServer:
    """Answers the workers' updates one by one, and does the rest in between."""

    def __init__(self, channel: Channel, weights: ServerWeights, monitor: Monitor, crew: Crew) -> None:
        self._channel, self._weights, self._monitor, self._crew = channel, weights, monitor, crew
        self._heard_version = dict.fromkeys(channel.workers, 0)  # of the weights each worker has
        self._letters = 0

    def serve(self) -> ScaledVector:
        """Serve until every worker has gone; return the final weights."""
        self._channel.wait_until(self._crew.all_gone, self._work)
        self._crew.finish()
        return self._weights.current

    def _work(self) -> bool:
        """See to one letter if there is any, and to the rest if there is none or it has waited for long."""
        letter = self._crew.look()
        if letter is not None and letter.tag is Tag.UPDATE:
            self._answer(letter.worker, letter.content)
        self._letters += letter is not None
        if letter is not None and self._letters % LETTERS_BEFORE_THE_REST:
            return True
        sent, measured = self._crew.send_samples(), self._monitor.look(self._snapshot)
        return sent or measured or letter is not None

    def _answer(self, worker: int, update: Bytes) -> None:
        weights, monitor = self._weights, self._monitor
        header, columns, changes = unpack_update(update)
        staleness = weights.version - header.version
        weights.add(columns, changes, header.decay, staleness)
        monitor.bytes_up += len(update)
        monitor.count_turn(header.rows, int(np.count_nonzero(changes)), header.round_trip, staleness)
        monitor.check_limits()
        stop = monitor.stop_reason is not None
        told = ReplyHeader(stop, weights.version, monitor.rows, weights.current.scale, weights.log_folded)
        reply = pack_reply(told, *weights.changes_since(self._heard_version[worker]))
        self._heard_version[worker] = weights.version
        monitor.bytes_down += len(reply)
        if stop:
            self._crew.tell(worker)
        self._channel.server_reply(worker, reply)

    def _snapshot(self) -> ScaledVector:
        return ScaledVector(self._weights.current.vector.copy(), self._weights.current.scale)


class Crew:
    """The server's account of its workers: who was told to stop, who has gone, who wants rows."""

    def __init__(self, channel: Channel, monitor: Monitor, samples: SampleSender | None) -> None:
        self._channel, self._monitor, self._samples = channel, monitor, samples
        self._here = set(channel.workers)

    def look(self) -> Letter | None:
        """Open the next letter, if one has come; see to it here unless it is an update."""
        letter = self._channel.server_poll()
        if letter is None:
            return None
        if letter.tag is Tag.GONE:
            self._here.remove(letter.worker)
            self._monitor.event("worker_gone", worker=letter.worker)
        if self._samples is not None and letter.tag is Tag.NEXT_SHARD:
            self._samples.begin(letter.worker)
        elif self._samples is not None and letter.tag is Tag.GONE:
            self._samples.end(letter.worker)
        return letter

    def send_samples(self) -> bool:
        """Send blocks of the next samples where there is room; tell whether any was sent."""
        return self._samples is not None and self._samples.advance()

    def tell(self, *workers: int) -> None:
        """Note that workers are being told to stop."""
        for worker in workers:
            self._monitor.event("worker_told", worker=worker)

    def all_gone(self) -> bool:
        """Tell whether every worker has said goodbye."""
        return not self._here

    def wait_until_gone(self) -> None:
        """Wait until every worker has said goodbye and has all that was sent."""
        self._channel.wait_until(self.all_gone, lambda: self.look() is not None or self.send_samples())
        self.finish()

    def finish(self) -> None:
        """Send the workers that have gone the last they wait for."""
        if self._samples is not None:
            self._samples.finish()
        self._channel.wait_until_sent()


Serve = Callable[[Channel, Job, Float, Monitor, SampleSender | None], ScaledVector]
SERVE: dict[str, Serve] = {"sync": serve_sync, "async": serve_async}
