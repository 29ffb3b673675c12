"""The messages of the asynchronous exchange: updates and replies, packed in place in buffers that are used again.

A message is a header, its content (see `exchange_loops`) and, of an update, up to two lists of columns. Knows no MPI.

Where a turn's rows have few of all columns, a worker exchanges just these, the turn's **keys**: it numbers the turns of
a pass, sends each one's keys once, and from then on the number stands for them. An update's content is at the keys of
its own turn, the reply's at those of the turn that is **wanted**.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpisgd.compiled_loops import Float
from mpisgd.exchange_loops import FLOAT32, PAIR, Content
from mpisgd.messages import Bytes

Keys = NDArray[np.int32]
INT32 = np.dtype(np.int32)
ALL_COLUMNS = -1  # in the place of a turn's number: the content is at all columns
VALUES = -1  # in the place of a number of pairs: the content is values
TOLD = -1  # in the place of a number of keys: they came with a message before


class UpdateHeader(NamedTuple):
    """What a worker says about a turn, or a delegate about those of its node, whose records have times as well."""

    version: int  # of the server's weights that most of it was computed from, own updates under way counted in
    rows: int  # processed in the turn
    moved: int  # of these rows: took a step
    changes: int  # weights that differ from what the server has been sent, those held back by the threshold included
    decay: float  # factor on all weights that the penalty made of the turn
    round_trip: float  # s, from sending the update before to having its reply
    computing: float  # s, of the turn, looks for a reply included
    waiting: float  # s, for replies, since the update before was sent
    turn: int = ALL_COLUMNS  # whose keys the content is at
    wanted: int = ALL_COLUMNS  # at whose keys the reply is to be


class ReplyHeader(NamedTuple):
    """What the server says with the weights."""

    stop: bool  # the run is over: the worker leaves
    version: int  # of the server's weights, counted in updates
    rows: int  # processed by all workers so far, this update included
    scale: float  # of the server's weights
    log_folded: float  # log of all that was folded from the scale into the vector so far


_UPDATE = struct.Struct("<qqqqd3f6i4x")  # header; keys of the turn, of the one wanted; pairs or VALUES, values
_REPLY = struct.Struct("<qqqdd2i")  # header; pairs or VALUES, values
assert _UPDATE.size % 8 == _REPLY.size % 8 == 0  # noqa: S101 - so that pairs are aligned


def largest_reply(places: int) -> int:
    """Return the most bytes of a reply with content at so many places."""
    return _REPLY.size + 4 * places


class Room:
    """Room for the content of one message at a time; what no message has reached yet is only reserved.

    content  uint8, for values of all places, or pairs that take no more
    """

    def __init__(self, header: struct.Struct, places: int, keys: int = 0) -> None:
        self._header = header
        self._bytes = np.empty(header.size + 4 * places + 4 * keys, np.uint8)
        self._view = self._bytes.data  # for the header: to make one takes longer than to pack it
        self.content = self._bytes[header.size : header.size + 4 * places]

    def values(self, count: int) -> Float:
        """Return room for this many values, float32 (count,)."""
        return self.content[: 4 * count].view(FLOAT32)

    def pairs(self, count: int) -> NDArray[np.void]:
        """Return room for this many pairs, PAIR (count,); they take no more of it than values of all places."""
        return self.content[: 8 * count].view(PAIR)

    def _seal(self, content: Content, *numbers: float) -> int:
        """Write the header; return where the content ends."""
        pairs, values = (len(content), 0) if content.dtype == PAIR else (VALUES, len(content))
        self._header.pack_into(self._view, 0, *numbers, pairs, values)
        return self._header.size + content.nbytes


class UpdateRoom(Room):
    """A worker's: for updates with content at up to `places` places, and two lists of as many keys."""

    def __init__(self, places: int) -> None:
        super().__init__(_UPDATE, places, 2 * places)

    def seal(
        self, header: UpdateHeader, content: Content, keys: Keys | None = None, wanted: Keys | None = None
    ) -> Bytes:
        """Return the message: a view of this room, which has its content already.

        With it go the keys of its turn and of the one wanted; None for those that the server knows.
        """
        end = self._seal(content, *header, *(TOLD if some is None else len(some) for some in (keys, wanted)))
        for some in (keys, wanted):
            if some is not None:
                self._bytes[end : end + 4 * len(some)].view(INT32)[:] = some
                end += 4 * len(some)
        return self._bytes[:end]


class ReplyRoom(Room):
    """The server's, one for each worker: for replies with content at up to `places` places."""

    def __init__(self, places: int) -> None:
        super().__init__(_REPLY, places)

    def seal(self, header: ReplyHeader, content: Content) -> Bytes:
        """Return the message: a view of this room, which has its content already."""
        return self._bytes[: self._seal(content, *header)]


def unpack_update(message: Bytes) -> tuple[UpdateHeader, Content, Keys | None, Keys | None]:
    """Return the header, the content, and the keys of the turn and of the one wanted: None where these came before.

    Raises:
        ValueError: the message ends before its content does.

    """
    *header, own, asked, pairs, values = _UPDATE.unpack_from(message.data)
    content = _content(message, _UPDATE.size, pairs, values)
    end = _UPDATE.size + content.nbytes
    keys = None if own == TOLD else np.frombuffer(message, INT32, own, end)
    wanted = None if asked == TOLD else np.frombuffer(message, INT32, asked, end + 4 * max(0, own))
    return UpdateHeader(*header), content, keys, wanted


def unpack_reply(message: Bytes) -> tuple[ReplyHeader, Content]:
    """Return the header and the content.

    Raises:
        ValueError: the message ends before its content does.

    """
    stop, *header, pairs, values = _REPLY.unpack_from(message.data)
    return ReplyHeader(bool(stop), *header), _content(message, _REPLY.size, pairs, values)


def _content(message: Bytes, start: int, pairs: int, values: int) -> Content:
    """Return the content that starts there."""
    if pairs == VALUES:
        return np.frombuffer(message, FLOAT32, values, start)
    return np.frombuffer(message, PAIR, pairs, start)
