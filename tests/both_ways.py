"""Compiled loops and those of NumPy and SciPy, held to the same, or to each other."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import strategies as st

from mpisgd import compiled_loops, exchange_loops, vector_loops
from strategies import ordinary, vectors

Loops = Callable[[], AbstractContextManager[object]]


def without_kernel() -> AbstractContextManager[object]:
    """Let the loops over rows be SciPy's."""
    return mock.patch.object(compiled_loops, "_kernel", None)


either_way = pytest.mark.parametrize("loops", [nullcontext, without_kernel], ids=["kernel", "without"])

COLUMNS = 7
vector = vectors(COLUMNS, ordinary)
changed = vectors(COLUMNS, st.just(0.0) | ordinary)
CURVATURES = np.array([0, 1e-4, 0.01, 1, 7, 1e38, np.inf], np.float32)


def assert_same_both_ways(call: Callable[..., Any], *arrays: Any, rtol: float = 0.0) -> None:
    """Call it compiled and not, each with arrays of its own; what it returns and what it leaves must be the same."""
    found: list[list[Any]] = []
    for loops in (vector_loops._kernel, None):
        copies = [array.copy() if isinstance(array, np.ndarray) else array for array in arrays]
        with (
            mock.patch.object(vector_loops, "_kernel", loops),
            mock.patch.object(exchange_loops, "_kernel", loops),
        ):
            returned = call(*copies)
        found.append([*(returned if isinstance(returned, tuple) else (returned,)), *copies])
    for compiled, plain in zip(*found, strict=True):
        assert (compiled is None) == (plain is None)
        if compiled is not None:
            np.testing.assert_allclose(compiled, plain, rtol=rtol, atol=1e-7 if rtol else 0)
