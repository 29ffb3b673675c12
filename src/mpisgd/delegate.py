"""The delegate of a node: the worker that exchanges what all of its node learn with the server, by messages."""

from __future__ import annotations

from mpisgd.beginning import Beginning
from mpisgd.channel import Channel
from mpisgd.messages import Bytes
from mpisgd.node_weights import NodeWeights
from mpisgd.shared_weights import SharedWeights
from mpisgd.turn_statistics import FIELDS
from mpisgd.updates import UpdateHeader, UpdateRoom, largest_reply, unpack_reply


class Delegate:
    """Sends the server one update at a time, the next after the turn in which the reply has come."""

    def __init__(self, channel: Channel, shared: SharedWeights, beginning: Beginning) -> None:
        self._channel, self._shared = channel, shared
        self._weights = NodeWeights(shared, beginning)
        self._room = UpdateRoom(len(beginning.weights))
        self._under_way = False  # an update
        self._sent_at = self._heard_at = channel.now()  # s, the last update and the last reply
        self._round_trip = 0.0  # s, of the last update
        self._version = 0  # of the server's weights that the node's contain, the last update counted in
        self._version_before = 0  # that they contained until the last reply was heard
        channel.worker_expect_replies(largest_reply(len(beginning.weights)))

    def look(self) -> bool:
        """Take in the reply if one is due and has come; tell whether one is still due."""
        if self._under_way and (reply := self._channel.worker_poll_reply()) is not None:
            self._take_in(reply)
        return self._under_way

    def work(self) -> bool:
        """Send what the node has changed, unless an update is under way or the run is over; tell whether it did."""
        if self.look() or self._shared.stopped:
            return False
        self._channel.worker_reuse_update()
        now = self._channel.now()
        # Most of the turns were computed from the weights that came in the first half of their time.
        came_early = self._heard_at - self._sent_at < now - self._heard_at
        version = self._version if came_early else self._version_before
        content, decay, changes, turns = self._weights.take(self._room)
        rows, moved = (int(turns[:, FIELDS[name]].sum()) for name in ("rows", "moved"))
        header = UpdateHeader(version, rows, moved, changes, decay, self._round_trip, computing=0, waiting=0)
        self._sent_at, self._under_way = now, True
        self._channel.delegate_send_turns(turns)
        self._channel.worker_send_update(self._room.seal(header, content))
        self._version += len(turns)
        return True

    def _take_in(self, reply: Bytes) -> None:
        self._heard_at, self._under_way = self._channel.now(), False
        self._round_trip = self._heard_at - self._sent_at
        header, content = unpack_reply(reply)
        self._version_before, self._version = self._version, header.version
        if header.stop:
            self._shared.stop()
        else:
            self._weights.hear(header, content)
