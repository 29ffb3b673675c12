"""The slow twin: the program's arithmetic once more, in dense float64 and one row at a time.

Written from the formulas, not from the code: no scale kept beside the vector, no sparse loops, no messages.
Tests compare the program with it. Nothing here is fast; keep the data small.

The rows that come in are those a worker holds: preprocessed (with the column of ones where there is a bias)
and in the order it holds them. What stops a twin is `config.passes` alone, so leave the other rules unset.

Two things the twin cannot share with float32: a change that cancels to nothing there, and one that is the
threshold to the last digit. Values drawn from a continuous distribution meet neither.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mpisgd.config import Config
from mpisgd.sparse_rows import SparseRows

Vector = NDArray[np.float64]


def dense(rows: SparseRows) -> Vector:
    """Return the rows as a dense float64 matrix (rows, column_count); repeated columns add up."""
    matrix = np.zeros((len(rows), rows.column_count))
    for i in range(len(rows)):
        for place in range(rows.row_pointers[i], rows.row_pointers[i + 1]):
            matrix[i, rows.columns[place]] += rows.values[place]
    return matrix


# --- one row, one step


def loss_value(name: str, m: float) -> float:
    """Return l(m), the loss of a margin m = y x.w."""
    if name == "hinge":
        return max(0.0, 1 - m)
    if name == "squared_hinge":
        return max(0.0, 1 - m) ** 2
    return math.log1p(math.exp(-m)) if m > 0 else -m + math.log1p(math.exp(m))


def loss_slope(name: str, m: float) -> float:
    """Return -l'(m); the hinge has no slope at its kink m = 1: there it is 0, as beyond it."""
    if name == "hinge":
        return 1.0 if m < 1 else 0.0
    if name == "squared_hinge":
        return 2 * max(0.0, 1 - m)
    return 1 / (1 + math.exp(m)) if m < 0 else math.exp(-m) / (1 + math.exp(-m))


def row_step(name: str, m: float, eta: float, squared_norm: float, moving: int) -> float:
    """Return t, by which a row moves w along y x: eta times the slope, less where that would go past its own optimum.

    The hinge ends at its kink. The others divide by 1 + eta C ||x||^2, with C the most that the loss can be curved; the
    squared hinge, `moving` rows of the batch having a step, by that of so many equal rows.
    """
    if name == "hinge":
        return min(eta, (1 - m) / squared_norm) if m < 1 and squared_norm > 0 else eta * loss_slope(name, m)
    curvature = 2 * moving if name == "squared_hinge" else 0.25
    return eta * loss_slope(name, m) / (1 + eta * curvature * squared_norm)


def penalty_decay(config: Config, eta: float, batch_rows: int) -> float:
    """Return a = 1 / (1 + eta lambda B), by which the penalty shrinks all weights in a step of B rows."""
    assert config.regularization is not None
    return 1 / (1 + eta * config.regularization * batch_rows)


def margins_of(w: Vector, rows: Vector, labels: Vector) -> list[float]:
    """Return y x.w of each row."""
    return [y * float(x @ w) for x, y in zip(rows, labels, strict=True)]


def moved_in(loss: str, margins: Iterable[float]) -> int:
    """Return how many rows of these margins take a step: those whose loss has a slope there."""
    return sum(loss_slope(loss, m) != 0 for m in margins)


def row_steps(config: Config, w: Vector, rows: Vector, labels: Vector, eta: float, bias_step: float) -> Vector:
    """Return sum_i t_i y_i x_i, every x_i.w at the same w; a bias counts in ||x||^2 by its share of the steps."""
    steps = np.zeros_like(w)
    margins = margins_of(w, rows, labels)
    moving = sum(1 for m in margins if m < 1)
    for x, y, m in zip(rows, labels, margins, strict=True):
        squared_norm = float(x @ x) + (bias_step - 1 if config.bias else 0.0)
        steps += row_step(config.loss, m, eta, squared_norm, moving) * y * x
    return steps


def shares(config: Config, weights: int, bias_step: float) -> Vector:
    """Return the share of the step size that every weight learns with: 1, and of the bias (the last) its own."""
    share = np.ones(weights)
    if config.bias:
        share[-1] = bias_step
    return share


def step(config: Config, w: Vector, rows: Vector, labels: Vector, eta: float, bias_step: float) -> Vector:
    """Return the weights after one mini-batch step on all of these rows.

    w_j <- a_j w_j + s_j sum_i t_i y_i x_ij,   a_j = 1 / (1 + s_j eta lambda B), s_j = 1, of the bias its own share
    """
    share = shares(config, len(w), bias_step)
    decays = np.array([penalty_decay(config, eta * share_j, len(rows)) for share_j in share])
    return decays * w + share * row_steps(config, w, rows, labels, eta, bias_step)


def step_size(config: Config, learning_rate: float, passes: float) -> float:
    """Return eta after `passes` passes: eta_0, eta_0 / (1 + d p) or eta_0 / sqrt(1 + d p)."""
    assert config.learning_rate_decay is not None
    slowdown = 1 + config.learning_rate_decay * passes
    power = {"constant": 0.0, "inverse": 1.0, "inverse_sqrt": 0.5}[config.learning_rate_schedule]
    return learning_rate / slowdown**power


# --- where learning begins, and the average that is measured and saved

SAMPLE_ROWS = 2000


def beginning(
    config: Config, rows_by_worker: Sequence[SparseRows], labels_by_worker: Sequence[NDArray[np.float32]]
) -> Vector:
    """Return zeros and, as the bias where there is one, the mean label of the workers' first rows."""
    w = np.zeros(rows_by_worker[0].column_count)
    if config.bias:
        labels = [float(y) for shard in labels_by_worker for y in shard[:SAMPLE_ROWS]]
        w[-1] = sum(labels) / len(labels)
    return w


@dataclass
class TwinAverage:
    """The weights taken in after n rows, d of them since the last time, move the average by 4 d / (n + 3 d) of the way;
    at most 80 times a pass, and not before the rows done have doubled."""

    config: Config
    learning_rows: int
    average: Vector | None = None
    averaged_rows: int = 0

    def look(self, w: Vector, rows_done: int) -> None:
        since = rows_done - self.averaged_rows
        if since < min(max(self.averaged_rows, 1), self.learning_rows / 80) or not self.config.averaging:
            return
        before = np.zeros_like(w) if self.average is None else self.average
        self.average = before + 4 * since / (rows_done + 3 * since) * (w - before)
        self.averaged_rows = rows_done

    def final(self, w: Vector) -> Vector:
        return w if self.average is None else self.average


# --- a worker and its turns


@dataclass
class TwinWorker:
    """A worker with its shard, and its place in it."""

    config: Config
    rows: Vector
    labels: Vector
    bias_step: float
    ends_with_shard: bool = False  # whether a turn does
    next_row: int = field(default=0)

    def turn(self, known: Vector, unsent: Vector, eta: float) -> tuple[float, Vector, int, int]:
        """Take `iterations` steps from known + unsent; return the turn's decay A, its changes d, rows and rows moved.

        A step takes v = A known + d to w' (see `step`). The penalty's decay a of it is counted in A, so A <- a A
        and d <- a d + (w' - a v): d is 0 to the last bit where no row of the turn has an element, and the
        merging can count who changed what. The bias shrinks by less than a: what is over is a change of it.
        Batches are contiguous; the one that reaches the shard's end stops there, and the next begins anew.
        """
        turn_decay, changes, turn_rows, turn_moved = 1.0, unsent, 0, 0
        assert self.config.iterations is not None
        for _ in range(self.config.iterations):
            start, stop = self.next_row, min(self.next_row + self.config.batch_size, len(self.rows))
            w = turn_decay * known + changes
            batch, labels = self.rows[start:stop], self.labels[start:stop]
            share = shares(self.config, len(w), self.bias_step)
            decay = penalty_decay(self.config, eta, stop - start)
            own_decays = np.array([penalty_decay(self.config, eta * share_j, stop - start) for share_j in share])
            moved = share * row_steps(self.config, w, batch, labels, eta, self.bias_step)
            changes = decay * changes + (own_decays - decay) * w + moved
            turn_decay *= decay
            turn_rows += stop - start
            turn_moved += moved_in(self.config.loss, margins_of(w, batch, labels))
            self.next_row = 0 if stop == len(self.rows) else stop
            if self.next_row == 0 and self.ends_with_shard:
                break
        return turn_decay, changes, turn_rows, turn_moved


def _workers(
    config: Config,
    rows_by_worker: Sequence[SparseRows],
    labels_by_worker: Sequence[NDArray[np.float32]],
    bias_step: float,
) -> list[TwinWorker]:
    pairs = zip(rows_by_worker, labels_by_worker, strict=True)
    return [TwinWorker(config, dense(rows), labels.astype(np.float64), bias_step) for rows, labels in pairs]


def split_by_threshold(changes: Vector, threshold: float) -> tuple[Vector, Vector]:
    """Return what is sent of the changes (those above the threshold) and what is withheld; no threshold: all."""
    sent = changes.copy()
    if threshold > 0:
        sent[np.abs(changes) <= threshold] = 0
    return sent, changes - sent


# --- async with one worker is the serial program


def twin_run(
    rows_by_worker: Sequence[SparseRows],
    labels_by_worker: Sequence[NDArray[np.float32]],
    config: Config,
    learning_rows: int,
    bias_step: float,
    *,
    by_keys: bool,
) -> Vector:
    """Return the server's final weights, float64 (column_count,), of an async run with one worker.

    The worker's weights go through its turns as if it were alone, which it is. The server's w hears of each,
    with d what the turn of decay A changed, what was withheld before included:
        w <- A w + the d_j above the threshold
    The server says STOP in the reply to the update that completes the passes, and adds nothing after it: what
    the worker learns until it hears STOP is lost, and so is what the threshold still holds back. A turn exchanged by
    keys ends with the shard; all it changes, and so all that can be above the threshold now, is at its keys.
    """
    assert config.mode == "async"
    assert config.passes is not None
    (worker,) = _workers(config, rows_by_worker, labels_by_worker, bias_step)
    assert config.learning_rate is not None
    worker.ends_with_shard = by_keys
    server = beginning(config, rows_by_worker, labels_by_worker)
    average = TwinAverage(config, learning_rows)
    withheld = np.zeros_like(server)
    rows_done = 0
    while rows_done / learning_rows < config.passes:
        eta = step_size(config, config.learning_rate, rows_done / learning_rows)
        decay, changes, rows, _ = worker.turn(server, withheld, eta)
        sent, withheld = split_by_threshold(changes, config.gradient_threshold)
        server = decay * server + sent
        rows_done += rows
        average.look(server, rows_done)
    return average.final(server)


# --- sync with any number of workers


def curvatures(config: Config, rows_by_worker: Sequence[SparseRows], bias_step: float) -> list[float]:
    """Return C times the mean of x_ij^2 over the workers' first rows; of a bias a share of that."""
    largest = {"hinge": 1.0, "squared_hinge": 2.0, "logistic": 0.25}[config.loss]
    rows = np.concatenate([dense(shard)[:SAMPLE_ROWS] for shard in rows_by_worker])
    found = [largest * sum(float(x) ** 2 for x in column) / len(rows) for column in rows.T]
    return [*found[:-1], largest * bias_step] if config.bias else found


def lengths(config: Config, eta: float, rows: float, moved: float, curved: Sequence[float], turns: int) -> list[float]:
    """Return A_j, how far each of P turns goes along each weight: with m' the fewer of its rows and 2 P times those
    moved, A_j = eta (m' x the curvature along weight j + rows x lambda).
    """
    assert config.regularization is not None
    return [eta * (min(rows, 2 * turns * moved) * h + rows * config.regularization) for h in curved]


def merged(
    rule: str, shared: Vector, decays: Sequence[float], changes: Sequence[Vector], lengths: Sequence[float]
) -> Vector:
    """Return the common weights after a round of P turns, which go A_j, the `lengths`, along each weight.

    With S = sum_k 1 - a_k and D = sum_k d_k:
        w_j <- w_j + g_j (D_j - S w_j),     g_j = 1/P (mean), 1 (sum), (1 + A_j) / (1 + P A_j) (damped).
    """
    shrinking, turns = sum(1 - decay for decay in decays), len(changes)
    w = np.empty_like(shared)
    for j in range(len(shared)):
        a = lengths[j]
        gain = {"mean": 1 / turns, "sum": 1.0, "damped": (1 + a) / (1 + turns * a)}[rule]
        w[j] = shared[j] + gain * (sum(d[j] for d in changes) - shrinking * shared[j])
    return w


def twin_sync(
    rows_by_worker: Sequence[SparseRows],
    labels_by_worker: Sequence[NDArray[np.float32]],
    config: Config,
    learning_rows: int,
    bias_step: float,
) -> Vector:
    """Return the final weights, float64 (column_count,), of a sync run with a worker for each shard.

    Each round every worker k starts from the common w plus what it has withheld and takes a turn to
    a_k w + d_k; it sends a_k and the entries of d_k above the threshold; the rest it withholds, undiminished.
    The step size of a round is that of the rows all workers have processed before it. The run ends with the round that
    completes the passes.
    """
    assert config.mode == "sync"
    assert config.passes is not None
    assert config.learning_rate is not None
    workers = _workers(config, rows_by_worker, labels_by_worker, bias_step)
    shared = beginning(config, rows_by_worker, labels_by_worker)
    average = TwinAverage(config, learning_rows)
    withheld = [np.zeros_like(shared) for _ in workers]
    curved = curvatures(config, rows_by_worker, bias_step)
    rows_done = 0
    while rows_done / learning_rows < config.passes:
        eta = step_size(config, config.learning_rate, rows_done / learning_rows)
        decays, changes, rows_before, moved_rows = [], [], rows_done, 0
        for k, worker in enumerate(workers):
            decay, changed, rows, moved = worker.turn(shared, withheld[k], eta)
            sent, withheld[k] = split_by_threshold(changed, config.gradient_threshold)
            decays.append(decay)
            changes.append(sent)
            rows_done += rows
            moved_rows += moved
        of_turn = (rows_done - rows_before) / len(workers), moved_rows / len(workers)
        shared = merged(config.merge, shared, decays, changes, lengths(config, eta, *of_turn, curved, len(workers)))
        average.look(shared, rows_done)
    return average.final(shared)
