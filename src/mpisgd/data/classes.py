"""The two classes: found among the labels of a file, and every label told as -1 or +1."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from mpisgd.data.text_rows import TextBlock
from mpisgd.errors import DataError


def two_classes(spellings: dict[float, str], where: str) -> tuple[str, str]:
    """Return the two labels of a file, the smaller first, as they are spelled.

    Raises:
        DataError: there are not exactly two.

    """
    if len(spellings) != 2:
        shown = [spellings[label] for label in sorted(spellings)[:5]] + ["..."] * (len(spellings) > 5)
        found = f"{len(spellings)} different labels" if len(spellings) > 1 else "only one label"
        raise DataError(f"{where}: found {found} ({', '.join(shown)}), expected two classes")
    return spellings[min(spellings)], spellings[max(spellings)]


def class_labels(block: TextBlock, classes: tuple[str, str], *, any_label: bool = False) -> NDArray[np.float32]:
    """Return -1 or +1 for each row of text, 0 for a label that is neither class as a number.

    Raises:
        DataError: a label is neither class, unless `any_label`; its line is named.

    """
    negative, positive = (class_number(name) for name in classes)
    labels: NDArray[np.float32] = (block.labels == positive).astype(np.float32)
    labels[block.labels == negative] = -1
    if not any_label and not labels.all():
        row = int(np.argmin(labels != 0))
        raise DataError(
            f"{block.path}: line {block.lines[row]}: found label {block.spellings[float(block.labels[row])]},"
            f" expected {classes[0]} or {classes[1]}"
        )
    return labels


def class_label(name: str, classes: tuple[str, str]) -> int:
    """Return -1 or +1 for the name of one of the classes, 0 for any other."""
    same = [name == known or class_number(name) == class_number(known) for known in classes]
    return int(same[1]) - int(same[0])


def class_number(name: str) -> float:
    """Return a class that is a number as one, and NaN, which equals nothing, for any other."""
    try:
        return float(name)
    except ValueError:
        return math.nan
