"""The keys of a worker's turns, on either end: which columns each turn of a pass has, found and sent once.

A pass over a shard is the same turns every time, so their columns can be named by the turn's number from then on.
"""

from __future__ import annotations

from mpisgd import exchange_loops
from mpisgd.sparse_rows import SparseRows
from mpisgd.updates import ALL_COLUMNS, Keys


class WorkerKeys:
    """What a worker knows of its turns' columns, and what of that the server does.

    of_all  the columns of every turn, see `exchange_loops`
    """

    def __init__(self, rows: SparseRows, turn_rows: int, names: Keys | None = None) -> None:
        """Take the shard's rows, how many a turn has, and what the server calls the columns if that is not the same."""
        self.of_all = exchange_loops.turn_keys(rows.arrays, rows.column_count, turn_rows)
        self._names = names
        self._told = [False] * -(-len(rows) // turn_rows)

    def wanted_with(self, turn: int, *, overlaps: bool) -> int:
        """Return the number of the turn whose weights are to come with the reply to that turn's update.

        If the worker computes one turn while the last one's update travels, it is the turn after that.
        """
        return (turn + 1 + overlaps) % len(self._told)

    def of(self, turn: int) -> Keys:
        """Return the columns of a turn's rows, in order."""
        return self.of_all.keys[self.of_all.ends[turn] : self.of_all.ends[turn + 1]]

    def to_tell(self, turn: int) -> Keys | None:
        """Return a turn's keys by the server's names if it is to hear them now, for the only time; otherwise none."""
        told, self._told[turn] = self._told[turn], True
        if told:
            return None
        return self.of(turn) if self._names is None else self._names[self.of(turn)]


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
