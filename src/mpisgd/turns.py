"""How long a turn is, and what it exchanges, where the user leaves it open.

Few rows learn better: what many workers change together from the same weights overshoots or must be damped. Many cost
less: an exchange of all columns goes through them several times on either end, one of a turn's own columns, its keys,
costs little more than a message. So a turn is as short as learning gains by, but long enough to take as long as its
exchange, unless learning would suffer. In lock step, where all wait for all, it is the geometric mean of the two: if an
exchange takes as long as E rows, and turns of m rows want 1 + m/L times the passes, the time (1 + E/m) (1 + m/L) is
least at m^2 = E L.
"""

from __future__ import annotations

import math

from mpisgd.config import Config

# Exchanges of each worker in a pass: so many of two workers, and so many more for each beyond. On 35 times RCV1's rows
# two workers in lock step come near the objective after 2.3 passes with 4, after 1.9 with 8, after 1.8 with 16, which
# take a fifth off the rows a second. Eight workers need 48. Sixteen are at an objective of 0.041 after three passes
# with 40, of 0.049 with the 18 that an exchange is worth.
EXCHANGES_OF_TWO, EXCHANGES_BY_WORKER = 8, 6
# So many there are in any case, but for a single batch, however little each is worth: with one exchange a pass 128
# workers learnt RCV1 in 50 passes, with seven in 14, with ten in 12, where one worker takes 9. Of wide rows an exchange
# in lock step takes longer than a pass. Asynchronously more workers are staler: 8 do with 12, 128 need 32.
FEWEST_EXCHANGES, FEWEST_WIDE = 10, 1
FEWEST_BY_KEYS, BY_KEYS_AND_WORKER = 12, 1 / 6
WIDE = 1_000_000  # columns
# Elements that a turn goes through in the time of an exchange: of all columns, for each of them; by keys, whatever the
# columns. Eight workers on two cores learn RCV1 two to four times as fast as with turns of a fifth of this.
ELEMENTS_BY_COLUMN = 4
ELEMENTS_BY_KEYS = 65_536
# Elements that a turn has for each column, at most, if its columns are exchanged by keys: of text, these are a third of
# all columns then.
MOST_BY_KEYS = 4
LONGEST_TURN = 98_304  # rows, some 8 ms of text: so long a worker does not look up
# The first turn of a run has so many elements for each column, and so many rows at least: as few as teach two workers
# on 35 times RCV1's rows to answer 0.927 right in one round. With 12 it takes 0.2 ms longer; later they are alike.
FIRST_BY_COLUMN = 8
FEWEST_FIRST = 1_024  # rows


def turn_rows(
    config: Config,
    feature_count: int,
    learning_rows: int,
    workers: int,
    row_length: float,
    worth_it: float | None = None,
) -> float:
    """Return the rows of a turn, a shard at most.

    row_length  the mean number of elements in a row
    worth_it    rows that a worker goes through in the time of an exchange, where that was measured
    """
    shard = learning_rows / workers
    for_learning = shard / (EXCHANGES_OF_TWO + EXCHANGES_BY_WORKER * max(0, workers - 2))
    by_keys = are_by_keys(config, for_learning, feature_count, row_length)
    if worth_it is None:
        elements = ELEMENTS_BY_KEYS if by_keys else ELEMENTS_BY_COLUMN * feature_count
        worth_it = elements / max(row_length, 1.0) if workers > 1 or by_keys else 0.0
    if config.mode == "sync":
        worth_it = math.sqrt(worth_it * for_learning)
    if by_keys:
        few = _longest_by_keys(feature_count, row_length) - config.batch_size  # and still few in whole batches
        longest = min(shard / (FEWEST_BY_KEYS + BY_KEYS_AND_WORKER * workers), few)
    else:
        longest = shard / (FEWEST_EXCHANGES if feature_count < WIDE else FEWEST_WIDE)
        if longest > config.batch_size:  # a turn is rounded up to whole batches, and no fewer are to be left for that
            longest -= longest % config.batch_size
    return min(max(for_learning, min(worth_it, longest)), LONGEST_TURN)


def first_turn_rows(feature_count: int, row_length: float) -> float:
    """Return the rows of a run's first turn, where turns exchange all columns.

    The next ones are as long as all before them, until they have their full length: what is learnt first is learnt
    fast, and alike by all workers, so it is worth more exchanges.
    """
    return max(FIRST_BY_COLUMN * feature_count / max(row_length, 1.0), FEWEST_FIRST)


def are_by_keys(config: Config, rows: float, feature_count: int, row_length: float) -> bool:
    """Tell whether turns of that many rows exchange keys: they have few of the columns, and the rows stay the same.

    With a threshold few of these change, and naming the ones that do takes fewer bytes.
    """
    few = rows < _longest_by_keys(feature_count, row_length)
    most_change = config.gradient_threshold == 0 or feature_count >= WIDE
    return few and most_change and config.mode == "async" and config.sharding == "partition"


def _longest_by_keys(feature_count: int, row_length: float) -> float:
    """Return how many rows have too many of the columns to exchange them by keys."""
    return MOST_BY_KEYS * feature_count / row_length if row_length else math.inf
