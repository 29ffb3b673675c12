"""These tests run on every rank of `mpirun -n N python -m pytest --with-mpi tests/mpi`, each rank doing its part."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
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


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """300 rows of 30 columns in two classes, as text; the same on every rank."""
    rng = np.random.default_rng(11)
    direction = rng.normal(size=30)
    path = tmp_path / "rows.svm"
    with path.open("w") as file:
        for _ in range(300):
            columns = np.sort(rng.choice(30, size=rng.integers(1, 9), replace=False))
            values = rng.normal(size=len(columns)).round(3)
            label = "+1" if values @ direction[columns] > 0 else "-1"
            file.write(" ".join([label, *(f"{c + 1}:{v}" for c, v in zip(columns, values, strict=True))]) + "\n")
    return path


@pytest.fixture
def uneven(data: Path) -> Path:
    """The same rows with columns of very different sizes."""
    sizes = 10.0 ** np.array([0, 2, -2, 1, -1, 3])  # again and again
    path = data.with_name("uneven.svm")
    with path.open("w") as file:
        for label, *elements in map(str.split, data.read_text().splitlines()):
            pairs = ((int(column), float(value)) for column, value in (element.split(":") for element in elements))
            file.write(" ".join([label, *(f"{c}:{v * sizes[c % len(sizes)]:.6g}" for c, v in pairs)]) + "\n")
    return path
