"""Runs mpisgd as where workers cannot share memory: rounds in lock step are summed by Allreduce; for `one_node.py`."""

from __future__ import annotations

import os
import sys

from mpisgd import shared_memory
from mpisgd.main import main

if __name__ == "__main__":
    shared_memory.LARGEST = 0
    sys.exit(main(sys.argv[1:], os.environ))
