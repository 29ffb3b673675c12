"""Generated rows with the shape of RCV1, for runs that are given no data. They say nothing about real text.

Modelled on the RCV1-v2 term vectors (Lewis, Yang, Rose, Li 2004: "RCV1: A New Benchmark Collection for Text
Categorization Research", JMLR 5:361-397) in these respects only: 47,236 columns whose frequencies fall as a
Zipf-like power of their rank, log-normal row lengths with a mean near 77 elements, log tf-idf values, rows of
unit L2 norm, and two balanced classes that a linear model separates to about 95 % on held-out rows.

A class c is a distribution of words, p_c(word) ~ zipf(word) exp(+-CLASS_TILT z_word) with z ~ N(0, 1), and a
row is a bag of words of its class. So the log odds of the classes are linear in a row's word counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpisgd.compiled_loops import Float
from mpisgd.sparse_rows import SparseRows, concatenate, pointer_dtype

DEFAULT_ROWS = 23_149  # RCV1's own training set
DEFAULT_TEST_ROWS = 5_000
RCV1_COLUMNS = 47_236

# Fitted to 22,079 real rows: their lengths, and in how many of them the column of a rank occurs (within 15 %
# at the ranks compared, 1 to 20,001; the rarest are less rare here). One power alone makes the head too flat.
MEDIAN_WORDS = 64.0  # with repeats; 62 without
WORDS_SIGMA = 0.73
HEAD_EXPONENT = 0.32
TAIL_EXPONENT = 1.6  # on top of the head's, from rank TAIL_START on
TAIL_START = 600
# Chosen so that scikit-learn's LinearSVC(C=1) answers 95 % of the default held-out rows right.
CLASS_TILT = 0.27

CHUNK_ROWS = 8_192  # bounds the scratch memory: some 6 MB an array, whatever the number of rows


@dataclass(frozen=True, slots=True)
class GeneratedRows:
    """Rows to train on and rows held out, of the same two classes.

    rows, test_rows      unit rows, float32 log tf-idf values, of one width
    labels, test_labels  (rows,), (test_rows,)  float32, +1 or -1; as many of each, +1 has the odd one
    """

    rows: SparseRows
    labels: Float
    test_rows: SparseRows
    test_labels: Float


def generate(rows: int, test_rows: int, seed: int, *, column_count: int = RCV1_COLUMNS) -> GeneratedRows:
    """Return `rows` rows to train on and `test_rows` held out, the same for the same arguments.

    Columns are sorted and unique within a row, and no row is empty. The two classes depend on the seed and
    `column_count` only; the rows to train on, their weights included, do not depend on the held-out ones.
    Needs rows >= 1 and column_count >= 1.
    """
    rng = np.random.default_rng(seed)
    classes = _class_distributions(column_count, rng)
    labels = _balanced_labels(rows, rng)
    train = _term_frequencies(labels, classes, rng)
    test_labels = _balanced_labels(test_rows, rng)
    test = _term_frequencies(test_labels, classes, rng)
    idf = _inverse_document_frequencies(train, column_count)
    return GeneratedRows(_weighted(train, idf), labels, _weighted(test, idf), test_labels)


def _class_distributions(column_count: int, rng: np.random.Generator) -> dict[int, NDArray[np.float64]]:
    """Return the probability of each word by label, +1 and -1: float64 of shape (column_count,)."""
    # As in RCV1, a column's number says nothing of how frequent it is.
    ranks = 1.0 + rng.permutation(column_count)
    zipf = ranks**-HEAD_EXPONENT * (ranks + TAIL_START) ** -TAIL_EXPONENT
    tilt = np.exp(CLASS_TILT * rng.standard_normal(column_count))
    return {label: p / p.sum() for label, p in ((1, zipf * tilt), (-1, zipf / tilt))}


def _balanced_labels(rows: int, rng: np.random.Generator) -> Float:
    """Return labels in random order, half of them +1: float32 of shape (rows,)."""
    labels = np.ones(rows, np.float32)
    labels[1::2] = -1
    rng.shuffle(labels)
    return labels


def _term_frequencies(
    labels: Float, classes: dict[int, NDArray[np.float64]], rng: np.random.Generator
) -> list[SparseRows]:
    """Return one row for every label, in parts of CHUNK_ROWS."""
    return [
        _term_frequency_chunk(labels[start : start + CHUNK_ROWS], classes, rng)
        for start in range(0, len(labels), CHUNK_ROWS)
    ]


def _term_frequency_chunk(
    labels: Float, classes: dict[int, NDArray[np.float64]], rng: np.random.Generator
) -> SparseRows:
    """Return one row for every label: 1 + log(count) of each word in it."""
    column_count = len(classes[1])
    lengths = np.ceil(rng.lognormal(np.log(MEDIAN_WORDS), WORDS_SIGMA, len(labels))).astype(np.int64)
    drawn = []
    for label, distribution in classes.items():
        row = np.flatnonzero(labels == label)
        words = _draw(lengths[row].sum(), distribution, rng)
        drawn.append(np.repeat(row, lengths[row]) * column_count + words)
    # One sort of row * column_count + word puts rows and columns in order and brings equal words together.
    places = np.sort(np.concatenate(drawn))
    firsts = np.flatnonzero(np.diff(places, prepend=-1))
    counts = np.diff(firsts, append=len(places))
    row, columns = np.divmod(places[firsts], column_count)
    pointers = np.searchsorted(row, np.arange(len(labels) + 1))
    values = (1 + np.log(counts)).astype(np.float32)
    return SparseRows(values, columns.astype(np.int32), pointers.astype(pointer_dtype(len(columns))), column_count)


def _draw(count: int, distribution: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return `count` independent words, int64 of shape (count,)."""
    # How often each word falls, then in which order: the same as one draw after another, and far faster.
    words = np.repeat(np.arange(len(distribution)), rng.multinomial(count, distribution))
    rng.shuffle(words)
    return words


def _inverse_document_frequencies(parts: list[SparseRows], column_count: int) -> Float:
    """Return log((n + 1) / rows with the word), float32 of shape (column_count,).

    The + 1 keeps a word of every row above 0, so that no row is all zeros; a word of no row counts as of one.
    """
    rows_with_word = np.zeros(column_count, np.int64)
    for part in parts:
        rows_with_word += np.bincount(part.columns, minlength=column_count)
    idf = np.log((sum(map(len, parts)) + 1) / np.maximum(rows_with_word, 1))
    return idf.astype(np.float32)


def _weighted(parts: list[SparseRows], idf: Float) -> SparseRows:
    """Return the parts as one, term frequencies times `idf`, each row of unit norm."""
    weighted = []
    for part in parts:
        values = part.values * idf[part.columns]
        weighted.append(SparseRows(values, part.columns, part.row_pointers, part.column_count).normalized())
    return concatenate(weighted, len(idf))
