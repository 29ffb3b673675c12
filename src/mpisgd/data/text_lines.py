"""svmlight text one line at a time: whatever is legal is read, and of what is not the line is named.

This is the slow way, for the blocks that `text_rows` cannot take at once.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpisgd.errors import DataError
from mpisgd.sparse_rows import INT32_MAX

FLOAT32_LIMIT = 2.0**128 - 2.0**103  # from here on a number rounds to infinity

_NUMBER = re.compile(rb"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_ELEMENT = re.compile(rb"(\d+):(" + _NUMBER.pattern + rb")")
_QUERY = re.compile(rb"qid:\d+")


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a block says, whichever reader read it; columns count from 0 and increase within a row."""

    labels: NDArray[np.float64]
    row_pointers: NDArray[np.int64]
    columns: NDArray[np.int32]
    values: NDArray[np.float32]
    spellings: dict[float, str]
    lines: NDArray[np.int64]


def parse_lines(text: bytes, first_line: int, path: Path) -> Parsed:
    """Parse whole lines one by one; DataError names the line of the first fault."""
    labels, lengths, lines = [], [0], []
    columns: list[float] = []
    values: list[float] = []
    spellings: dict[float, str] = {}
    for line, content in enumerate(text.split(b"\n"), first_line):
        words = content.partition(b"#")[0].split()
        if not words:
            continue
        try:
            label, elements = _label(words[0]), _elements(words[1:])
        except ValueError as fault:
            raise DataError(f"{path}: line {line}: {fault}") from None
        spellings.setdefault(label, words[0].decode("ascii"))
        labels.append(label)
        lines.append(line)
        lengths.append(len(elements))
        columns.extend(elements)
        values.extend(elements.values())
    return Parsed(
        np.array(labels, np.float64),
        np.cumsum(lengths, dtype=np.int64),
        np.array(columns, np.int32) - np.int32(1),
        np.array(values, np.float32),
        spellings,
        np.array(lines, np.int64),
    )


def _label(word: bytes) -> float:
    """Return a row's label; ValueError says what is wrong."""
    label = float(word) if _NUMBER.fullmatch(word) else math.nan
    if not math.isfinite(label):
        raise ValueError(f"found {_shown(word)}, expected a label that is a finite number")
    return label


def _elements(words: list[bytes]) -> dict[float, float]:
    """Return a row's values by column as it is spelled, sorted; ValueError says what is wrong."""
    elements: dict[float, float] = {}
    for word in words[1:] if words and _QUERY.fullmatch(words[0]) else words:
        match = _ELEMENT.fullmatch(word)
        column, value = (float(match[1]), float(match[2])) if match else (0.0, 0.0)
        if not (1 <= column <= INT32_MAX and abs(value) < FLOAT32_LIMIT):
            raise ValueError(f"found {_shown(word)}, expected {_expected(word)}")
        if column in elements:
            raise ValueError(f"found column {column:.0f} twice in the row, expected it once")
        elements[column] = value
    return dict(sorted(elements.items()))


def _expected(word: bytes) -> str:
    """Return what should stand where a faulty element does."""
    name, _, value = word.partition(b":")
    if not name or not value:
        return "column:value"
    if not name.isdigit():
        return "column:value with a whole column from 1 on"
    if float(name) == 0:
        return "columns from 1 on: if the file counts from 0, add one to every column"
    if float(name) > INT32_MAX:
        return f"a column up to {INT32_MAX}"
    return "column:value with a number after the colon that fits in 32 bits"


def _shown(word: bytes) -> str:
    """Return a word as a message shows it: quoted, in ASCII, not too long."""
    shown = ascii(word.decode("latin-1"))
    return shown if len(shown) <= 40 else shown[:37] + "...'"
