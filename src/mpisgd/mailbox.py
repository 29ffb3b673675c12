"""A worker's end of the asynchronous exchange: its updates, the replies to them, and when to wait for these."""

from __future__ import annotations

from statistics import median
from typing import NamedTuple

from mpisgd.channel import Channel
from mpisgd.exchange_loops import Columns
from mpisgd.job import Job
from mpisgd.learner import TurnRows
from mpisgd.messages import Bytes
from mpisgd.turn_keys import WorkerKeys
from mpisgd.updates import ALL_COLUMNS, UpdateHeader, UpdateRoom, largest_reply, unpack_reply
from mpisgd.weights import WorkerWeights

# After so many turns a worker knows whether to compute the next one while it waits for a reply. What is computed so is
# a turn more stale, and gains at most the share that turns are of round trips: a fifth where these take as long as
# LONG_WAIT turns. With 128 workers on two cores it doubled the staleness, took a quarter more passes, gained nothing.
TURNS_TO_KNOW = 8
LONG_WAIT = 4


class Pace:
    """Whether a worker computes while an update of its travels: at first it does, and after a few turns for good.

    One that must not get far ahead of the others never does.

    overlaps  whether it does
    """

    def __init__(self, *, may_overlap: bool) -> None:
        self._ratios: list[float] = []  # of round trips to the turns that were computed meanwhile
        self.overlaps = may_overlap

    def count(self, turn: float, round_trip: float) -> None:
        """Take note of how long a turn and the latest round trip took, in seconds (0: none yet)."""
        if not self.overlaps or len(self._ratios) == TURNS_TO_KNOW or round_trip == 0:
            return
        self._ratios.append(round_trip / turn)
        if len(self._ratios) == TURNS_TO_KNOW:
            self.overlaps = median(self._ratios) < LONG_WAIT


class Turn(NamedTuple):
    """A turn that a worker has taken."""

    rows: TurnRows
    number: int  # in a pass, or ALL_COLUMNS
    began: float  # s, by the channel's clock
    took: float  # s, with looks for the reply to the last update


class Mailbox:
    """A worker's exchange with the server, one update under way at most, and its copy of the weights."""

    def __init__(self, channel: Channel, job: Job, weights: WorkerWeights, keys: WorkerKeys | None) -> None:
        self._channel, self._keys = channel, keys
        self._threshold = job.config.gradient_threshold
        self._room = UpdateRoom(len(weights.local.vector))
        self._columns: Columns = None  # of the reply that is due
        self._sent_at: float | None = None  # of the update under way
        self._round_trip = 0.0  # s, of the last update whose reply has come
        self._full_turn = job.turn_rows
        self._pace = Pace(may_overlap=job.config.max_staleness is None)
        self._heard_at = 0.0  # the last reply
        self._waited = 0.0  # s, since the last update was sent
        self._weights = weights
        self.local = weights.local
        self.version = 0  # of the server's weights that these contain, the update under way counted in
        self._turn_version = 0  # what it was when the turn under way began
        self.rows = 0  # processed by all workers as far as known, the update under way counted in
        self.stopped = False
        channel.worker_expect_replies(largest_reply(len(weights.local.vector)))

    def end_turn(self, turn: Turn) -> None:
        """Wait for the reply to the last update; unless it says stop, send what the turn changed.

        Wait for the reply to that as well, if that is the pace.
        """
        self.wait()
        if self.stopped:
            return
        if 2 * turn.rows.processed > self._full_turn:
            self._pace.count(turn.took, self._round_trip)
        keys, version = self._keys, self._turn_version
        if keys is None and self._heard_at < turn.began + turn.took / 2:
            version = self.version  # most of the turn was computed from the weights that came within it
        wanted, columns, told, told_wanted = ALL_COLUMNS, None, None, None
        if keys is not None:
            wanted = keys.wanted_with(turn.number, overlaps=self._pace.overlaps)
            columns, self._columns = keys.of(turn.number), keys.of(wanted)
            told, told_wanted = keys.to_tell(turn.number), keys.to_tell(wanted)
        self._channel.worker_reuse_update()
        content, decay, changes = self._weights.take_turn(self._threshold, columns, self._room)
        header = UpdateHeader(
            version, *turn.rows, changes, decay, self._round_trip, turn.took, self._waited, turn.number, wanted
        )
        message = self._room.seal(header, content, told, told_wanted)
        self._sent_at, self._waited = self._channel.now(), 0.0
        self._channel.worker_send_update(message)
        self.version += 1
        self.rows += turn.rows.processed
        if not self._pace.overlaps:
            self.wait()
        self._turn_version = self.version

    def look(self) -> bool:
        """Take in the reply if one is due and has come; tell whether one is still due."""
        if self._sent_at is not None and (reply := self._channel.worker_poll_reply()) is not None:
            self._take_in(reply)
        return self._sent_at is not None

    def wait(self) -> None:
        """Wait for the reply to the update under way, if there is one, and take it in."""
        if self._sent_at is not None:
            began = self._channel.now()
            reply = self._channel.worker_wait_reply()
            self._waited += self._channel.now() - began
            self._take_in(reply)

    def _take_in(self, reply: Bytes) -> None:
        assert self._sent_at is not None  # noqa: S101 - the callers see to it
        self._heard_at = self._channel.now()
        self._round_trip, self._sent_at = self._heard_at - self._sent_at, None
        header, content = unpack_reply(reply)
        self.stopped, self.version, self.rows = header.stop, header.version, header.rows
        self._weights.hear(header, self._columns, content)
