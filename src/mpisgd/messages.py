"""What travels between server and workers, packed into bytes and unpacked again. Knows no MPI.

Every message is a fixed header followed by arrays; nothing is pickled. Unpacked arrays are views of the buffer.
"""

from __future__ import annotations

import itertools
from dataclasses import astuple, dataclass, fields
from enum import IntEnum, unique
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpisgd.compiled_loops import Float
from mpisgd.sparse_rows import SparseRows

Bytes = NDArray[np.uint8]
ALL_COLUMNS = -1


@unique
class Tag(IntEnum):
    """The MPI tag of each kind of message."""

    ROWS = 1  # server -> worker: a block of the worker's shard
    UPDATE = 2  # worker -> server: what a turn changed; also asks for the weights
    REPLY = 3  # server -> worker: what changed since the worker's last version, or STOP
    NEXT_SHARD = 4  # worker -> server: has begun on its next sample, wants the one after
    GONE = 5  # worker -> server: has been told to stop and leaves
    REPORT = 6  # leader -> server: in lock step, what the workers have done, with the weights
    ORDER = 7  # server -> leader: in lock step, what to do
    SUM = 8  # leader -> server: the sum of numbers that the workers settle something by


@unique
class Occasion(IntEnum):
    """Why the leader of the workers reports."""

    PASS = 1  # a pass is complete; the leader waits for GO_ON or STOP, half a pass later
    TIME = 2  # the server asked
    END = 3  # the last round is over


@unique
class Order(IntEnum):
    """What the server has to say to the leader of the workers."""

    REPORT = 1  # report after this round
    GO_ON = 2  # about a pass: go on
    STOP = 3  # about a pass: stop half a pass after it, so that a run's end does not depend on how long measuring took
    STOP_NOW = 4  # stop with the next round


@dataclass(frozen=True, slots=True)
class UpdateHeader:
    """What a worker says about a turn."""

    version: int  # of the server's weights the turn began from, the worker's own updates under way included
    rows: int  # processed in the turn
    decay: float  # factor on all weights that the penalty made of the turn
    round_trip: float  # s, from sending the update before to having its reply


@dataclass(frozen=True, slots=True)
class ReplyHeader:
    """What the server says with the weights."""

    stop: bool  # the run is over: the worker leaves
    version: int  # of the server's weights, counted in updates
    rows: int  # processed by all workers so far, this update included
    scale: float  # of the server's weights
    log_folded: float  # log of all that was folded from the scale into the vector so far


@dataclass(frozen=True, slots=True)
class ReportHeader:
    """What the leader says with the weights: since the last report, but for the first two."""

    occasion: int
    rows: int  # processed by all workers since the run began
    turns: int
    changes_sent: int
    bytes_each_way: int  # all workers' buffers; as many bytes of sums come back
    round_trips: int  # how many of the latest follow, float32, s


@dataclass(frozen=True, slots=True)
class RowsHeader:
    """What the server says with a block of rows."""

    rows: int  # in this block
    elements: int  # in this block
    shard_rows: int  # in the whole shard
    shard_elements: int  # in the whole shard
    ended: bool  # no more rows will come: the run is over, or the server could not read on


_KINDS = {"int": "<i8", "float": "<f8", "bool": "<i8"}


def _header_dtype(header: type) -> np.dtype[np.void]:
    return np.dtype([(field.name, _KINDS[str(field.type)]) for field in fields(header)])


_UPDATE, _REPLY, _REPORT, _ROWS = (
    _header_dtype(header) for header in (UpdateHeader, ReplyHeader, ReportHeader, RowsHeader)
)


def dense_is_smaller(columns: int, column_count: int) -> bool:
    """Tell whether a whole vector takes fewer bytes than that many columns with their values."""
    return 4 * column_count < 8 * columns


def largest_reply(column_count: int) -> int:
    """Return the most bytes a reply can have: the whole vector."""
    return _REPLY.itemsize + 8 + 4 * column_count


def pack_update(header: UpdateHeader, columns: NDArray[np.int32] | None, changes: Float) -> Bytes:
    """Pack a turn's changes of the weights: float32 at the sparse `columns`, or of every column (None)."""
    return _pack(_UPDATE, astuple(header), columns, changes)


def unpack_update(message: Bytes) -> tuple[UpdateHeader, NDArray[np.int32] | None, Float]:
    """Return the header, the columns (None: all of them, in order) and the changes."""
    header, columns, changes = _unpack(_UPDATE, message)
    return UpdateHeader(*header), columns, changes


def pack_reply(header: ReplyHeader, columns: NDArray[np.int32] | None, values: Float) -> Bytes:
    """Pack the server's vector: float32 at the `columns` that changed, or whole (None)."""
    return _pack(_REPLY, astuple(header), columns, values)


def unpack_reply(message: Bytes) -> tuple[ReplyHeader, NDArray[np.int32] | None, Float]:
    """Return the header, the columns (None: all of them, in order) and the vector's values there."""
    (stop, *header), columns, values = _unpack(_REPLY, message)
    return ReplyHeader(bool(stop), *header), columns, values


def pack_report(header: ReportHeader, round_trips: Float, weights: Float) -> Bytes:
    """Pack what the workers have done with the weights, float32 (column_count,)."""
    return np.concatenate([_pack_header(_REPORT, astuple(header)), round_trips.view(np.uint8), weights.view(np.uint8)])


def unpack_report(message: Bytes) -> tuple[ReportHeader, Float, Float]:
    """Return the header, the latest round trips (s) and the weights."""
    values, body = _unpack_header(_REPORT, message)
    header = ReportHeader(*values)
    end = 4 * header.round_trips
    return header, body[:end].view(np.float32), body[end:].view(np.float32)


def pack_rows(rows: SparseRows, labels: Float, shard_rows: int, shard_elements: int) -> Bytes:
    """Pack a block of rows with their labels: lengths as int64, columns as int32, values and labels as float32."""
    rows = rows.compact()
    header = (len(rows), rows.elements, shard_rows, shard_elements, 0)
    columns = rows.columns.astype(np.int32, copy=False)
    arrays = (np.diff(rows.row_pointers).astype(np.int64), columns, rows.values, labels)
    return np.concatenate([_pack_header(_ROWS, header), *(array.view(np.uint8) for array in arrays)])


def pack_rows_end() -> Bytes:
    """Pack the word that no more rows will come."""
    return _pack_header(_ROWS, (0, 0, 0, 0, 1))


def unpack_rows(message: Bytes, column_count: int) -> tuple[RowsHeader, SparseRows, Float]:
    """Return the header, the rows and their labels, float32 (rows,)."""
    (rows_here, elements, shard_rows, shard_elements, ended), body = _unpack_header(_ROWS, message)
    header = RowsHeader(rows_here, elements, shard_rows, shard_elements, bool(ended))
    ends = np.cumsum([0, 8 * header.rows, 4 * header.elements, 4 * header.elements, 4 * header.rows])
    lengths, columns, values, labels = (body[a:b] for a, b in itertools.pairwise(ends))
    pointers = np.zeros(header.rows + 1, np.int32)
    np.cumsum(lengths.view(np.int64), out=pointers[1:])
    rows = SparseRows(values.view(np.float32), columns.view(np.int32), pointers, column_count)
    return header, rows, labels.view(np.float32)


def _pack_header(dtype: np.dtype[np.void], values: tuple[Any, ...]) -> Bytes:
    return np.array([values], dtype).view(np.uint8)


def _unpack_header(dtype: np.dtype[np.void], message: Bytes) -> tuple[Any, Bytes]:
    return message[: dtype.itemsize].view(dtype)[0].item(), message[dtype.itemsize :]


def _pack(
    dtype: np.dtype[np.void],
    header: tuple[Any, ...],
    columns: NDArray[np.int32] | None,
    values: Float,
) -> Bytes:
    """Join header, number of columns (ALL_COLUMNS for a whole vector), columns as int32, and values."""
    head = _pack_header(dtype, header)
    if columns is None:
        return np.concatenate([head, np.array([ALL_COLUMNS]).view(np.uint8), values.view(np.uint8)])
    count = np.array([len(columns)]).view(np.uint8)
    return np.concatenate([head, count, columns.view(np.uint8), values.view(np.uint8)])


def _unpack(dtype: np.dtype[np.void], message: Bytes) -> tuple[Any, NDArray[np.int32] | None, Float]:
    header, body = _unpack_header(dtype, message)
    count = int(body[:8].view(np.int64)[0])
    if count == ALL_COLUMNS:
        return header, None, body[8:].view(np.float32)
    return header, body[8 : 8 + 4 * count].view(np.int32), body[8 + 4 * count :].view(np.float32)
