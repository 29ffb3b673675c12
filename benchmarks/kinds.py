"""Generated rows of the kinds that a linear classifier meets, each with a truth that is known and partly hidden.

A truth is one weight for each column, drawn from N(0, 1); a row is positive when its margin, with noise added, is
above the quantile that gives the wished share of positives. Where the classes are topics they are drawn first, then
their words. The counts of rows are those to learn from; HELD_OUT more are made to test on, so that differences of half
a percent are seen.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags_array

from benchmarks.scores import Labels
from benchmarks.sets import Split, to_matrix
from mpisgd.generated import generate

Parts = tuple[Split, Split]
HELD_OUT = 10_000  # rows
NOISE = 0.2  # standard deviations of the margin


def text(rng: np.random.Generator) -> Parts:
    """Return unit rows like RCV1's: 20,000 rows, 47,236 columns."""
    made = generate(20_000, HELD_OUT, int(rng.integers(1_000)))
    return Split(to_matrix(made.rows), made.labels), Split(to_matrix(made.test_rows), made.test_labels)


def raw_counts(rng: np.random.Generator) -> Parts:
    """Return 6,000 rows of word counts, of texts of 4 to 4,000 words: row norms over two orders of magnitude."""
    lengths = np.clip(rng.lognormal(np.log(60), 1.2, 6_000 + HELD_OUT), 4, 4_000).astype(np.int64)
    rows = of_ones(rng, lengths, 5_000)  # equal words of a row are added up
    return labelled(rng, rows, truth_of=unit_rows(rows))


def binary(rng: np.random.Generator) -> Parts:
    """Return 20,000 rows of 50 of 5,000 columns, all ones."""
    rows = sparse(rng, 20_000 + HELD_OUT, 5_000, 50)
    rows.data[:] = 1
    return labelled(rng, rows)


def dense(rng: np.random.Generator) -> Parts:
    """Return 10,000 rows of 100 dense columns."""
    return labelled(rng, csr_matrix(rng.standard_normal((10_000 + HELD_OUT, 100))))


def dense_rare(rng: np.random.Generator) -> Parts:
    """Return the same with 3 % positives."""
    return labelled(rng, csr_matrix(rng.standard_normal((10_000 + HELD_OUT, 100))), positives=0.03)


def sparse_rare(rng: np.random.Generator) -> Parts:
    """Return 20,000 unit rows of 50 of 5,000 columns, 3 % positives."""
    return labelled(rng, unit_rows(sparse(rng, 20_000 + HELD_OUT, 5_000, 50)), positives=0.03)


def ten_million_columns(rng: np.random.Generator) -> Parts:
    """Return 20,000 unit rows of 30 of 10,000,000 columns, some of them frequent; each class prefers half of them."""
    return two_topics(rng, 20_000, 30, 10_000_000, power=8.0)


def empty_rows(rng: np.random.Generator) -> Parts:
    """Return 20,000 unit rows of 30 of 2,000 columns, three in ten of which are empty and mostly negative."""
    lengths = np.where(rng.random(20_000 + HELD_OUT) < 0.3, 0, 30)
    rows = unit_rows(of_ones(rng, lengths, 2_000))
    return labelled(rng, rows, positives=0.4)


def column_scales(rng: np.random.Generator) -> Parts:
    """Return 20,000 rows of 50 of 2,000 columns, whose scales are log-normal: a factor of e each way."""
    rows = sparse(rng, 20_000 + HELD_OUT, 2_000, 50)
    scaled = csr_matrix(rows @ diags_array(rng.lognormal(0, 1, 2_000)))
    return labelled(rng, scaled, truth_of=rows)


def few_rows(rng: np.random.Generator) -> Parts:
    """Return 1,500 unit rows of 100 of 20,000 columns; each class prefers half of them."""
    return two_topics(rng, 1_500, 100, 20_000, power=4.0)


def flipped_labels(rng: np.random.Generator) -> Parts:
    """Return 20,000 unit rows of 50 of 2,000 columns, one label in ten wrong."""
    return labelled(rng, unit_rows(sparse(rng, 20_000 + HELD_OUT, 2_000, 50)), flipped=0.1)


def many_rows(rng: np.random.Generator) -> Parts:
    """Return 100,000 unit rows of 20 of 10,000 columns."""
    return labelled(rng, unit_rows(sparse(rng, 100_000 + HELD_OUT, 10_000, 20)))


def slowly_learnt(rng: np.random.Generator) -> Parts:
    """Return 500,000 unit rows of 60 of 50,000 columns; as the truth is in all of them, it takes passes to learn."""
    return labelled(rng, unit_rows(sparse(rng, 500_000 + HELD_OUT, 50_000, 60)))


def few_columns(rng: np.random.Generator) -> Parts:
    """Return 2,000 rows of 10 dense columns with means that are not zero."""
    return labelled(rng, csr_matrix(rng.standard_normal((2_000 + HELD_OUT, 10)) + rng.standard_normal(10)))


KINDS: dict[str, Callable[[np.random.Generator], Parts]] = {
    "unit rows like text": text,
    "raw counts, norms over two orders": raw_counts,
    "binary features": binary,
    "100 dense columns": dense,
    "100 dense columns, 3 % positives": dense_rare,
    "sparse, 3 % positives": sparse_rare,
    "10 million columns": ten_million_columns,
    "three in ten rows empty": empty_rows,
    "log-normal column scales": column_scales,
    "1,500 rows, 20,000 columns": few_rows,
    "one label in ten wrong": flipped_labels,
    "100,000 short rows": many_rows,
    "2,000 rows, 10 dense columns": few_columns,
}


def popular(rng: np.random.Generator, count: int, columns: int, power: float = 2.5) -> NDArray[np.int64]:
    """Return random columns, the first far more frequent than the last: int64 (count,)."""
    return (columns * rng.random(count) ** power).astype(np.int64)


def sparse(rng: np.random.Generator, rows: int, columns: int, elements: int) -> csr_matrix:
    """Return rows of about so many elements with log-normal values."""
    places = popular(rng, rows * elements, columns)
    return from_lengths(np.full(rows, elements), places, rng.lognormal(0, 0.5, rows * elements), columns)


def of_ones(rng: np.random.Generator, lengths: NDArray[np.int64], columns: int, power: float = 2.5) -> csr_matrix:
    """Return rows of these lengths that count how often each column was drawn."""
    places = popular(rng, int(lengths.sum()), columns, power)
    return from_lengths(lengths, places, np.ones(len(places)), columns)


def from_lengths(
    lengths: NDArray[np.int64], columns: NDArray[np.int64], values: NDArray[np.float64], width: int
) -> csr_matrix:
    """Return rows of these lengths, columns sorted, equal ones added up."""
    pointers = np.concatenate([[0], np.cumsum(lengths)])
    rows = csr_matrix((values, columns, pointers), (len(lengths), width))
    rows.sum_duplicates()
    return rows


def unit_rows(rows: csr_matrix) -> csr_matrix:
    """Return rows of unit norm, empty ones as they are."""
    norms = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1)).ravel())
    return csr_matrix(diags_array(1 / np.where(norms > 0, norms, 1)) @ rows)


def two_topics(rng: np.random.Generator, rows: int, elements: int, columns: int, power: float) -> Parts:
    """Return unit rows of two classes, each word the one of two drawn that its class likes better, every other time."""
    labels = np.where(rng.random(rows + HELD_OUT) < 0.5, 1, -1).astype(np.float32)
    likes = rng.standard_normal(columns).astype(np.float32)
    first, second = (popular(rng, elements * len(labels), columns, power) for _ in range(2))
    swapped = (likes[second] - likes[first]) * np.repeat(labels, elements) > 0
    swapped &= rng.random(len(first)) < 0.5
    places = np.where(swapped, second, first)
    drawn = from_lengths(np.full(len(labels), elements), places, np.ones(len(places)), columns)
    return cut(unit_rows(drawn), labels)


def labelled(
    rng: np.random.Generator,
    rows: csr_matrix,
    *,
    truth_of: csr_matrix | None = None,
    positives: float = 0.5,
    flipped: float = 0.0,
) -> Parts:
    """Label rows by a truth over themselves, or over `truth_of`, and hold some out."""
    margins = (rows if truth_of is None else truth_of) @ rng.standard_normal(rows.shape[1])
    margins += NOISE * margins.std() * rng.standard_normal(len(margins))
    labels = np.where(margins > np.quantile(margins, 1 - positives), 1, -1).astype(np.float32)
    labels[rng.random(len(labels)) < flipped] *= -1
    return cut(rows, labels)


def cut(rows: csr_matrix, labels: Labels) -> Parts:
    """Return the rows as float32 and int32 in two splits, the last HELD_OUT to test on."""
    rows = csr_matrix(rows, dtype=np.float32)
    rows.indices, rows.indptr = rows.indices.astype(np.int32), rows.indptr.astype(np.int32)
    learning = len(labels) - HELD_OUT
    return Split(rows[:learning], labels[:learning]), Split(rows[learning:], labels[learning:])
