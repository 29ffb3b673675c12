"""Measuring weights on held-out rows in small steps, in between which the server serves; scores of predictions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpisgd.compiled_loops import Float
from mpisgd.shard import Shard
from mpisgd.svm import Judged, Objective, ScaledVector

# Rows measured between two looks at the mail: about half a millisecond of text rows.
STEP_ROWS = 4_096


@dataclass(frozen=True, slots=True)
class Measurement:
    """Share of rows predicted right, and the objective: penalty plus mean loss on these rows."""

    accuracy: float
    objective: float

    @classmethod
    def of(cls, judged: Judged, rows: int, penalty: float) -> Measurement:
        """Return what so many rows, by which the weights were judged, and their penalty make."""
        return cls(judged.right / rows, penalty + judged.losses / rows)


def measure_in_steps(weights: ScaledVector, held_out: Shard, objective: Objective) -> Iterator[Measurement | None]:
    """Measure the weights on preprocessed rows, one step each time it is asked; the last yields the result.

    `weights` must not change meanwhile: pass a copy.
    """
    right, losses = 0, 0.0
    with np.errstate(all="ignore"):  # weights that diverged are reported as such, by their objective
        for start in range(0, len(held_out.rows), STEP_ROWS):
            stop = min(start + STEP_ROWS, len(held_out.rows))
            judged = objective.judge(weights, held_out.rows, held_out.labels, start, stop)
            right, losses = right + judged.right, losses + judged.losses
            yield None
        yield Measurement.of(Judged(right, losses), len(held_out.rows), objective.penalty(weights))


@dataclass(frozen=True, slots=True)
class Scores:
    """How predictions compare with labels; "positive" is the class of label +1."""

    rows: int
    accuracy: float
    precision: float
    recall: float
    f1: float
    auc: float
    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int


def score(margins: Float, labels: Float) -> Scores:
    """Score margins against labels +1 or -1, both float32 (rows,); a ratio with nothing under it is 0."""
    predicted, positive = margins > 0, labels > 0
    tp, fp = int(np.sum(predicted & positive)), int(np.sum(predicted & ~positive))
    tn, fn = int(np.sum(~predicted & ~positive)), int(np.sum(~predicted & positive))
    precision, recall = _ratio(tp, tp + fp), _ratio(tp, tp + fn)
    return Scores(
        rows=len(labels),
        accuracy=_ratio(tp + tn, len(labels)),
        precision=precision,
        recall=recall,
        f1=_ratio(2 * precision * recall, precision + recall),
        auc=_auc(margins, positive),
        true_positives=tp,
        false_positives=fp,
        true_negatives=tn,
        false_negatives=fn,
    )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _auc(margins: Float, positive: NDArray[np.bool_]) -> float:
    """Return the share of (positive, negative) pairs ranked right, ties half: Mann and Whitney's U."""
    _, place, counts = np.unique(margins, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    positives = int(positive.sum())
    pairs = positives * (len(positive) - positives)
    return _ratio(float(ranks[positive].sum()) - positives * (positives + 1) / 2, pairs)
