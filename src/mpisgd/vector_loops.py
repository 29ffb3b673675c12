"""The loops over vectors of the weights: compiled, or NumPy's where they were not.

The compiled ones are in `_vectors.c`, a part of the kernel. An exchange goes over all columns a few times on either
side; in NumPy the same takes a dozen passes and as many arrays.

All vectors are float32 (column_count,).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpisgd.compiled_loops import Float, _kernel


class TurnSize(NamedTuple):
    """How far a turn goes: along a weight with the curvature h, one of P turns min(all_rows, P of_moved) h + penalty.

    See `merging`; each is a step size times rows, of the moved ones times CURVED_BY_MOVED, of the penalty times lambda.
    """

    all_rows: float
    of_moved: float
    penalty: float


def subtract(mine: Float, shared: Float, scale: float, threshold: float, changes: Float) -> tuple[int, int]:
    """Write (mine - shared) scale to `changes`, 0 up to the threshold.

    Returns how many are above the threshold, and how many were not 0.

    Raises:
        ValueError: vectors of lengths that do not fit, with the compiled loops.

    """
    if _kernel is not None:
        sent, changed = _kernel.subtract(mine, shared, scale, threshold, changes)
        return int(sent), int(changed)
    np.subtract(mine, shared, out=changes)
    changes *= np.float32(scale)
    changed = int(np.count_nonzero(changes))
    changes[np.abs(changes) <= np.float32(threshold)] = 0
    return int(np.count_nonzero(changes)), changed


def merge(
    weights: Float, changes: Float, curvatures: Float, *, turn_size: TurnSize, turns: int, shrinking: float
) -> tuple[int, float]:
    """Change `weights` to w + g (d - s w), in place: changes d, s = `shrinking`, g the `damping` of each column.

    Returns how many columns have changes, and the sum of their gains.
    """
    if _kernel is not None:
        columns, sum_of_gains = _kernel.merge(weights, changes, curvatures, turn_size, turns, shrinking)
        return int(columns), float(sum_of_gains)
    gains = damping(curvatures, turn_size, turns)
    weights += gains * (changes - np.float32(shrinking) * weights)
    changed = changes != 0
    return int(np.count_nonzero(changed)), float(gains[changed].sum(dtype=np.float64))


def merge_turns(
    locals_: Float,
    weights: Float,
    part: slice,
    shrinkings: NDArray[np.float64],
    *,
    threshold: float,
    curvatures: Float,
    turn_size: TurnSize,
) -> tuple[int, int, int, float]:
    """Merge a part of the turns of all workers into `weights`, and let them have it.

    locals_     all workers' weights after their turns, (workers, column_count or more), but for the factors by which
                the penalty shrank them, 1 - `shrinkings`, (workers,). Left are the new weights and, added to them, what
                was held back: changes up to the threshold.

    Returns how many changes were sent, and how many there are with those held back; how many columns have changes that
    were sent, and the sum of their gains.

    Raises:
        ValueError: arrays of lengths that do not fit, with the compiled loops.

    """
    if _kernel is not None:
        sent, changed, columns, sum_of_gains = _kernel.merge_turns(
            locals_, weights, part.start, part.stop, shrinkings, threshold, curvatures, turn_size
        )
        return int(sent), int(changed), int(columns), float(sum_of_gains)
    mine, shared = locals_[:, part], weights[part]
    changes = np.empty_like(mine)
    counts = [
        subtract(local, shared, 1 - shrinking, threshold, into)
        for local, shrinking, into in zip(mine, shrinkings.tolist(), changes, strict=True)
    ]
    held_back = (mine - shared) * (1 - shrinkings).astype(np.float32)[:, np.newaxis]
    held_back[changes != 0] = 0
    columns, sum_of_gains = merge(
        shared,
        changes.sum(axis=0),
        curvatures[part],
        turn_size=turn_size,
        turns=len(locals_),
        shrinking=float(shrinkings.sum()),
    )
    mine[:] = held_back + shared
    return sum(sent for sent, _ in counts), sum(changed for _, changed in counts), columns, sum_of_gains


def damping(curvatures: Float, turn_size: TurnSize, turns: float) -> Float:
    """Return (1 + a) / (1 + turns a), a as far as a turn goes along each weight: see `merging`."""
    least = np.float32(1 / turns)
    with np.errstate(over="ignore"):
        curved = min(np.float32(turn_size.all_rows), np.float32(turns) * np.float32(turn_size.of_moved))
        a = curvatures * curved + np.float32(turn_size.penalty)
        gains: Float = least + (1 - least) / (1 + np.float32(turns) * a)
    return gains


def blend(average: Float, weights: Float, share: float, scale: float) -> None:
    """Move `average` towards scale w by this share of the way, in place."""
    if _kernel is not None:
        _kernel.blend(average, weights, share, scale)
        return
    average *= np.float32(1 - share)
    average += weights * np.float32(share * scale)
