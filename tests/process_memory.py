"""Stands in for the memory that ranks share: arrays of this process, or of those that are forked from it."""

from __future__ import annotations

import mmap

import numpy as np

from mpisgd.shared_memory import Shape


class Memory:
    """As much of `SharedMemory` as who shares weights asks for; of the first of so many ranks."""

    def __init__(self, size: int, shapes: tuple[Shape, ...], *, willing: bool) -> None:
        assert willing
        self.arrays = [np.zeros(*shape) for shape in shapes]
        self.rank, self.size = 0, size

    def meet(self, first: int, *, hurry: bool) -> None: ...


def shared_by_processes(memory: Memory) -> None:
    """Let the processes that are forked from now on share the memory."""
    for number, array in enumerate(memory.arrays):
        memory.arrays[number] = np.frombuffer(mmap.mmap(-1, array.nbytes), array.dtype).reshape(array.shape)
