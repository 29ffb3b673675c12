"""These tests run on every rank of `mpirun -n N python -m pytest --with-mpi tests/mpi`, each rank doing its part."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from mpi4py import MPI

from mpisgd.channel import Channel


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    if MPI.COMM_WORLD.rank > 0:  # rank 0 tells the progress for all
        config.pluginmanager.unregister(name="terminalreporter")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """End the job when a test fails on one rank: the others would wait for it for ever."""
    outcome: Any = yield
    report = outcome.get_result()
    if report.failed and MPI.COMM_WORLD.size > 1:
        sys.stderr.write(f"rank {MPI.COMM_WORLD.rank}: {item.nodeid} failed\n{report.longreprtext}\n")
        sys.stderr.flush()
        MPI.COMM_WORLD.Abort(1)


@pytest.fixture
def channel() -> Channel:
    return Channel(MPI.COMM_WORLD)
