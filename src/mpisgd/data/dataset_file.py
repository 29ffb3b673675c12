"""The HDF5 file of a data set: its layout, and its reader, which names every fault.

    format="mpisgd dataset", format_version=1, created_by                       attributes of the file
    X       AnnData's csr_matrix:  data float32, indices int32, indptr int64, attribute shape [rows, columns]
    labels  AnnData's categorical: codes int8, categories [negative, positive]
    split   AnnData's categorical: codes int8, categories such as [train, test]

So `anndata.io.read_elem(file["X"])` gives a SciPy matrix. All arrays are chunked and carry checksums.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from mpisgd.data.classes import class_number
from mpisgd.errors import DataError
from mpisgd.sparse_rows import SparseRows, check_row_pointers

FORMAT, FORMAT_VERSION = "mpisgd dataset", 1
SIGNATURE = b"\x89HDF\r\n\x1a\n"

# What h5py has been seen to raise on damaged files and on objects of another kind than expected.
H5PY_ERRORS = (
    OSError,
    KeyError,
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    IndexError,
    MemoryError,
)


class DatasetFile:
    """A data set's file, open for reading: pointers, labels and splits in memory, elements on disk.

    path          the file
    column_count  the width of the rows
    row_pointers  (rows + 1,) int64, from 0, never decreasing
    classes       negative and positive, as spelled
    label_codes   (rows,) int8, 0 negative and 1 positive
    split_names   the names of the splits
    split_codes   (rows,) int8, each row's place in split_names
    """

    def __init__(self, path: Path) -> None:
        """Open and check everything but the elements, which are checked as they are read.

        Raises:
            DataError: the file is missing, damaged or of another layout.

        """
        self.path = path
        with _reading(path, "file"):
            self._file = h5py.File(path, "r")
        try:
            self._read_all_but_elements()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        with suppress(*H5PY_ERRORS):
            self._file.close()

    def rows(self, start: int, stop: int) -> SparseRows:
        """Read the rows start:stop.

        Raises:
            DataError: they cannot be read, or hold columns out of range or values that are not finite.

        """
        first, last = int(self.row_pointers[start]), int(self.row_pointers[stop])
        with _reading(self.path, f"rows {start} to {stop - 1}"):
            values, columns = self._file["X/data"][first:last], self._file["X/indices"][first:last]
        pointers = self.row_pointers[start : stop + 1] - first
        return SparseRows.checked(values, columns, pointers, self.column_count, where=str(self.path), first_row=start)

    def _read_all_but_elements(self) -> None:
        """Fill the attributes from the file."""
        row_count, self.column_count = self._shape()
        elements = self._length("X/data", "fiu")
        _expect(self.path, "X/indices", self._length("X/indices", "iu"), elements)
        _expect(self.path, "X/indptr", self._length("X/indptr", "iu"), row_count + 1)
        with _reading(self.path, "X/indptr"):
            self.row_pointers = self._file["X/indptr"][:].astype(np.int64)
        check_row_pointers(self.row_pointers, elements, f"{self.path}: X/indptr")
        names, self.label_codes = self._categorical("labels", row_count)
        if len(names) != 2:
            raise DataError(f"{self.path}: labels: found {len(names)} classes {names[:5]}, expected two")
        if class_number(names[0]) > class_number(names[1]):
            names, self.label_codes = names[::-1], 1 - self.label_codes
        if names[0] == names[1]:
            raise DataError(f"{self.path}: labels: found the class {names[0]} twice, expected two classes")
        self.classes = (names[0], names[1])
        self.split_names, self.split_codes = self._categorical("split", row_count)

    def _shape(self) -> tuple[int, int]:
        """Return the counts of rows and columns after a look at whether this is our layout at all."""
        with _reading(self.path, "file"):
            found = self._file.attrs.get("format_version", FORMAT_VERSION)
            if found != FORMAT_VERSION:
                raise DataError(f"{self.path}: found format_version {found}, expected {FORMAT_VERSION}")
            group = self._file.get("X")
            kind = group.attrs.get("encoding-type") if group is not None else None
            if not isinstance(group, h5py.Group) or _text(kind) != "csr_matrix":
                held = ", ".join(sorted(self._file)) or "nothing"
                held = f"X of encoding {_text(kind)!r}" if group is not None else held
                raise DataError(f"{self.path}: found {held}, expected a group X of encoding 'csr_matrix'")
        with _reading(self.path, "attribute shape of X"):
            shape = [int(size) for size in group.attrs["shape"]]
        if len(shape) != 2 or min(shape) < 0:
            raise DataError(f"{self.path}: attribute shape of X: found {shape}, expected [rows, columns]")
        return shape[0], shape[1]

    def _length(self, name: str, kinds: str) -> int:
        """Return the length of an array after a look at its dimensions and kind of numbers."""
        with _reading(self.path, name):
            array = self._file[name]
            shape, dtype = array.shape, array.dtype
            if len(shape) != 1 or dtype.kind not in kinds:
                expected = "numbers" if "f" in kinds else "integers"
                raise DataError(
                    f"{self.path}: {name}: found {dtype} of shape {shape}, expected {expected} of one dimension"
                )
            return int(shape[0])

    def _categorical(self, name: str, row_count: int) -> tuple[list[str], NDArray[np.int8]]:
        """Return the categories and a checked code for every row."""
        _expect(self.path, f"{name}/codes", self._length(f"{name}/codes", "iu"), row_count)
        with _reading(self.path, f"{name}/categories"):
            categories = [_text(item) for item in self._file[f"{name}/categories"][:].tolist()]
        with _reading(self.path, f"{name}/codes"):
            codes = self._file[f"{name}/codes"][:]
        outside = (codes < 0) | (codes >= min(len(categories), 128))
        if outside.any():
            row = int(np.argmax(outside))
            raise DataError(
                f"{self.path}: {name} of row {row}: found code {codes[row]}, expected 0 <= code < {len(categories)}"
            )
        return categories, codes.astype(np.int8)


@contextmanager
def _reading(path: Path, part: str) -> Iterator[None]:
    """Turn whatever h5py raises on a damaged or foreign file into a DataError that names the part."""
    try:
        yield
    except H5PY_ERRORS as error:
        raise DataError(f"{path}: {part} cannot be read: {one_line(error)}") from None


def one_line(error: Exception) -> str:
    """Return an error of the system or of h5py in one line."""
    return getattr(error, "strerror", None) or " ".join(str(error).split()).strip("\"'")


def _text(item: object) -> str:
    """Return a string of the file, which h5py may give as bytes."""
    return item.decode("utf-8") if isinstance(item, bytes) else str(item)


def _expect(path: Path, name: str, found: int, expected: int) -> None:
    """Raise DataError unless an array is as long as another part of the file says."""
    if found != expected:
        raise DataError(f"{path}: {name}: found length {found}, expected {expected}")
