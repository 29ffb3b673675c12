"""Runs mpisgd with ranks that fall asleep once, in the middle of learning; `benchmarks/idle.py` starts it.

Every rank writes its process id to N.pid; a rank that falls asleep leaves N.asleep when it does.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.rank_usage import own_rank
from mpisgd.learner import Learner
from mpisgd.main import main

DIRECTORY, ASLEEP = "STRAGGLER_DIRECTORY", "STRAGGLER_RANKS"
TURN = 5  # of each sleeper, the one it oversleeps
SECONDS = 12.0


def fall_asleep_once(note: Path) -> None:
    """Let this process's learner sleep before one of its turns."""
    take_turn, turns = Learner.turn, itertools.count()

    def turn(*arguments: Any, **named: Any) -> int:
        if next(turns) == TURN:
            note.touch()
            time.sleep(SECONDS)
        return take_turn(*arguments, **named)

    Learner.turn = turn  # type: ignore[method-assign]
    Learner.rest_of_pass = lambda _: None  # type: ignore[method-assign]  # one turn at a time


if __name__ == "__main__":
    directory, rank = Path(os.environ[DIRECTORY]), own_rank()
    (directory / f"{rank}.pid").write_text(str(os.getpid()))
    if str(rank) in os.environ[ASLEEP].split():
        fall_asleep_once(directory / f"{rank}.asleep")
    sys.exit(main(sys.argv[1:], os.environ))
