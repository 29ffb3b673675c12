"""Which weights a run keeps."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mpisgd.config import Config
from mpisgd.errors import RunError
from mpisgd.evaluation import score
from mpisgd.job import Job
from mpisgd.results import _if_useless, best_measured
from mpisgd.svm import ScaledVector

LAST, BEST = ScaledVector(np.ones(2, np.float32)), ScaledVector(np.zeros(2, np.float32))


def kept(last: float, best: float | None, **settings: Any) -> ScaledVector:
    """Let a run end at one objective after the best one measured was another; return the weights it keeps."""
    monitor: Any = SimpleNamespace(
        last={"objective": last, "passes": 9.0, "accuracy": 0.5},
        best={} if best is None else {"objective": best, "passes": 3.0, "accuracy": 0.6},
        best_weights=None if best is None else BEST,
        event=lambda *_, **__: None,
    )
    console: Any = SimpleNamespace(say=lambda _: None)
    return best_measured(LAST, Job(Config(learning_rate=1.0, regularization=0.0, **settings), 2, 100), monitor, console)


@pytest.mark.parametrize(("last", "best"), [(0.2, 0.3), (0.3, 0.3), (0.5, None)])
def test_the_last_weights_are_kept_unless_others_were_better(last: float, best: float | None):
    assert kept(last, best) is LAST


@pytest.mark.parametrize("last", [0.301, 0.4, 1e30, np.inf, np.nan])
def test_the_best_weights_are_kept_where_the_objective_rose(last: float):
    assert kept(last, 0.3) is BEST


def test_without_patience_the_last_weights_are_wanted():
    assert kept(0.9, 0.3, patience=None) is LAST


def test_the_test_rows_choose_no_weights():
    assert kept(0.9, 0.3, eval_split="test") is LAST


@pytest.mark.parametrize(("last", "best"), [(np.nan, None), (1e10, None), (1e10, 1e9)])
def test_hopeless_weights_are_not_kept(last: float, best: float | None):
    with pytest.raises(RunError, match="learning diverged"):
        kept(last, best)


def test_a_model_no_better_than_one_answer_is_called_that():
    labels = np.array([1, -1, -1, -1], np.float32)
    assert _if_useless(score(labels, labels)) == ""
    always_negative = score(-np.ones(4, np.float32), labels)
    assert _if_useless(always_negative) == ": no better than always the same answer, 0.7500"
