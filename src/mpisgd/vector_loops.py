"""The loops over vectors of the weights: compiled, or NumPy's where they were not.

The compiled ones are in `_vectors.c`, a part of the kernel. An exchange goes over all columns a few times on either
side; in NumPy the same takes a dozen passes and as many arrays.

All vectors are float32 (column_count,).
"""

import numpy as np
from numpy.typing import NDArray

from mpisgd.compiled_loops import Float, _kernel


def subtract(
    mine: Float,
    shared: Float,
    scale: float,
    threshold: float,
    changes: Float,
    columns: NDArray[np.int32] | None = None,
) -> tuple[int, int]:
    """Write (mine - shared) scale to `changes`, 0 up to the threshold.

    Returns how many are above the threshold, and how many were not 0.

    Of all columns, or of these, which must be in range: `changes` is float32 (columns,) then.

    Raises:
        ValueError: vectors of lengths that do not fit, with the compiled loops.

    """
    if _kernel is not None:
        sent, changed = _kernel.subtract(mine, shared, scale, threshold, changes, columns)
        return int(sent), int(changed)
    where = slice(None) if columns is None else columns
    np.subtract(mine[where], shared[where], out=changes)
    changes *= np.float32(scale)
    changed = int(np.count_nonzero(changes))
    changes[np.abs(changes) <= np.float32(threshold)] = 0
    return int(np.count_nonzero(changes)), changed


def merge(weights: Float, gains: Float, changes: Float, log_decay: float) -> None:
    """Change `weights` to exp(g L) w + g d, in place: gains g, 0 < g <= 1, and changes d of every column, L <= 0."""
    if _kernel is not None:
        _kernel.merge(weights, gains, changes, log_decay)
        return
    weights *= np.exp(gains * np.float32(log_decay))
    weights += gains * changes


def damping(curvatures: Float, turn_size: float, turns: int, gains: Float) -> None:
    """Write (1 + a) / (1 + turns a), a = turn_size times the curvature, to `gains`: see `merging`."""
    if _kernel is not None:
        _kernel.damping(curvatures, turn_size, turns, gains)
        return
    least = np.float32(1 / turns)
    a = curvatures * np.float32(turn_size)
    np.add(least, (1 - least) / (1 + np.float32(turns) * a), out=gains)


def blend(average: Float, weights: Float, share: float, scale: float) -> None:
    """Move `average` towards scale w by this share of the way, in place."""
    if _kernel is not None:
        _kernel.blend(average, weights, share, scale)
        return
    average *= np.float32(1 - share)
    average += weights * np.float32(share * scale)
