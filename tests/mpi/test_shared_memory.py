"""Memory that the workers share: what was written before a meeting is seen after it."""

from __future__ import annotations

import numpy as np
import pytest

from mpisgd import shared_memory
from mpisgd.channel import SERVER, Channel

pytestmark = pytest.mark.mpi(min_size=2)
LENGTH = 1_000


def test_what_all_wrote_before_a_meeting_is_there_after_it(channel: Channel) -> None:
    workers = len(channel.workers)
    if channel.rank == SERVER:
        return
    memory = channel.worker_share(workers + 1, LENGTH)
    assert (memory is None) == (workers == 1)
    if memory is None:
        return
    *of_workers, total = memory.arrays
    assert total.shape == (LENGTH,)
    assert not memory.arrays.any()
    channel.worker_meet(memory)
    part = slice((channel.rank - 1) * LENGTH // workers, channel.rank * LENGTH // workers)
    for turn in range(1, 200):
        of_workers[channel.rank - 1][:] = channel.rank * turn
        channel.worker_meet(memory)
        total[part] = sum(array[part] for array in of_workers)
        channel.worker_meet(memory)
        np.testing.assert_array_equal(total, sum(channel.workers) * turn)
    channel.worker_leave()


def test_too_much_memory_is_not_asked_for(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "LARGEST", 4 * LENGTH)
    if channel.rank != SERVER:
        assert channel.worker_share(1, LENGTH) is None
