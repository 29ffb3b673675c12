"""What travels between server and workers, packed into bytes and unpacked again. Knows no MPI.

Every message is a fixed header followed by arrays; nothing is pickled. Unpacked arrays are views of the buffer.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from enum import IntEnum, unique
from typing import Any, NamedTuple, get_type_hints

import numpy as np
from numpy.typing import NDArray

from mpisgd.compiled_loops import Float
from mpisgd.sparse_rows import SparseRows

Bytes = NDArray[np.uint8]


@unique
class Tag(IntEnum):
    """The MPI tag of each kind of message."""

    ROWS = 1  # server -> worker: a block of the worker's shard
    UPDATE = 2  # worker -> server: what a turn changed; also asks for the weights
    REPLY = 3  # server -> worker: weights that changed, or those asked for; or STOP; of wide rows also the initial ones
    NEXT_SHARD = 4  # worker -> server: has begun on its next sample, wants the one after
    GONE = 5  # worker -> server: has been told to stop and leaves
    REPORT = 6  # leader -> server: in lock step, what the workers have done and measured; in the end, the weights
    ORDER = 7  # server -> leader: in lock step, what to do
    TOLD = 8  # leader -> server: numbers that the workers settle something by, or have settled
    COLUMNS = 9  # worker -> server: of wide rows, which columns it has and what it knows of them
    TURNS = 10  # delegate -> server: the records of the turns of its node that are in its next update


@unique
class Occasion(IntEnum):
    """Why the workers measure the weights in lock step, and their leader reports."""

    PASS = 1  # a pass is complete
    TIME = 2  # the server asked
    END = 3  # the last round is over


@unique
class Order(IntEnum):
    """What the server has to say to the leader of the workers."""

    MEASURE = 1  # measure the weights after the next round, and report
    STOP = 2  # stop with the next round


class ReportHeader(NamedTuple):
    """What the leader says: since the last report, but for the first three and the last two."""

    occasion: int
    rows: int  # processed by all workers since the run began
    seconds: float  # of training, until the last round
    turns: int
    changes_sent: int
    changes: int  # with those held back by the threshold
    merge_weight: float  # mean gain of the weights changed
    bytes_each_way: int  # all workers' buffers of an Allreduce, or what these would be; as many bytes of sums come back
    rounds: int  # the latest, of which round trips follow
    workers: int
    in_memory: bool  # whether rounds are merged in memory that the workers share
    accuracy: float = 0.0  # of the weights that these rounds left, but for the END: those the server measures
    objective: float = 0.0


class RowsHeader(NamedTuple):
    """What the server says with a block of rows."""

    rows: int  # in this block
    elements: int  # in this block
    shard_rows: int  # in the whole shard
    shard_elements: int  # in the whole shard
    ended: bool  # no more rows will come: the run is over, or the server could not read on


_KINDS = {int: "<i8", float: "<f8", bool: "<i8"}


def _header_dtype(header: type) -> np.dtype[np.void]:
    return np.dtype([(name, _KINDS[kind]) for name, kind in get_type_hints(header).items()])


_REPORT, _ROWS = _header_dtype(ReportHeader), _header_dtype(RowsHeader)


def pack_report(header: ReportHeader, round_trips: Float, spent: Float, weights: Sequence[Float]) -> Bytes:
    """Pack what the workers have done; all float32.

    round_trips  s, (rounds, workers)
    spent        s, (workers, 2): each worker's time computing, or measuring, and waiting since the last report
    weights      of the END: the last ones, and the best after a pass if they are wanted; each (column_count,)
    """
    arrays = (array.reshape(-1).view(np.uint8) for array in (round_trips, spent, *weights))
    return np.concatenate([_pack_header(_REPORT, header), *arrays])


def unpack_report(message: Bytes, column_count: int) -> tuple[ReportHeader, Float, Float, Float]:
    """Return the header and what else was packed, in order; the weights are (0 to 2, column_count)."""
    values, body = _unpack_header(_REPORT, message)
    header, numbers = ReportHeader(*values), body.view(np.float32)
    middle = header.rounds * header.workers
    end = middle + 2 * header.workers
    round_trips, spent = numbers[:middle].reshape(-1, header.workers), numbers[middle:end].reshape(-1, 2)
    return header, round_trips, spent, numbers[end:].reshape(-1, column_count)


class Begun(NamedTuple):
    """What the leader tells the server as soon as the first step size is settled."""

    at: float  # s, when the clock of training started, by the leader's clock, which is that of all ranks on its node
    seconds: float  # since then
    step_size: float


def pack_columns(names: NDArray[np.int32], facts: NDArray[np.float64]) -> Bytes:
    """Pack which columns a worker has, int32 (columns,), with its `beginning.row_facts`, float64 (3 + columns,)."""
    return np.concatenate([facts.view(np.uint8), names.view(np.uint8)])


def unpack_columns(message: Bytes) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Return the columns and the facts."""
    columns = (len(message) - 24) // 12
    end = 24 + 8 * columns
    return message[end:].view(np.int32), message[:end].view(np.float64)


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
