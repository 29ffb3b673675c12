"""The HDF5 file of a data set: its layout, written in blocks and read with every fault named.

    format="mpisgd dataset", format_version=1, created_by                       attributes of the file
    X       AnnData's csr_matrix:  data float32, indices int32, indptr int64, attribute shape [rows, columns]
    labels  AnnData's categorical: codes int8, categories [negative, positive]
    split   AnnData's categorical: codes int8, categories such as [train, test]

So `anndata.io.read_elem(file["X"])` gives a SciPy matrix. All arrays are chunked and carry checksums.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from mpisgd.errors import DataError, RunError, UsageError
from mpisgd.sparse_rows import SparseRows, index_dtype

FORMAT, FORMAT_VERSION = "mpisgd dataset", 1
SIGNATURE = b"\x89HDF\r\n\x1a\n"
CHUNK = 1 << 15  # elements: 128 kB of float32, so that small files stay small; larger is no faster

# What h5py has been seen to raise on damaged files and on objects of another kind than expected.
_H5PY_ERRORS = (
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
        with suppress(*_H5PY_ERRORS):
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
        return SparseRows.checked(
            values, columns, pointers, self.column_count, where=str(self.path), first_row=start
        )

    def _read_all_but_elements(self) -> None:
        """Fill the attributes from the file."""
        row_count, self.column_count = self._shape()
        elements = self._length("X/data", "fiu")
        _expect(self.path, "X/indices", self._length("X/indices", "iu"), elements)
        _expect(self.path, "X/indptr", self._length("X/indptr", "iu"), row_count + 1)
        with _reading(self.path, "X/indptr"):
            self.row_pointers = self._file["X/indptr"][:].astype(np.int64)
        self._check_pointers(elements)
        names, self.label_codes = self._categorical("labels", row_count)
        if len(names) != 2:
            raise DataError(f"{self.path}: labels: found {len(names)} classes {names[:5]}, expected two")
        if _first_is_larger(names):
            names, self.label_codes = names[::-1], 1 - self.label_codes
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
                    f"{self.path}: {name}: found {dtype} of shape {shape},"
                    f" expected {expected} of one dimension"
                )
            return int(shape[0])

    def _check_pointers(self, elements: int) -> None:
        """Raise DataError unless the pointers go from 0 to the number of elements without a step back."""
        pointers = self.row_pointers
        drops = np.flatnonzero(np.diff(pointers) < 0)
        if len(drops):
            row = int(drops[0])
            raise DataError(
                f"{self.path}: row {row}: row pointers decrease: found {pointers[row]} then"
                f" {pointers[row + 1]}, expected the second to be at least the first"
            )
        if pointers[0] != 0 or pointers[-1] != elements:
            raise DataError(
                f"{self.path}: X/indptr: found {pointers[0]} to {pointers[-1]}, expected 0 to the"
                f" {elements} elements there are"
            )

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
                f"{self.path}: {name} of row {row}: found code {codes[row]},"
                f" expected 0 <= code < {len(categories)}"
            )
        return categories, codes.astype(np.int8)


class DatasetWriter:
    """Writes a data set's file in blocks, under another name beside the target until it is complete.

    As a context manager: leaving without `finish`, by an exception or not, removes what was written and
    leaves an older file of the target's name as it was.

    column_count  the width of the widest rows so far
    elements      the number of elements so far
    """

    def __init__(self, path: Path, *, force: bool) -> None:
        """Start the file.

        Raises:
            UsageError: the target exists and `force` is not set, or is a directory.
            RunError: the directory is missing or cannot be written.

        """
        if path.is_dir():
            raise UsageError(f"{path}: found a directory, expected the name of a file to write")
        if path.exists() and not force:
            raise UsageError(f"{path} exists: pass --force to replace it, or choose another name")
        self._path = path
        self._partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        self.column_count = self.elements = 0
        self._lengths: list[NDArray[np.int64]] = []
        self._splits: list[str] = []
        self._finished = False
        with self._writing():
            self._output = _Output(self._partial, "w+")
        self._file = h5py.File(self._output, "w")

    def append(self, split: str, rows: SparseRows) -> None:
        """Write rows at the end of the file as rows of a split.

        Raises:
            RunError: the disk is full or fails.

        """
        rows = rows.compact()
        columns = rows.columns.astype(index_dtype(0, rows.column_count), copy=False)
        with self._writing():
            for name, part in (("X/data", rows.values), ("X/indices", columns)):
                if name in self._file:
                    array = self._file[name]
                    array.resize(len(array) + len(part), axis=0)
                    array[len(array) - len(part) :] = part
                else:
                    self._create(name, part, CHUNK)
        self._lengths.append(np.diff(rows.row_pointers).astype(np.int64))
        self._splits.append(split)
        self.column_count = max(self.column_count, rows.column_count)
        self.elements += rows.elements

    def finish(self, positive: NDArray[np.bool_], classes: tuple[str, str]) -> None:
        """Write the rest, make sure that it is on disk, and give the file its name.

        positive (rows,) says of every row in the order written whether it is of the second of the classes.

        Raises:
            RunError: the disk is full or fails.

        """
        names = list(dict.fromkeys(self._splits))
        sizes = [len(lengths) for lengths in self._lengths]
        codes = np.repeat([names.index(split) for split in self._splits], sizes)
        pointers = np.concatenate([[0], np.cumsum(np.concatenate(self._lengths))])
        with self._writing():
            file = self._file
            file.attrs.update(format=FORMAT, format_version=FORMAT_VERSION, created_by=_created_by())
            self._create("X/indptr", pointers, min(CHUNK, len(pointers)))
            file["X"].attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
            file["X"].attrs["shape"] = np.array([len(codes), self.column_count], np.int64)
            self._write_categorical("labels", positive.astype(np.int8), list(classes))
            self._write_categorical("split", codes.astype(np.int8), names)
            file.close()
        with self._writing():
            os.fsync(self._output.fileno())
            self._output.close()
            self._partial.replace(self._path)
            _names_to_disk(self._path.parent)
        self._finished = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if not self._finished:
            with suppress(*_H5PY_ERRORS):
                self._file.close()
            with suppress(OSError):
                self._output.close()
            self._partial.unlink(missing_ok=True)

    def _create(self, name: str, content: NDArray[Any], chunk: int) -> None:
        """Write a new array that can grow, with a checksum for every chunk."""
        self._file.create_dataset(name, data=content, chunks=(chunk,), maxshape=(None,), fletcher32=True)

    def _write_categorical(self, name: str, codes: NDArray[np.int8], categories: list[str]) -> None:
        """Write a group in AnnData's encoding of a categorical."""
        self._create(f"{name}/codes", codes, min(CHUNK, max(1, len(codes))))
        group = self._file[name]
        group.attrs.update({"encoding-type": "categorical", "encoding-version": "0.2.0", "ordered": False})
        group.create_dataset("categories", data=categories, dtype=h5py.string_dtype())
        attributes = {"encoding-type": "string-array", "encoding-version": "0.2.0"}
        group["categories"].attrs.update(attributes)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn what a failing disk raises, or has been kept from raising, into a RunError."""
        try:
            yield
            if self._output.failure:
                raise self._output.failure
        except (OSError, RuntimeError, ValueError) as error:
            raise RunError(f"{self._path}: cannot be written: {_reason(error)}") from None


class _Output(io.FileIO):
    """A file that keeps its first failure in `failure`, and after it only pretends to be written.

    HDF5 objects whose last bytes cannot be written raise from destructors, where nothing can catch it and
    Python prints a traceback for each. So HDF5 is not told; `DatasetWriter` looks at `failure` instead.
    """

    failure: OSError | None = None

    def write(self, content: Any, /) -> int:
        """Write all of the content."""
        left = memoryview(content).cast("B")
        size = len(left)
        while left and not self.failure:
            with self._kept():
                left = left[super().write(left) :]
        return size

    def truncate(self, size: int | None = None, /) -> int:
        """Set the size of the file."""
        with self._kept():
            super().truncate(size)
        return self.tell() if size is None else size

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """Keep a failure instead of raising it."""
        try:
            yield
        except OSError as error:
            self.failure = self.failure or error


@contextmanager
def _reading(path: Path, part: str) -> Iterator[None]:
    """Turn whatever h5py raises on a damaged or foreign file into a DataError that names the part."""
    try:
        yield
    except _H5PY_ERRORS as error:
        raise DataError(f"{path}: {part} cannot be read: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """Return an error of the system or of h5py in one line."""
    return getattr(error, "strerror", None) or " ".join(str(error).split()).strip("\"'")


def _text(item: object) -> str:
    """Return a string of the file, which h5py may give as bytes."""
    return item.decode("utf-8") if isinstance(item, bytes) else str(item)


def _expect(path: Path, name: str, found: int, expected: int) -> None:
    """Raise DataError unless an array is as long as another part of the file says."""
    if found != expected:
        raise DataError(f"{path}: {name}: found length {found}, expected {expected}")


def _first_is_larger(classes: list[str]) -> bool:
    """Tell whether both classes are numbers and the first is the larger: then it is the positive one."""
    try:
        return float(classes[0]) > float(classes[1])
    except ValueError:
        return False


def _created_by() -> str:
    """Return the program's name and version."""
    try:
        return f"mpisgd {version('mpisgd')}"
    except PackageNotFoundError:  # a source tree that was never installed
        return "mpisgd"


def _names_to_disk(directory: Path) -> None:
    """Wait until the names in a directory are on the disk itself."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
