"""The loops over vectors of the weights: compiled, or NumPy's where they were not.

The compiled ones are in `_vectors.c`, a part of the kernel. An exchange goes over all columns a few times on either
side; in NumPy the same takes a dozen passes and as many arrays.

All vectors are of shape (column_count,): weights, changes and gains float32, versions int64. A list of columns is
int32; None in its place stands for all columns in order.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpisgd.compiled_loops import Float

_kernel: Any
try:
    from mpisgd import _kernel
except ImportError:
    _kernel = None


def subtract(mine: Float, shared: Float, scale: float, threshold: float, changes: Float) -> int:
    """Write (mine - shared) scale to `changes`, 0 up to the threshold; return how many of them are not 0."""
    if _kernel is not None:
        return int(_kernel.subtract(mine, shared, scale, threshold, changes))
    np.subtract(mine, shared, out=changes)
    changes *= np.float32(scale)
    changes[np.abs(changes) <= np.float32(threshold)] = 0
    return int(np.count_nonzero(changes))


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


def pick_changes(
    changes: Float, vector: Float, base: Float, columns: NDArray[np.int32], picked: Float
) -> tuple[NDArray[np.int32], Float]:
    """Return the columns of the changes that are not 0, and those changes; set `base` to `vector` there.

    What is returned are views of `columns` and `picked`, which have room for all columns.
    """
    if _kernel is not None:
        count = _kernel.pick_changes(changes, vector, base, columns, picked)
        return columns[:count], picked[:count]
    found = np.flatnonzero(changes).astype(np.int32)
    base[found] = vector[found]
    return found, changes[found]


def pick_since(
    changed_at: NDArray[np.int64], version: int, vector: Float, columns: NDArray[np.int32], picked: Float
) -> tuple[NDArray[np.int32], Float]:
    """Return the columns that changed after a version, and the vector there; views as in `pick_changes`."""
    if _kernel is not None:
        count = _kernel.pick_since(changed_at, version, vector, columns, picked)
        return columns[:count], picked[:count]
    found = np.flatnonzero(changed_at > version).astype(np.int32)
    return found, vector[found]


def add_update(
    vector: Float,
    changed_at: NDArray[np.int64],
    times_changed: Float,
    curvatures: Float,
    columns: NDArray[np.int32] | None,
    changes: Float,
    *,
    version: int,
    factor: float,
    turns: int,
    turn_size: float,
    shrinking: float,
) -> int:
    """Add a worker's changes to the server's vector by the rule of `weights.ServerWeights`; return how many.

    Each column changed gets the version and counts one time more. With the gain g as in `damping` and r the share of
    all versions that changed the column, its entry v becomes
        v (1 + (1 - g) shrinking / r) + g d factor.

    Raises:
        ValueError: columns out of range, with the compiled loops.

    """
    if _kernel is not None:
        return int(
            _kernel.add_update(
                vector,
                changed_at,
                times_changed,
                curvatures,
                columns,
                changes,
                version,
                factor,
                turns,
                turn_size,
                shrinking,
            )
        )
    if columns is None:
        columns = np.flatnonzero(changes).astype(np.int32)
        changes = changes[columns]
    changed_at[columns] = version
    times_changed[columns] += 1
    gain = np.empty_like(changes)
    damping(curvatures[columns], turn_size, turns, gain)
    every = np.float32(version) / times_changed[columns]
    vector[columns] *= 1 + (1 - gain) * np.float32(shrinking) * every
    vector[columns] += gain * changes * np.float32(factor)
    return len(columns)


def take_in(columns: NDArray[np.int32] | None, values: Float, base: Float, local: Float) -> None:
    """Set `base` to the values, and `local` to them plus what it was ahead of the base, at these columns.

    Raises:
        ValueError: columns out of range, with the compiled loops.

    """
    if _kernel is not None:
        _kernel.take_in(columns, values, base, local)
        return
    where = slice(None) if columns is None else columns
    ahead = local[where] - base[where]
    base[where] = values
    local[where] = values + ahead
