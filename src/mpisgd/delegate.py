"""The delegate of a node: the worker that exchanges what all of its node learn with the server, by messages."""

from __future__ import annotations

from mpisgd.channel import Channel
from mpisgd.messages import Bytes
from mpisgd.node_weights import NodeWeights
from mpisgd.turn_statistics import FIELDS
from mpisgd.updates import UpdateHeader, UpdateRoom, largest_reply, unpack_reply


class Delegate:
    """Sends the server one update at a time, the next after the turn in which the reply has come."""

    def __init__(self, channel: Channel, weights: NodeWeights, column_count: int) -> None:
        self._channel, self._weights = channel, weights
        self._room = UpdateRoom(column_count)
        self._sent_at: float | None = None  # of the update under way
        self._round_trip = 0.0  # s, of the last update
        self._version = 0  # of the server's weights that the node's contain, the update under way counted in
        channel.worker_expect_replies(largest_reply(column_count))

    def look(self) -> bool:
        """Take in the reply if one is due and has come; tell whether one is still due."""
        if self._sent_at is not None and (reply := self._channel.worker_poll_reply()) is not None:
            self._take_in(reply)
        return self._sent_at is not None

    def work(self) -> bool:
        """Send what the node has changed, unless an update is under way or the run is over; tell whether it did."""
        if self.look() or self._weights.stopped:
            return False
        self._channel.worker_reuse_update()
        content, decay, changes, turns = self._weights.take(self._room)
        rows, moved = (int(turns[:, FIELDS[name]].sum()) for name in ("rows", "moved"))
        header = UpdateHeader(self._version, rows, moved, changes, decay, self._round_trip, computing=0, waiting=0)
        self._sent_at = self._channel.now()
        self._channel.delegate_send_turns(turns)
        self._channel.worker_send_update(self._room.seal(header, content))
        self._version += len(turns)
        return True

    def _take_in(self, reply: Bytes) -> None:
        assert self._sent_at is not None  # noqa: S101 - the caller sees to it
        self._round_trip, self._sent_at = self._channel.now() - self._sent_at, None
        header, content = unpack_reply(reply)
        self._version = header.version
        if header.stop:
            self._weights.stop()
        else:
            self._weights.hear(header, content)
