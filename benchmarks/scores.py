"""What linear weights are worth on rows: accuracy, and the objective lambda/2 ||w||^2 + mean hinge loss.

Weights are float64 (columns + 1,), the bias last; the bias is part of ||w||, as here and in LIBLINEAR.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

Weights = NDArray[np.float64]
Labels = NDArray[np.float32]


def with_bias(weights: Any, bias: Any) -> Weights:
    """Return weights and bias, of whatever shape a solver has them in, as one vector."""
    return np.append(np.asarray(weights, np.float64).ravel(), np.asarray(bias, np.float64).ravel())


def margins(weights: Weights, rows: csr_matrix) -> NDArray[np.float64]:
    """Return x.w + bias of every row."""
    return rows @ weights[:-1] + weights[-1]


def accuracy(weights: Weights, rows: csr_matrix, labels: Labels) -> float:
    """Return the share of rows whose margin has the label's sign."""
    return float(np.mean((margins(weights, rows) > 0) == (labels > 0)))


def objective(weights: Weights, rows: csr_matrix, labels: Labels, regularization: float) -> float:
    """Return the objective that a linear SVM minimises over these rows."""
    losses = np.maximum(0, 1 - labels * margins(weights, rows))
    return float(0.5 * regularization * (weights @ weights) + losses.mean())
