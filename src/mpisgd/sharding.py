"""Which rows go where: the validation rows that rank 0 keeps, each worker's shard, and parts of what all have."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

VALIDATION_FRACTION = 0.05
VALIDATION_MOST = 5_000
NOBODY = -1


def choose_validation(rows: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return which of the training rows are held out to measure on, bool (rows,): 5 %, at most 5,000."""
    held_out = np.zeros(rows, np.bool_)
    count = min(max(1, round(VALIDATION_FRACTION * rows)), VALIDATION_MOST, rows)
    held_out[rng.choice(rows, size=count, replace=False)] = True
    return held_out


def partition(held_out: NDArray[np.bool_], workers: int, rng: np.random.Generator) -> NDArray[np.int32]:
    """Return the worker (0 to workers - 1, or NOBODY where held out) of each row, int32 (rows,).

    Random, and no shard is more than one row larger than another.
    """
    owner = np.full(len(held_out), NOBODY, np.int32)
    learning = rng.permutation(np.flatnonzero(~held_out))
    owner[learning] = np.arange(len(learning), dtype=np.int32) % workers
    return owner


def contiguous_parts(length: int, parts: int) -> list[slice]:
    """Return parts of so many rows or columns, one after the other and as even as can be; some may be empty."""
    bounds = np.linspace(0, length, parts + 1).astype(int).tolist()
    return [slice(first, last) for first, last in itertools.pairwise(bounds)]


def sample_size(rows: int, workers: int) -> int:
    """Return how many rows a worker's sample has, n / (2 x workers) as in the original, at least one."""
    return max(1, rows // (2 * workers))
