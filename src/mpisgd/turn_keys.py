"""The keys of a worker's turns, on either end: which columns each turn of a pass has, found and sent once.

A pass over a shard is the same turns every time, so their columns can be named by the turn's number from then on.
"""

from __future__ import annotations

import numpy as np

from mpisgd import hogwild_loops
from mpisgd.hogwild_loops import Rows, TurnKeys
from mpisgd.sparse_rows import SparseRows
from mpisgd.updates import ALL_COLUMNS, Keys


class WorkerKeys:
    """What a worker knows of its turns' columns, and what of that the server does."""

    def __init__(self, rows: SparseRows, turn_rows: int, names: Keys | None = None) -> None:
        """Take the shard's rows, how many a turn has, and what the server calls the columns if that is not the same."""
        self._rows, self._turn_rows, self._names = rows, turn_rows, names
        self._keys: list[Keys | None] = [None] * -(-len(rows) // turn_rows)
        self._told = [False] * len(self._keys)
        self._seen = np.zeros(rows.column_count, np.bool_)
        self._all: TurnKeys | None = None

    def wanted_with(self, turn: int, *, overlaps: bool) -> int:
        """Return the number of the turn whose weights are to come with the reply to that turn's update.

        If the worker computes one turn while the last one's update travels, it is the turn after that.
        """
        return (turn + 1 + overlaps) % len(self._keys)

    def of(self, turn: int) -> Keys:
        """Return the columns of a turn's rows, in order."""
        if self._all is not None:
            return self._all.keys[self._all.ends[turn] : self._all.ends[turn + 1]]
        keys = self._keys[turn]
        if keys is None:
            keys = self._keys[turn] = self._found(turn)
        return keys

    def of_all_turns(self) -> TurnKeys:
        """Return the columns of all turns, found at once by the kernel."""
        if self._all is None:
            rows = self._rows
            of_rows = Rows(rows.row_pointers, rows.columns, rows.values, rows.row_pointers.itemsize == 8)
            self._all = hogwild_loops.turn_keys(of_rows, rows.column_count, self._turn_rows)
        return self._all

    def to_tell(self, turn: int) -> Keys | None:
        """Return a turn's keys by the server's names if it is to hear them now, for the only time; otherwise none."""
        told, self._told[turn] = self._told[turn], True
        if told:
            return None
        return self.of(turn) if self._names is None else self._names[self.of(turn)]

    def _found(self, turn: int) -> Keys:
        pointers = self._rows.row_pointers
        start = turn * self._turn_rows
        stop = min(start + self._turn_rows, len(self._rows))
        columns = self._rows.columns[pointers[start] : pointers[stop]]
        self._seen[columns] = True
        keys = np.flatnonzero(self._seen).astype(np.int32)
        self._seen[keys] = False
        return keys


class ServerKeys:
    """What the server knows of one worker's turns."""

    def __init__(self, column_count: int) -> None:
        self._column_count = column_count
        self._keys: dict[int, Keys] = {}

    def hear(self, turn: int, keys: Keys | None) -> Keys | None:
        """Return the keys of a turn, which came with the message or, where None did, before; None for all columns.

        Raises:
            ValueError: columns that do not exist.

        """
        if turn == ALL_COLUMNS:
            return None
        if keys is not None:
            least, most = keys.min(initial=0), keys.max(initial=0)
            if least < 0 or most >= self._column_count:
                raise ValueError(f"keys of a turn: found {least} to {most} of {self._column_count} columns")
            self._keys[turn] = keys.copy()
        return self._keys[turn]
