"""Whole training runs on the ranks of this job, and what rank 0 has of them."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mpi4py import MPI

from mpisgd import rank_worker, results
from mpisgd.channel import SERVER, Channel
from mpisgd.interrupt import Interrupt
from mpisgd.learner import Learner
from mpisgd.model import load_model
from mpisgd.shard import Shard
from mpisgd.svm import ScaledVector
from mpisgd.training import train

SMALL = ("--passes", "3", "--patience", "none", "--eval-interval", "100", "--batch-size", "5", "--iterations", "4")


@dataclass
class Result:
    """What rank 0 has of a run: weights with the bias, what was logged, each worker's first shard.

    `last` are the weights at the end, where `weights` are those the validation rows found best.
    """

    weights: np.ndarray
    last: np.ndarray
    metrics: list[dict[str, Any]]
    events: list[dict[str, Any]]
    shards: list[Shard]


def run(channel: Channel, directory: Path, *arguments: str) -> Result | None:
    """Train on all ranks; return what rank 0 can know, None on the workers."""
    shards: list[Shard] = []
    last: list[ScaledVector] = []

    def keep(choose, kept, weights, *others):
        kept.append(weights)
        return choose(weights, *others)

    class Watched(Learner):
        def __init__(self, job, shard, feed):
            shards.append(shard)
            super().__init__(job, shard, feed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rank_worker, "Learner", Watched)
        patch.setattr(results, "best_measured", functools.partial(keep, results.best_measured, last))
        if channel.rank == SERVER:
            train(channel, [*arguments, "--run-dir", str(directory)], {}, Interrupt())
        else:
            rank_worker.work(channel)
    gathered = MPI.COMM_WORLD.gather(shards[0] if shards else None)
    if channel.rank != SERVER:
        return None
    return Result(
        weights=load_model(directory / "model.h5").vector(),
        last=last[0].weights(),
        metrics=[json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()],
        events=[json.loads(line) for line in (directory / "events.jsonl").read_text().splitlines()],
        shards=gathered[1:],
    )
