"""Memory that ranks of one node share, and the waiting for each other that it takes (an MPI-3 shared window)."""

from __future__ import annotations

import math
import resource
import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mpisgd import hogwild_loops
from mpisgd.compiled_loops import is_compiled
from mpisgd.waiting import YIELDS_FOR_COLLECTIVE, Backoff, Work, poll

if TYPE_CHECKING:
    from mpi4py import MPI

# More is not asked for: containers often have 64 MB of such memory in all, and MPI's own messages take a part of it.
LARGEST = 32 << 20  # bytes
PLACE = "/dev/shm"  # noqa: S108 - where MPI has it, on Linux
PAGE = 4096  # bytes, or more
CACHE_LINE = 64  # bytes; each rank's number of meetings lies on one of its own, as do the arrays' beginnings
LOOKS = 200  # for the others, of some microseconds, before messages are to be moved along
Shape = tuple[tuple[int, ...], np.dtype[Any]]


class SharedMemory:
    """Arrays that every rank of a communicator reads and writes, all ranks being on one node.

    What a rank has written before `meet` all others read after it.

    arrays  of the shapes that were asked for, zeros at first
    rank    of this process among those that share the memory, and `size`, how many these are
    """

    def __init__(self, window: MPI.Win, ranks: MPI.Comm, shapes: Sequence[Shape], meanwhile: Work) -> None:
        memory: NDArray[np.uint8] = np.asarray(window.Shared_query(0)[0])
        self._window, self._meanwhile = window, meanwhile
        self.rank: int = ranks.rank
        self.size: int = ranks.size
        self._meeting = 0
        self._meetings: NDArray[np.int64]
        self._meetings, *self.arrays = _arrays(memory, [_meetings(ranks), *shapes])

    @classmethod
    def of(
        cls, ranks: MPI.Comm, shapes: Sequence[Shape], meanwhile: Work, *, willing: bool = True
    ) -> SharedMemory | None:
        """Return memory for such arrays; none where it can't be had, or where one rank is alone or not willing.

        It can't where the ranks are on several nodes, or it is too much. `meanwhile` is called between two looks for
        who has come to a meeting. Collective.
        """
        from mpi4py import MPI  # noqa: PLC0415 - importing it initialises MPI

        size = sum(_padded_bytes(shape) for shape in [_meetings(ranks), *shapes])
        if ranks.size == 1 or size > LARGEST:
            return None
        node = ranks.Split_type(MPI.COMM_TYPE_SHARED)
        together = node.size == ranks.size
        node.Free()
        if not _all_say(ranks, willing and together and _has_room(size)):
            return None
        try:
            window = MPI.Win.Allocate_shared(size if ranks.rank == 0 else 0, 1, comm=MPI.Intracomm(ranks))
        except MPI.Exception:
            window = MPI.WIN_NULL
        if not _all_say(ranks, window != MPI.WIN_NULL):
            return None  # whoever got it keeps it: to give it back would take all
        window.Lock_all(MPI.MODE_NOCHECK)
        made = cls(window, ranks, shapes, meanwhile)
        # pages lie near the core that writes them first, so each rank zeroes its part
        memory: NDArray[np.uint8] = np.asarray(window.Shared_query(0)[0])
        memory[size * ranks.rank // ranks.size : size * (ranks.rank + 1) // ranks.size] = 0
        window.Sync()
        _all_say(ranks, True)
        window.Sync()
        memory[::PAGE].max(initial=0)  # each has all pages now, and need not stop for them later
        return made

    def meet(self, first: int = 0, *, hurry: bool = True) -> None:
        """Wait until all ranks are here, from the `first` on; without `hurry` this one sleeps meanwhile. Collective."""
        self._meeting += 1
        if not self._come(first, LOOKS if hurry else 0):
            poll(lambda: self._are_here(first), self._meanwhile, Backoff(YIELDS_FOR_COLLECTIVE if hurry else 0))
            self._window.Sync()

    def free(self) -> None:
        """Give the memory back when all have come; nobody may look at the arrays any more. Collective."""
        self.meet()  # where waiting backs off
        self._window.Unlock_all()
        self._window.Free()

    def _come(self, first: int, looks: int) -> bool:
        """Say that this rank has come to the meeting; tell whether the others are seen to have, in so many looks."""
        if is_compiled():
            return hogwild_loops.meet(self._meetings, self.rank, self._meeting, first, looks)
        self._window.Sync()  # what was written here is seen before the word that it is
        self._meetings[self.rank, 0] = self._meeting
        return False

    def _are_here(self, first: int) -> bool:
        self._window.Sync()
        return bool(self._meetings[first:, 0].min() >= self._meeting)


def _meetings(ranks: MPI.Comm) -> Shape:
    """Return the shape of every rank's number of meetings."""
    return (ranks.size, CACHE_LINE // 8), np.dtype(np.int64)


def _padded_bytes(shape: Shape) -> int:
    sizes, dtype = shape
    return -(-math.prod(sizes) * dtype.itemsize // CACHE_LINE) * CACHE_LINE


def _arrays(memory: NDArray[np.uint8], shapes: Sequence[Shape]) -> list[NDArray[Any]]:
    """Return views of the memory of these shapes, one after the other."""
    arrays, start = [], 0
    for sizes, dtype in shapes:
        end = start + math.prod(sizes) * dtype.itemsize
        arrays.append(memory[start:end].view(dtype).reshape(sizes))
        start += _padded_bytes((sizes, dtype))
    return arrays


def _has_room(size: int) -> bool:
    """Tell whether there is twice as much memory to share as wanted, and this process may make files as large.

    To ask for more than there is may end in an exception, in a rank that waits for ever or in a fault at the first use.
    """
    largest_file, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        return shutil.disk_usage(PLACE).free >= 2 * size and not 0 <= largest_file < 2 * size
    except OSError:
        return False


def _all_say(ranks: MPI.Comm, word: bool) -> bool:
    """Tell whether all ranks say yes. Collective."""
    words, sum_of_words = np.array([word], np.int64), np.zeros(1, np.int64)
    poll(ranks.Iallreduce(words, sum_of_words).Test, None, Backoff(YIELDS_FOR_COLLECTIVE))
    return bool(sum_of_words[0] == ranks.size)
