"""The loops of the asynchronous exchange, from weights to messages and back: compiled, or NumPy's where they were not.

The compiled ones are in `_exchange.c`, a part of the kernel. So is what finds the columns that each turn exchanges.

Vectors are of shape (column_count,): weights float32, versions int64. A message has **places**: place p is the column
`columns[p]`, int32, or where `columns` is None p itself. Its content is float32 values, one for each place in order, or
an array of PAIR: places with their values.
"""

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpisgd import vector_loops
from mpisgd.compiled_loops import Float, Rows, _kernel
from mpisgd.vector_loops import TurnSize, damping

PAIR = np.dtype([("place", "<i4"), ("value", "<f4")])
FLOAT32 = np.dtype(np.float32)
MOST_LOST = 1e30  # by a weight to the penalty, as a share of what is left

Columns = NDArray[np.int32] | None
Content = NDArray[Any]  # float32, or PAIR


class TurnKeys(NamedTuple):
    """The keys of turn t of a pass: keys[ends[t] : ends[t + 1]], int32; ends are int64 (turns + 1,)."""

    keys: NDArray[np.int32]
    ends: NDArray[np.int64]
    turn_rows: int


def pack_turn(
    columns: Columns, vector: Float, base: Float, scale: float, threshold: float, room: NDArray[np.uint8]
) -> tuple[Content, int]:
    """Write a turn's changes, (vector - base) scale, to a message's room; those up to `threshold` are held back.

    As pairs or, where that takes fewer bytes, as values, 0 where they are held back. `base` is set to `vector` where
    they are not.

    columns  distinct and in range
    room     for the content, of at least 4 bytes for each place

    Returns the content, a view of the room, and how many changes there are with those held back.

    Raises:
        ValueError: vectors of lengths that do not fit, or no room for values of all places, with the compiled loops.

    """
    if _kernel is not None:
        pairs, changed = _kernel.pack_turn(columns, vector, base, scale, threshold, room)
        if pairs >= 0:
            return room[: PAIR.itemsize * pairs].view(PAIR), changed
        return room[: 4 * len(vector if columns is None else columns)].view(FLOAT32), changed
    mine, shared = (vector, base) if columns is None else (vector[columns], base[columns])
    changes = np.empty_like(mine)
    sent, changed = vector_loops.subtract(mine, shared, scale, threshold, changes)
    places = np.flatnonzero(changes)
    moved = places if columns is None else columns[places]
    base[moved] = vector[moved]
    content: Content
    if changes.nbytes < PAIR.itemsize * sent:
        content = room[: changes.nbytes].view(FLOAT32)
        content[:] = changes
    else:
        content = room[: PAIR.itemsize * sent].view(PAIR)
        content["place"], content["value"] = places, changes[places]
    return content, changed


def copy_at(vector: Float, columns: NDArray[np.int32], out: Float) -> None:
    """Write the vector at these columns, which must be in range, to `out`, float32 (columns,).

    Raises:
        ValueError: `out` is of another length, with the compiled loops.

    """
    if _kernel is not None:
        _kernel.copy_at(vector, columns, out)
    else:
        np.take(vector, columns, out=out, mode="clip")  # to raise, it would copy


def pick_since(changed_at: NDArray[np.int64], version: int, vector: Float, pairs: NDArray[np.void]) -> int | None:
    """Write the columns that changed after a version, with the vector there, to `pairs`; return how many there are.

    None if there is no room for all of them.
    """
    if _kernel is not None:
        count = int(_kernel.pick_since(changed_at, version, vector, pairs))
        return None if count < 0 else count
    found = np.flatnonzero(changed_at > version)
    if len(found) > len(pairs):
        return None
    pairs["place"][: len(found)], pairs["value"][: len(found)] = found, vector[found]
    return len(found)


def add_update(
    vector: Float,
    changed_at: NDArray[np.int64],
    times_changed: Float,
    curvatures: Float,
    columns: Columns,
    content: Content,
    *,
    version: int,
    factor: float,
    turns: float,
    turn_size: TurnSize,
    decay: float,
) -> tuple[int, float]:
    """Add a worker's changes to the server's vector by the rule of `weights.ServerWeights`.

    Returns how many are not 0, and the sum of their gains.

    Each column changed gets the version and counts one time more. With the gain g as in `vector_loops.damping`, r the
    share of all versions that changed the column, and the decay that the scale has got already, its entry v becomes
        v (1 + (1 - g) (1 / decay - 1 + (1 / r - 1) (1 - decay))) + g d factor.

    Raises:
        ValueError: places out of range, or too few values, with the compiled loops.

    """
    if _kernel is not None:
        count, gains = _kernel.add_update(
            vector,
            changed_at,
            times_changed,
            curvatures,
            columns,
            content,
            version,
            factor,
            turns,
            turn_size,
            decay,
        )
        return int(count), float(gains)
    changed, changes = _named(columns, content)
    changed, changes = changed[changes != 0], changes[changes != 0]
    changed_at[changed] = version
    times_changed[changed] += 1
    gain = damping(curvatures[changed], turn_size, turns)
    every = np.float32(version) / times_changed[changed]
    lost, shrinking = np.float32(min(1 / decay - 1, MOST_LOST)), np.float32(1 - decay)
    vector[changed] *= 1 + (1 - gain) * (lost + (every - 1) * shrinking)
    vector[changed] += gain * changes * np.float32(factor)
    return len(changed), float(gain.sum(dtype=np.float64))


def take_in(columns: Columns, content: Content, base: Float, local: Float) -> None:
    """Set `base` to the values, and `local` to them plus what it was ahead of the base, at the content's places.

    Raises:
        ValueError: places out of range, or too few values, with the compiled loops.

    """
    if _kernel is not None:
        _kernel.take_in(columns, content, base, local)
        return
    where, values = _named(columns, content)
    ahead = local[where] - base[where]
    base[where] = values
    local[where] = values + ahead


def turn_keys(rows: Rows, column_count: int, turn_rows: int) -> TurnKeys:
    """Return the columns of the rows of each turn, in order."""
    pointers, columns, *_ = rows
    starts = pointers[np.r_[: len(pointers) - 1 : turn_rows, len(pointers) - 1]]
    ends = np.zeros(len(starts), np.int64)
    if _kernel is not None:
        keys = np.empty(int(starts[-1] - starts[0]), np.int32)
        _kernel.turn_keys(rows, turn_rows, np.zeros(-(-column_count // 8) * 8, np.uint8), keys, ends)
    else:
        of_turns = [np.unique(columns[start:stop]).astype(np.int32) for start, stop in pairwise(starts)]
        keys = np.concatenate(of_turns)
        np.cumsum([len(some) for some in of_turns], out=ends[1:])
    return TurnKeys(keys, ends, turn_rows)


def _named(columns: Columns, content: Content) -> tuple[NDArray[Any], Float]:
    """Return the columns of a content and their values."""
    if content.dtype == PAIR:
        places: NDArray[Any] = content["place"]
        return (places if columns is None else columns[places]), content["value"]
    return (np.arange(len(content)) if columns is None else columns), content
