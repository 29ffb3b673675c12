"""Bare mpi4py: workers send rank 0 messages of one size as fast as it answers them; prints answers a second.

mpirun -n 9 python -m benchmarks.ping_pong BYTES SECONDS
"""

from __future__ import annotations

import sys
import time

import numpy as np
from mpi4py import MPI


def serve(world: MPI.Comm, size: int, seconds: float) -> float:
    """Answer every worker, after so many seconds with the word to stop; return the answers a second."""
    buffer, status, answers, workers = np.zeros(size, np.uint8), MPI.Status(), 0, world.size - 1
    began = time.perf_counter()
    while workers:
        world.Recv(buffer, MPI.ANY_SOURCE, MPI.ANY_TAG, status)
        buffer[0] = time.perf_counter() - began > seconds
        world.Send(buffer, status.Get_source())
        workers -= int(buffer[0])
        answers += 1
    return answers / (time.perf_counter() - began)


def ask(world: MPI.Comm, size: int) -> None:
    """Send messages until an answer says to stop."""
    buffer = np.zeros(size, np.uint8)
    while not buffer[0]:
        world.Send(buffer, 0)
        world.Recv(buffer, 0)


if __name__ == "__main__":
    everyone, message = MPI.COMM_WORLD, int(sys.argv[1])
    if everyone.rank == 0:
        sys.stdout.write(f"{serve(everyone, message, float(sys.argv[2]))}\n")
    else:
        ask(everyone, message)
