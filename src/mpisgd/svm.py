"""The arithmetic of learning: losses, the penalty, one mini-batch step, objective and accuracy.

The objective over n rows (x_i, y_i), y_i = +1 or -1, is
    F(w) = lambda/2 ||w||^2 + 1/n sum_i l(y_i x_i.w).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpisgd import compiled_loops
from mpisgd.compiled_loops import Float
from mpisgd.config import LossName
from mpisgd.sparse_rows import SparseRows

# The bias column is in every row, so the sum over a mini-batch moves it rows times as far as a rare column.
# Bottou's svmsgd and scikit-learn slow it down by the same factor for sparse rows.
BIAS_STEP = 0.01


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss l(m) of the margin m = y x.w, and its slope -l'(m); both map float32 (rows,) to float32 (rows,).

    `curvature` is the most that l'' can be, which bounds the step size of one row to 2 / (curvature ||x||^2); the
    hinge has none, and the unit stands in for it. `number` is the kernel's.
    """

    value: Callable[[Float], Float]
    slope: Callable[[Float], Float]
    curvature: float
    number: int


LOSSES: dict[LossName, Loss] = {
    # l = max(0, 1 - m)
    "hinge": Loss(
        value=lambda m: np.maximum(0, 1 - m),
        slope=lambda m: (m < 1).astype(np.float32),
        curvature=1.0,
        number=0,
    ),
    # l = max(0, 1 - m)^2
    "squared_hinge": Loss(
        value=lambda m: np.square(np.maximum(0, 1 - m)),
        slope=lambda m: 2 * np.maximum(0, 1 - m),
        curvature=2.0,
        number=1,
    ),
    # l = log(1 + e^-m); its slope 1 / (1 + e^m) written with tanh does not overflow
    "logistic": Loss(
        value=lambda m: np.logaddexp(0, -m),
        slope=lambda m: np.float32(0.5) * (1 - np.tanh(m / 2)),
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


@dataclass(frozen=True, slots=True)
class Objective:
    """What is minimised, and which column is the bias."""

    loss: Loss
    regularization: float
    has_bias: bool

    def minibatch_steps(
        self,
        weights: ScaledVector,
        rows: SparseRows,
        labels: Float,
        start: int,
        stop: int,
        batch_size: int,
        step_size: float,
        *,
        smallest_scale: float = 0.0,
    ) -> int:
        """Take one step after the other over the rows start:stop, `batch_size` at a time, as long as they last.

        Changes the weights in place and returns the row after the last one taken: `stop`, or less after a step that
        brought the scale below `smallest_scale`.
        """
        if compiled_loops.is_compiled():
            reached, weights.scale = compiled_loops.minibatch_steps(
                rows.row_pointers, rows.columns, rows.values, labels, start, stop, batch_size,
                weights.vector, weights.scale, smallest_scale=smallest_scale, step_size=step_size,
                regularization=self.regularization, loss=self.loss.number, bias_step=BIAS_STEP, has_bias=self.has_bias,
            )  # fmt: skip
            return reached
        while start < stop and weights.scale >= smallest_scale:
            end = min(start + batch_size, stop)
            self.minibatch_step(weights, rows, labels, start, end, step_size)
            start = end
        return start

    def minibatch_step(
        self, weights: ScaledVector, rows: SparseRows, labels: Float, start: int, stop: int, step_size: float
    ) -> None:
        """Step along the gradients of the rows start:stop, all taken at the same weights and added up.

        With B = stop - start rows and step size eta:
            w <- a w + eta sum_i -l'(y_i x_i.w) y_i x_i,   a = 1 / (1 + eta lambda B),
        the penalty as an implicit (proximal) step, which stays positive for any eta (Duchi and Singer 2009,
        FOBOS, section 5); B steps on one row each do the same to first order. Only `scale` carries a.
        The bias takes the same step with BIAS_STEP eta in the place of eta.

        The kernel does the same in C; this is its readable twin, and what runs where there is none.
        """
        batch_labels = labels[start:stop]
        margins = rows.margins(weights.vector, start, stop)
        margins *= batch_labels
        margins *= np.float32(weights.scale)
        shrinking = step_size * self.regularization * (stop - start)
        weights.scale /= 1.0 + shrinking
        coefficients = self.loss.slope(margins)
        coefficients *= batch_labels
        coefficients *= np.float32(step_size / weights.scale)
        bias = weights.vector[-1]
        rows.add_weighted_sum(coefficients, start, weights.vector)
        if self.has_bias:
            shrunk = bias * ((1.0 + shrinking) / (1.0 + BIAS_STEP * shrinking))  # as the scale has shrunk it already
            weights.vector[-1] = shrunk + BIAS_STEP * (weights.vector[-1] - bias)

    def penalty(self, weights: ScaledVector) -> float:
        """Return lambda/2 ||w||^2."""
        squared_norm = float(np.dot(weights.vector, weights.vector)) * weights.scale**2
        return 0.5 * self.regularization * squared_norm

    def losses(self, margins: Float, labels: Float) -> NDArray[np.float64]:
        """Return l(y x.w) of each row, float64 (rows,), from its margin x.w and its label."""
        return self.loss.value(margins * labels).astype(np.float64)


def predicted_labels(margins: Float) -> Float:
    """Return +1 where the margin is positive, else -1, float32 (rows,)."""
    return np.where(margins > 0, np.float32(1), np.float32(-1))
