"""When the weights are measured in lock step, and what a worker says of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mpisgd.config import Config
from mpisgd.held_out_part import HeldOutPart
from mpisgd.job import Job
from mpisgd.merging import RoundFacts, TurnFacts
from mpisgd.messages import Occasion
from mpisgd.shard import Shard
from mpisgd.sparse_rows import SparseRows
from mpisgd.svm import NOTHING_JUDGED

ROWS = 100  # of a pass


def part_of(rounds: Any, **settings: Any) -> HeldOutPart:
    matrix = np.eye(3, dtype=np.float32)
    rows = SparseRows(matrix[matrix > 0], np.arange(3, dtype=np.int32), np.arange(4, dtype=np.int32), 3)
    job = Job(Config(bias=False, regularization=0.1, **settings), 3, ROWS, workers=2, held_out_rows=6)
    return HeldOutPart(job, rounds, Shard(rows, np.array([1, 1, -1], np.float32)))


def occasions(rows_of_rounds: list[int], asked: set[int]) -> list[Occasion | None]:
    """Return why the weights are measured after each of the rounds, before which some asked for it."""
    rounds = SimpleNamespace(rows=0)
    part, found = part_of(rounds), []
    for number, rows in enumerate(rows_of_rounds):
        rounds.rows += rows
        facts = RoundFacts([TurnFacts(rows=rows, measure=number in asked)])
        part.after_round(facts, last=number == len(rows_of_rounds) - 1)
        found.append(part.occasion)
    return found


PASS, TIME = Occasion.PASS, Occasion.TIME


@pytest.mark.parametrize(
    ("rows", "asked", "expected"),
    [
        ([60, 60, 60, 60, 60], set(), [None, PASS, None, PASS, None]),
        ([250, 40, 20, 5], set(), [PASS, None, PASS, None]),  # passes that ended in one round are one
        ([60, 60, 60, 5], {0, 1, 2}, [TIME, PASS, TIME, None]),
        ([200, 200], set(), [PASS, None]),  # the last weights are the server's to measure
        ([90, 5], {1}, [None, None]),
    ],
)
def test_weights_are_measured_after_passes_and_when_asked(rows, asked, expected) -> None:
    assert occasions(rows, asked) == expected


def test_a_part_is_judged_by_what_the_run_is_measured_by() -> None:
    rounds = SimpleNamespace(rows=ROWS, measured=lambda: np.array([2, -1, 0.5], np.float32))
    part = part_of(rounds)
    assert part.judged() == NOTHING_JUDGED
    part.after_round(RoundFacts([TurnFacts(rows=ROWS)]), last=False)
    assert part.judged() == (1, 0 + 2 + 1.5)
