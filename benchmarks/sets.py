"""The sets that are measured on: the given rows or generated ones, and the full-size set made of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack

from benchmarks.scores import Labels
from mpisgd.data.dataset import open_dataset
from mpisgd.data.dataset_writer import DatasetWriter
from mpisgd.generated import DEFAULT_ROWS, DEFAULT_TEST_ROWS, generate
from mpisgd.sparse_rows import SparseRows, concatenate

CLASSES = ("-1", "+1")
BASE_LAMBDA, FULL_LAMBDA = 1e-5, 1e-6
DROPPED = 0.12  # share of the terms that each copy after the first lacks
BLOCK_ROWS = 50_000


@dataclass(frozen=True, slots=True)
class Split:
    """Rows of float32 and int32 with labels +1 and -1, float32."""

    rows: csr_matrix
    labels: Labels


@dataclass(frozen=True, slots=True)
class LearningSet:
    """A prepared file and what to do with it.

    name            what the rows are, for people; says so where they are generated
    regularization  lambda
    target          the test accuracy that counts as learnt, for time to accuracy
    """

    name: str
    path: Path
    regularization: float
    target: float


def base_set(data: Path | None, directory: Path) -> LearningSet:
    """Return the given prepared file, or without one a generated set, made once."""
    if data is not None:
        return LearningSet(data.stem, data.resolve(), BASE_LAMBDA, target=0.927)
    path = directory / "generated.h5"
    if not path.exists():
        made = generate(DEFAULT_ROWS, DEFAULT_TEST_ROWS, seed=0)
        write_set(path, Split(to_matrix(made.rows), made.labels), Split(to_matrix(made.test_rows), made.test_labels))
    return LearningSet("generated rows", path, BASE_LAMBDA, target=0.945)


def full_set(base: LearningSet, copies: int, directory: Path) -> LearningSet:
    """Return so many copies of a set's training rows, each without some terms, shuffled; made once.

    The test rows stay as they are.
    """
    path = directory / f"{base.path.stem}-{copies}-copies.h5"
    if not path.exists():
        train = load(base.path, "train")
        rng = np.random.default_rng(0)
        parts = [train.rows, *(thinned(train.rows, rng) for _ in range(copies - 1))]
        order = rng.permutation(copies * train.rows.shape[0])
        rows = csr_matrix(vstack(parts, format="csr"))[order]
        write_set(path, Split(rows, np.tile(train.labels, copies)[order]), load(base.path, "test"))
    return LearningSet(f"{copies} copies of {base.name}", path, FULL_LAMBDA, base.target)


def thinned(rows: csr_matrix, rng: np.random.Generator) -> csr_matrix:
    """Return rows without a random share DROPPED of their elements, scaled to unit norm again."""
    kept = rng.random(rows.nnz) >= DROPPED
    row_of = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))[kept]
    values = rows.data[kept].astype(np.float64)
    norms = np.sqrt(np.bincount(row_of, values * values, minlength=rows.shape[0]))
    pointers = np.concatenate([[0], np.cumsum(np.bincount(row_of, minlength=rows.shape[0]))])
    return csr_matrix(((values / norms[row_of]).astype(np.float32), rows.indices[kept], pointers), shape=rows.shape)


def load(path: Path, split: str) -> Split:
    """Read a split of a prepared file into memory."""
    with open_dataset(path) as dataset:
        read = list(dataset.blocks(split))
    rows = concatenate([block.rows for block in read], read[0].rows.column_count)
    return Split(to_matrix(rows), np.concatenate([block.labels for block in read]))


def row_count(path: Path, split: str) -> int:
    """Return the number of rows of a split of a prepared file."""
    with open_dataset(path) as dataset:
        return dataset.splits[split]


def to_matrix(rows: SparseRows) -> csr_matrix:
    """Return rows as SciPy's matrix over the same arrays."""
    rows = rows.compact()
    return csr_matrix((rows.values, rows.columns, rows.row_pointers), shape=(len(rows), rows.column_count))


def from_matrix(rows: csr_matrix) -> SparseRows:
    """Return SciPy's matrix as rows over the same arrays."""
    return SparseRows(rows.data.astype(np.float32, copy=False), rows.indices, rows.indptr, rows.shape[1])


def part(rows: csr_matrix, start: int, stop: int) -> csr_matrix:
    """Return consecutive rows over the same arrays; SciPy's own slices are copies."""
    first, last = rows.indptr[start], rows.indptr[stop]
    pointers = rows.indptr[start : stop + 1] - first
    return csr_matrix((rows.data[first:last], rows.indices[first:last], pointers), shape=(stop - start, rows.shape[1]))


def write_set(path: Path, train: Split, test: Split) -> None:
    """Write a prepared file, block by block."""
    with DatasetWriter(path, force=True) as writer:
        for name, split in (("train", train), ("test", test)):
            for start, stop in blocks(split.rows.shape[0]):
                writer.append(name, from_matrix(part(split.rows, start, stop)))
        writer.finish(np.concatenate([train.labels, test.labels]) > 0, CLASSES)


def blocks(rows: int) -> Iterator[tuple[int, int]]:
    """Yield the first row and the one after the last of each block."""
    for start in range(0, rows, BLOCK_ROWS):
        yield start, min(start + BLOCK_ROWS, rows)


def text_of(path: Path, split: str, directory: Path) -> Path:
    """Return a split of a prepared file as svmlight text in a directory, written once."""
    text = directory / f"{path.stem}.{split}.svm"
    if not text.exists():
        partial = text.with_suffix(".partial")
        with partial.open("wb") as file:
            for block in svmlight(load(path, split)):
                file.write(block)
        partial.replace(text)
    return text


def svmlight(split: Split) -> Iterator[bytes]:
    """Yield the text of rows with values of at least 0 and less than 10, six decimals, columns counted from 1."""
    for start, stop in blocks(split.rows.shape[0]):
        yield svmlight_block(part(split.rows, start, stop), split.labels[start:stop])


def svmlight_block(rows: csr_matrix, labels: Labels) -> bytes:
    """Return the text of some rows, made of whole columns of digits at a time: the quick way without a compiler."""
    width = len(str(rows.shape[1]))
    tokens = np.zeros((rows.nnz, width + 10), np.uint8)  # " COLUMN:D.DDDDDD"; a 0 is no character
    tokens[:, 0], tokens[:, width + 1], tokens[:, width + 3] = b" :."
    columns = rows.indices.astype(np.int64) + 1
    write_digits(tokens[:, 1 : width + 1], columns)
    tokens[:, 1 : width + 1][columns[:, None] < 10 ** np.arange(width - 1, -1, -1)] = 0  # leading zeros
    millionths = np.rint(rows.data.astype(np.float64) * 1e6).astype(np.int64)
    write_digits(tokens[:, width + 2 : width + 3], millionths // 1_000_000)
    write_digits(tokens[:, width + 4 :], millionths % 1_000_000)
    heads = np.zeros((len(labels), width + 10), np.uint8)  # "\n+1", the line's end before
    heads[:, 0], heads[:, 1], heads[:, 2] = ord("\n"), np.where(labels > 0, ord("+"), ord("-")), ord("1")
    text = np.insert(tokens, rows.indptr[:-1], heads, axis=0).ravel()
    return text[text != 0][1:].tobytes() + b"\n"


def write_digits(out: NDArray[np.uint8], numbers: NDArray[np.int64]) -> None:
    """Write numbers in decimal, one a row, one digit a column, zeros in front."""
    for place in range(out.shape[1] - 1, -1, -1):
        numbers, digits = np.divmod(numbers, 10)
        out[:, place] = digits + ord("0")
