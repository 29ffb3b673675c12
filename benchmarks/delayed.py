"""Runs mpisgd with turns that take a fixed time at least, one worker's longer; `delay.py` and `optimum.py` start it.

The time is slept, so that workers that share cores do not speed up when one of them is slow.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from benchmarks.rank_usage import own_rank
from mpisgd.learner import Learner
from mpisgd.main import main

SECONDS, TIMES = "DELAYED_SECONDS", "DELAYED_TIMES"
SLOW_RANK = 1


def take_longer(seconds: float) -> None:
    """Let every turn of this process's learner take so long at least."""
    take_turn = Learner.turn

    def turn(*arguments: Any, **named: Any) -> int:
        began = time.perf_counter()
        rows = take_turn(*arguments, **named)
        time.sleep(max(0.0, seconds - (time.perf_counter() - began)))
        return rows

    Learner.turn = turn  # type: ignore[method-assign]
    Learner.rest_of_pass = lambda _: None  # type: ignore[method-assign]  # turns are taken one by one


if __name__ == "__main__":
    take_longer(float(os.environ[SECONDS]) * (float(os.environ[TIMES]) if own_rank() == SLOW_RANK else 1))
    sys.exit(main(sys.argv[1:], os.environ))
