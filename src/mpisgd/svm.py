"""The arithmetic of learning: losses, the penalty, one mini-batch step, objective and accuracy.

The objective over n rows (x_i, y_i), y_i = +1 or -1, is
    F(w) = lambda/2 ||w||^2 + 1/n sum_i l(y_i x_i.w).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpisgd import compiled_loops
from mpisgd.compiled_loops import Float
from mpisgd.config import LossName
from mpisgd.sparse_rows import SparseRows


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss l(m) of the margin m = y x.w, float32 (rows,) to float32 (rows,), and the step that it asks of a row.

    `bounded_step` maps margins m and sizes s = eta ||x||^2 to t / eta, where the row moves w by t y x. A plain gradient
    step is t = -eta l'(m), and is what is left where s is small. It may pass the point where the row's own loss is
    least, and with long rows or a large eta does so without end. So t is that of the proximal point step,
        argmin_v  eta l(y x.v) + 1/2 ||v - w||^2,
    which no eta makes diverge (Crammer et al. 2006, PA-I, for the hinge; Toulis and Airoldi 2017; Asi and Duchi 2019).
    The rows of a batch step together: slopes that end bound what they add up to, and for the squared hinge, whose slope
    has no end, t is that of as many equal rows as have a step.

    `curvature` is the most that l'' can be; the hinge has none, and the unit stands in for it. `number` is the kernel's
    name of the loss.
    """

    value: Callable[[Float], Float]
    bounded_step: Callable[[Float, Float], Float]
    curvature: float
    number: int


def _hinge_step(m: Float, s: Float) -> Float:
    room = np.maximum(0, 1 - m)
    share = np.divide(room, s, out=np.ones_like(room), where=room < s)
    share[room == 0] = 0
    return share


LOSSES: dict[LossName, Loss] = {
    # l = max(0, 1 - m); t = min(eta, (1 - m) / ||x||^2)
    "hinge": Loss(
        value=lambda m: np.maximum(0, 1 - m),
        bounded_step=_hinge_step,
        curvature=1.0,
        number=0,
    ),
    # l = max(0, 1 - m)^2; t = eta (1 - m) / (1/2 + k s), k rows of the batch having m < 1
    "squared_hinge": Loss(
        value=lambda m: np.square(np.maximum(0, 1 - m)),
        bounded_step=lambda m, s: np.maximum(0, 1 - m) / (np.float32(0.5) + s * np.float32(np.count_nonzero(m < 1))),
        curvature=2.0,
        number=1,
    ),
    # l = log(1 + e^-m); -l' = 1 / (1 + e^m), written with tanh so as not to overflow. The proximal point has no
    # formula: one Newton step towards it with the largest curvature, 1/4, stays short of it.
    "logistic": Loss(
        value=lambda m: np.logaddexp(0, -m),
        bounded_step=lambda m, s: (1 - np.tanh(m / 2)) / (2 + np.float32(0.5) * s),
        curvature=0.25,
        number=2,
    ),
}


@dataclass(slots=True)
class ScaledVector:
    """Weights w = scale * vector: multiplying all of w costs one multiplication.

    vector  float32 (column_count,)
    scale   float64
    """

    vector: Float
    scale: float = 1.0

    def weights(self) -> Float:
        """Return w itself, a copy, float32 (column_count,)."""
        return self.vector * np.float32(self.scale)


class Taken(NamedTuple):
    """What became of some steps: the row after the last one taken, and how many rows took a step (`moved`)."""

    reached: int
    moved: int


class Judged(NamedTuple):
    """How weights do on some rows: how many they predict the right label of, and the sum of the losses."""

    right: int
    losses: float


NOTHING_JUDGED = Judged(0, 0.0)


@dataclass(frozen=True, slots=True)
class Objective:
    """What is minimised, and how the bias learns: with a step size of bias_step eta in the place of eta."""

    loss: Loss
    regularization: float
    has_bias: bool
    bias_step: float

    def minibatch_steps(
        self,
        weights: ScaledVector,
        rows: SparseRows,
        labels: Float,
        squared_norms: Float,
        start: int,
        stop: int,
        batch_size: int,
        step_size: float,
        *,
        smallest_scale: float = 0.0,
    ) -> Taken:
        """Take one step after the other over the rows start:stop, `batch_size` at a time, as long as they last.

        Changes the weights in place. The row reached is `stop`, or less after a step that brought the scale below
        `smallest_scale`. `squared_norms` are ||x_i||^2 of all rows, float32 (rows,).
        """
        if compiled_loops.is_compiled():
            reached, weights.scale, moved = compiled_loops.minibatch_steps(
                rows.row_pointers, rows.columns, rows.values, labels, squared_norms, start, stop, batch_size,
                weights.vector, weights.scale, smallest_scale=smallest_scale, step_size=step_size,
                regularization=self.regularization, loss=self.loss.number, bias_step=self.bias_step,
                has_bias=self.has_bias,
            )  # fmt: skip
            return Taken(reached, moved)
        moved = 0
        while start < stop and weights.scale >= smallest_scale:
            end = min(start + batch_size, stop)
            moved += self.minibatch_step(weights, rows, labels, squared_norms, start, end, step_size)
            start = end
        return Taken(start, moved)

    def minibatch_step(
        self,
        weights: ScaledVector,
        rows: SparseRows,
        labels: Float,
        squared_norms: Float,
        start: int,
        stop: int,
        step_size: float,
    ) -> int:
        """Step along the gradients of the rows start:stop, all taken at the same weights and added up.

        Returns how many rows took a step.

        With B = stop - start rows and step size eta:
            w <- a w + sum_i t_i y_i x_i,   a = 1 / (1 + eta lambda B),
        t_i as `Loss` says; the penalty as an implicit (proximal) step as well, which stays positive for any eta (Duchi
        and Singer 2009, FOBOS, section 5); B steps on one row each do the same to first order. Only `scale` carries a.
        The bias takes the same step with bias_step eta in the place of eta, penalty and all; and so its part of a row's
        ||x_i||^2 is bias_step.

        The kernel does the same in C; this is its readable twin, and what runs where there is none.
        """
        batch_labels = labels[start:stop]
        margins = rows.margins(weights.vector, start, stop)
        margins *= batch_labels
        margins *= np.float32(weights.scale)
        shrinking = step_size * self.regularization * (stop - start)
        weights.scale /= 1.0 + shrinking
        norms = squared_norms[start:stop] + np.float32(self.bias_step - 1 if self.has_bias else 0)
        coefficients = self.loss.bounded_step(margins, np.float32(step_size) * norms)
        moved = int(np.count_nonzero(coefficients))
        coefficients *= batch_labels
        coefficients *= np.float32(step_size / weights.scale)
        bias = weights.vector[-1] if self.has_bias else np.float32(0)
        rows.add_weighted_sum(coefficients, start, weights.vector)
        if self.has_bias:
            # as the scale has shrunk it already
            shrunk = bias * ((1.0 + shrinking) / (1.0 + self.bias_step * shrinking))
            weights.vector[-1] = shrunk + self.bias_step * (weights.vector[-1] - bias)
        return moved

    def penalty(self, weights: ScaledVector) -> float:
        """Return lambda/2 ||w||^2."""
        squared_norm = float(np.dot(weights.vector, weights.vector)) * weights.scale**2
        return 0.5 * self.regularization * squared_norm

    def judge(self, weights: ScaledVector, rows: SparseRows, labels: Float, start: int, stop: int) -> Judged:
        """Judge the weights by the rows start:stop; `labels` are those of all rows, +1 or -1, float32 (rows,).

        The kernel does the same in C; what follows is its readable twin, and what runs where there is none.
        """
        labels = labels[start:stop]
        if compiled_loops.is_compiled():
            return Judged(*compiled_loops.judge(
                rows.row_pointers[start : stop + 1], rows.columns, rows.values, labels, weights.vector, weights.scale,
                loss=self.loss.number,
            ))  # fmt: skip
        margins = rows.margins(weights.vector, start, stop) * np.float32(weights.scale)
        right = np.count_nonzero(predicted_labels(margins) == labels)
        return Judged(int(right), float(self.losses(margins, labels).sum()))

    def losses(self, margins: Float, labels: Float) -> NDArray[np.float64]:
        """Return l(y x.w) of each row, float64 (rows,), from its margin x.w and its label."""
        return self.loss.value(margins * labels).astype(np.float64)


def predicted_labels(margins: Float) -> Float:
    """Return +1 where the margin is positive, else -1, float32 (rows,)."""
    return np.where(margins > 0, np.float32(1), np.float32(-1))
