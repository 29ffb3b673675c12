"""The server: rank 0 measures the weights, and in async mode owns them.

sync    the workers merge among themselves; measure what their leader reports
async   repeat: take whichever update has come, add it, answer with the weights that the worker needs, or later if it is
        too far ahead of the others; measure when none has come
both    once there is a reason to stop, tell each worker when it next asks; return when all have gone
"""

from __future__ import annotations

from collections.abc import Callable

from mpisgd.averaging import made_for
from mpisgd.beginning import Beginning
from mpisgd.channel import Channel, Letter
from mpisgd.clocks import Clocks
from mpisgd.compiled_loops import Float
from mpisgd.job import Job
from mpisgd.messages import Bytes, Occasion, Order, Tag, unpack_report
from mpisgd.monitor import Monitor
from mpisgd.rank0_rows import SampleSender
from mpisgd.svm import ScaledVector
from mpisgd.turn_keys import ServerKeys
from mpisgd.updates import Keys, ReplyHeader, ReplyRoom, unpack_update
from mpisgd.weights import ServerWeights

# A server that always finds another letter measures and sends samples after this many all the same.
LETTERS_BEFORE_THE_REST = 16


def serve_sync(channel: Channel, beginning: Beginning, monitor: Monitor, samples: SampleSender | None) -> ScaledVector:
    """Measure what the workers learn in lock step and say when to stop; return the final weights when all have gone.

    The workers merge their turns among themselves; their leader reports.
    """
    return SyncServer(channel, monitor, Crew(channel, monitor, samples), beginning.weights).serve()


class SyncServer:
    """Hears the leader's reports, measures, and gives its orders."""

    def __init__(self, channel: Channel, monitor: Monitor, crew: Crew, initial: Float) -> None:
        self._channel, self._monitor, self._crew = channel, monitor, crew
        self._weights = initial
        self._orders = 0
        self._asked = self._ended = False
        self._stopped: Order | None = None  # the word to stop that was given last

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
        if self._ended or self._stopped is Order.STOP_NOW:
            return
        if monitor.check_limits() or (monitor.stop_reason is not None and self._stopped is None):
            self._stop(Order.STOP_NOW)
        elif monitor.is_time() and not self._asked and self._stopped is None:
            self._asked = True
            self._order(Order.REPORT)

    def _hear(self, report: Bytes) -> None:
        header, round_trips, spent, self._weights = unpack_report(report)
        monitor = self._monitor
        monitor.count_rounds(header, round_trips, spent)
        if header.occasion == Occasion.END:
            self._end()
            return
        occasion = "pass" if header.occasion == Occasion.PASS else "time"
        self._asked = self._asked and occasion == "pass"
        if monitor.stop_reason is None:
            monitor.measure_now(ScaledVector(self._weights), occasion)
        if occasion == "pass" and self._stopped is None:
            if monitor.stop_reason is None:
                self._order(Order.GO_ON)
            else:
                self._stop(Order.STOP)

    def _end(self) -> None:
        self._monitor.check_limits()
        if self._stopped is None:
            self._crew.tell(*self._channel.workers)
        self._ended = True
        self._channel.server_announce(str(self._orders))

    def _stop(self, order: Order) -> None:
        if self._stopped is None:
            self._crew.tell(*self._channel.workers)
        self._stopped = order
        self._order(order)

    def _order(self, order: Order) -> None:
        self._orders += 1
        self._channel.server_order(order)


def serve_async(channel: Channel, beginning: Beginning, monitor: Monitor, samples: SampleSender | None) -> ScaledVector:
    """Add every update as it comes, waiting for nobody; return the final weights when every worker has gone.

    Updates that were under way when the reason to stop came are added as well; each is answered STOP.
    """
    job = beginning.job
    weights = ServerWeights(beginning.weights, beginning.curvatures if job.config.merge == "damped" else None)
    return AsyncServer(channel, job, weights, monitor, Crew(channel, monitor, samples)).serve()


class AsyncServer:
    """Answers the workers' updates one by one, and does the rest in between.

    A worker that must not get further ahead of the others is answered when these have caught up.
    """

    def __init__(self, channel: Channel, job: Job, weights: ServerWeights, monitor: Monitor, crew: Crew) -> None:
        self._channel, self._job, self._weights = channel, job, weights
        self._average = made_for(job, job.column_count)
        self._monitor, self._crew = monitor, crew
        self._clocks = Clocks(channel.workers, job.config.max_staleness)
        self._heard_version = dict.fromkeys(channel.workers, 0)  # of the weights each worker has
        self._keys = {worker: ServerKeys(job.column_count) for worker in channel.workers}
        self._rooms = {worker: ReplyRoom(job.column_count) for worker in channel.workers}
        self._unanswered: dict[int, Keys | None] = {}  # the workers that wait, and what they asked for
        self._letters = 0

    def serve(self) -> ScaledVector:
        """Serve until every worker has gone; return the final weights."""
        self._channel.wait_until(self._crew.all_gone, self._work)
        self._crew.finish()
        return self._snapshot()

    def _work(self) -> bool:
        """See to one letter if there is any, and to the rest if there is none or it has waited for long."""
        letter = self._crew.look()
        if letter is not None and letter.tag is Tag.UPDATE:
            self._merge(letter.worker, letter.content)
        answered = self._answer()
        self._letters += letter is not None
        if letter is not None and self._letters % LETTERS_BEFORE_THE_REST:
            return True
        sent, measured = self._crew.send_samples(), self._monitor.look(self._snapshot)
        return sent or measured or answered or letter is not None

    def _merge(self, worker: int, update: Bytes) -> None:
        weights, monitor, keys = self._weights, self._monitor, self._keys[worker]
        header, content, own, wanted = unpack_update(update)
        columns = keys.hear(header.turn, own)
        staleness = weights.version - header.version
        turn_size = self._job.step_size(monitor.rows) * header.rows
        changes_sent, gains = weights.add(columns, content, header.decay, staleness, turn_size)
        self._clocks.tick(worker)
        monitor.bytes_up += len(update)
        monitor.count_turn(header.rows, changes_sent, header.changes)
        monitor.turns.count_merged(changes_sent, gains)
        monitor.turns.count(worker, staleness, header.round_trip, header.computing, header.waiting)
        self._average.look(weights.current, monitor.rows)
        monitor.check_limits()
        self._unanswered[worker] = keys.hear(header.wanted, wanted)

    def _answer(self) -> bool:
        """Answer the workers that need wait no longer; tell whether there were any."""
        if not self._unanswered:
            return False
        over = self._monitor.stop_reason is not None
        ready = [worker for worker in self._unanswered if over or not self._clocks.must_wait(worker)]
        for worker in ready:
            self._reply(worker, self._unanswered.pop(worker), stop=over)
        return bool(ready)

    def _reply(self, worker: int, asked: Keys | None, *, stop: bool) -> None:
        weights, monitor, room = self._weights, self._monitor, self._rooms[worker]
        told = ReplyHeader(stop, weights.version, monitor.rows, weights.current.scale, weights.log_folded)
        self._channel.server_reuse_reply(worker)
        values = weights.changes_since(self._heard_version[worker], room) if asked is None else weights.at(asked, room)
        reply = room.seal(told, values)
        self._heard_version[worker] = weights.version
        monitor.bytes_down += len(reply)
        if stop:
            self._crew.tell(worker)
        else:
            monitor.turns.count_turns_ahead(self._clocks.ahead(worker))
        self._channel.server_reply(worker, reply)

    def _snapshot(self) -> ScaledVector:
        return self._average.weights(self._weights.current)


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

    def finish(self) -> None:
        """Send the workers that have gone the last they wait for."""
        if self._samples is not None:
            self._samples.finish()
        self._channel.wait_until_sent()


Serve = Callable[[Channel, Beginning, Monitor, SampleSender | None], ScaledVector]
SERVE: dict[str, Serve] = {"sync": serve_sync, "async": serve_async}
