"""What training and prediction read: named splits of labelled rows, in blocks, from a file or from memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from mpisgd.data.classes import class_label, class_labels, two_classes
from mpisgd.data.dataset_file import SIGNATURE, DatasetFile
from mpisgd.data.text_rows import TextBlock, read_blocks
from mpisgd.errors import DataError
from mpisgd.sparse_rows import SparseRows, concatenate, pointer_dtype

BLOCK_ELEMENTS = 2_000_000


@dataclass(frozen=True, slots=True)
class Block:
    """Some consecutive rows of a split.

    rows    of the data set's width
    labels  (rows,) float32: +1 positive, -1 negative; 0 for neither class, where that was asked for
    first   the place of the first of the rows within the split
    """

    rows: SparseRows
    labels: NDArray[np.float32]
    first: int


class Dataset(Protocol):
    """Named splits of labelled rows; a context manager that closes what it reads from.

    name          the path, or "generated"
    column_count  the width of all rows
    classes       negative and positive, as spelled by the user; of two numbers the larger is positive
    splits        the number of rows of each split, such as {"train": 800, "test": 200}
    """

    name: str
    column_count: int
    classes: tuple[str, str]
    splits: dict[str, int]

    def row_lengths(self, split: str) -> NDArray[np.int64]:
        """Return the number of elements of every row of a split; DataError if there is no such split."""

    def blocks(self, split: str, *, block_elements: int = BLOCK_ELEMENTS) -> Iterator[Block]:
        """Yield the rows of a split in order, up to `block_elements` elements, or one row, at a time.

        Raises:
            DataError: there is no such split, or the rows are not what they should be.

        """

    def close(self) -> None:
        """Close the file, if there is one."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class MemoryDataset(Dataset):
    """A `Dataset` of rows in memory."""

    def __init__(
        self,
        name: str,
        column_count: int,
        classes: tuple[str, str],
        parts: dict[str, tuple[SparseRows, NDArray[np.float32]]],
    ) -> None:
        self.name, self.column_count, self.classes = name, column_count, classes
        self.splits = {split: len(rows) for split, (rows, _) in parts.items()}
        self._parts = parts

    def row_lengths(self, split: str) -> NDArray[np.int64]:
        """See `Dataset`."""
        _known(self, split)
        return np.diff(self._parts[split][0].row_pointers).astype(np.int64)

    def blocks(self, split: str, *, block_elements: int = BLOCK_ELEMENTS) -> Iterator[Block]:
        """See `Dataset`."""
        _known(self, split)
        rows, labels = self._parts[split]
        for start, stop in _cuts(rows.row_pointers, 0, len(rows), block_elements):
            yield Block(rows.part(start, stop), labels[start:stop], start)

    def close(self) -> None:
        """Do nothing: there is no file."""


class Hdf5Dataset(Dataset):
    """A `Dataset` in an HDF5 file: of the rows only one block at a time is in memory."""

    def __init__(
        self,
        path: Path,
        *,
        column_count: int | None = None,
        classes: tuple[str, str] | None = None,
        any_label: bool = False,
    ) -> None:
        """Open the file; see `open_dataset` for the arguments and errors."""
        self._file = DatasetFile(path)
        self.name, self.column_count = str(path), self._file.column_count
        self.classes = self._file.classes
        sizes = np.bincount(self._file.split_codes, minlength=len(self._file.split_names))
        self.splits = dict(zip(self._file.split_names, sizes.tolist(), strict=True))
        self._label_values = np.array([-1, 1], np.float32)
        try:
            self._agree(column_count, classes, any_label=any_label)
        except DataError:
            self.close()
            raise

    def row_lengths(self, split: str) -> NDArray[np.int64]:
        """See `Dataset`."""
        lengths: NDArray[np.int64] = np.diff(self._file.row_pointers)
        return lengths[self._places(split)]

    def blocks(self, split: str, *, block_elements: int = BLOCK_ELEMENTS) -> Iterator[Block]:
        """See `Dataset`. Rows of other splits that stand in between are read and left out."""
        places = self._places(split)
        if not len(places):
            return
        first = 0
        cuts = _cuts(self._file.row_pointers, int(places[0]), int(places[-1]) + 1, block_elements)
        for start, stop in cuts:
            low, high = np.searchsorted(places, [start, stop]).tolist()
            chosen = places[low:high]
            if not len(chosen):
                continue
            rows = self._file.rows(start, stop)
            rows = rows if len(chosen) == len(rows) else rows.take(chosen - start)
            yield Block(rows, self._label_values[self._file.label_codes[chosen]], first)
            first += len(chosen)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _places(self, split: str) -> NDArray[np.int64]:
        """Return the file's numbers of a split's rows, in order."""
        _known(self, split)
        return np.flatnonzero(self._file.split_codes == self._file.split_names.index(split))

    def _agree(self, column_count: int | None, classes: tuple[str, str] | None, *, any_label: bool) -> None:
        """Take over a model's classes; DataError if the file is of other columns or classes."""
        if column_count not in (None, self.column_count):
            raise DataError(f"{self.name}: found {self.column_count} columns, expected the model's {column_count}")
        if classes is None:
            return
        values = [class_label(name, classes) for name in self.classes]
        if values != [-1, 1] and not any_label:
            raise DataError(f"{self.name}: found classes {self.classes}, expected the model's {classes}")
        self._label_values = np.array(values, np.float32)
        self.classes = classes


def open_dataset(
    path: Path,
    *,
    column_count: int | None = None,
    classes: tuple[str, str] | None = None,
    any_label: bool = False,
    split_for_text: str = "test",
) -> Dataset:
    """Open a file of rows: HDF5, or else svmlight text, which is read into memory as one split.

    A model's `column_count` and `classes`, if given, must fit: classes that are numbers are compared as
    numbers, and text may be narrower than the model since it only says the largest column that occurs.
    With `any_label` a label of neither class is no error: it becomes 0, as for rows that nobody has labelled.

    Raises:
        DataError: the file is missing, damaged, no data set, or does not fit the model.

    """
    if _starts_as_hdf5(path):
        return Hdf5Dataset(path, column_count=column_count, classes=classes, any_label=any_label)
    rows, parts = _read_text(path, column_count)
    if classes is None:
        spellings = dict(chain.from_iterable(part.spellings.items() for part in reversed(parts)))
        classes = two_classes(spellings, str(path))
    labels = np.concatenate([class_labels(part, classes, any_label=any_label) for part in parts])
    return MemoryDataset(str(path), rows.column_count, classes, {split_for_text: (rows, labels)})


def _starts_as_hdf5(path: Path) -> bool:
    """Tell whether a file begins as HDF5 files do; one that cannot be opened is left to the text reader."""
    try:
        with path.open("rb") as file:
            return file.read(len(SIGNATURE)) == SIGNATURE
    except OSError:
        return False


def _read_text(path: Path, column_count: int | None) -> tuple[SparseRows, list[TextBlock]]:
    """Return all rows of text, and its blocks without them; DataError if there are more columns than the model's.

    The arrays grow in place, as joining the blocks at the end would need the memory for all rows twice.
    """
    values, columns, width = bytearray(), bytearray(), column_count or 0
    lengths, blocks = [np.zeros(1, np.int64)], []
    for block in read_blocks(path):
        rows = block.rows
        if column_count is not None and rows.column_count > column_count:
            found, expected = f"found {rows.column_count} columns", f"expected at most the model's {column_count}"
            raise DataError(f"{path}: {found}, {expected}")
        width = max(width, rows.column_count)
        values += rows.values.data
        columns += rows.columns.data
        lengths.append(np.diff(rows.row_pointers))
        blocks.append(replace(block, rows=concatenate([], 0)))
    pointers = np.cumsum(np.concatenate(lengths))
    joined = np.frombuffer(values, np.float32), np.frombuffer(columns, np.int32)
    return SparseRows(*joined, pointers.astype(pointer_dtype(int(pointers[-1]))), width), blocks


def _cuts(pointers: NDArray[np.integer[Any]], start: int, stop: int, elements: int) -> Iterator[tuple[int, int]]:
    """Cut the rows start:stop into ranges of at most so many elements, but at least one row."""
    while start < stop:
        limit = min(int(pointers[start]) + elements, int(pointers[-1]))
        # In the pointers' own dtype: for a key of another one all of them would be converted, at every cut.
        end = int(np.searchsorted(pointers, pointers.dtype.type(limit), side="right")) - 1
        end = min(max(end, start + 1), stop)
        yield start, end
        start = end


def _known(dataset: Dataset, split: str) -> None:
    """Raise DataError unless the data set has the split."""
    if split not in dataset.splits:
        names = ", ".join(dataset.splits) or "none"
        raise DataError(f"{dataset.name}: found no split {split!r}, expected one of those there are: {names}")
