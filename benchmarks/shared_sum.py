"""Sums a vector over ranks of one node by Allreduce and through an MPI-3 shared window; prints microseconds a round.

    mpirun -n 8 python -m benchmarks.shared_sum COLUMNS ROUNDS

Through the window every rank writes its vector beside the others', adds up a part of the columns over all, and reads
the sum: two barriers. All waits are polled as the program polls.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray


def wait(request: MPI.Request) -> None:
    """Poll, and yield the core in between."""
    while not request.Test():
        os.sched_yield()


def by_allreduce(world: MPI.Comm, mine: NDArray[np.float32]) -> Callable[[], NDArray[np.float32]]:
    """Return a round that sums by the library's collective."""
    total = np.empty_like(mine)

    def sum_up() -> NDArray[np.float32]:
        wait(world.Iallreduce(mine, total))
        return total

    return sum_up


def by_window(world: MPI.Comm, mine: NDArray[np.float32]) -> Callable[[], NDArray[np.float32]]:
    """Return a round that sums through memory that the ranks share."""
    columns, own = len(mine), mine.nbytes * (2 if world.rank == 0 else 1)
    window = MPI.Win.Allocate_shared(own, mine.itemsize, comm=world)
    slots = [np.frombuffer(window.Shared_query(rank)[0], np.float32)[:columns] for rank in range(world.size)]
    total = np.frombuffer(window.Shared_query(0)[0], np.float32)[columns:]
    bounds = np.linspace(0, columns, world.size + 1).astype(int)
    part = slice(bounds[world.rank], bounds[world.rank + 1])

    def sum_up() -> NDArray[np.float32]:
        slots[world.rank][:] = mine
        wait(world.Ibarrier())
        np.add(slots[0][part], slots[-1][part] if world.size > 1 else 0, out=total[part])
        for slot in slots[1:-1]:
            total[part] += slot[part]
        wait(world.Ibarrier())
        return total

    return sum_up


def microseconds(world: MPI.Comm, sum_up: Callable[[], NDArray[np.float32]], rounds: int) -> float:
    """Return the median time of a round on this rank."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        sum_up()
        times.append(time.perf_counter() - began)
    world.Barrier()
    return 1e6 * statistics.median(times)


if __name__ == "__main__":
    everyone = MPI.COMM_WORLD
    vector = np.full(int(sys.argv[1]), everyone.rank, np.float32)
    ways = {"allreduce": by_allreduce(everyone, vector), "window": by_window(everyone, vector)}
    expected = np.full_like(vector, sum(range(everyone.size)))
    assert all(np.array_equal(way(), expected) for way in ways.values())  # noqa: S101 - a benchmark of sums
    found = {name: microseconds(everyone, way, int(sys.argv[2])) for name, way in ways.items()}
    if everyone.rank == 0:
        sys.stdout.write(
            f"{everyone.size} ranks: {found['allreduce']:.0f} us allreduce, {found['window']:.0f} us window\n"
        )
