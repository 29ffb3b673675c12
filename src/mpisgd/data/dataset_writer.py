"""Writes the HDF5 file of a data set (its layout: `dataset_file`), block by block; it is there whole or not at all."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from mpisgd import __version__
from mpisgd.data.dataset_file import FORMAT, FORMAT_VERSION, H5PY_ERRORS, one_line
from mpisgd.errors import RunError, UsageError
from mpisgd.interrupt import signals_wait
from mpisgd.sparse_rows import SparseRows

CHUNK = 1 << 15  # elements: 128 kB of float32, so that small files stay small; larger is no faster
GATHER = 1 << 18  # elements written at once: whole chunks go past HDF5's cache, and that is twice as fast


class DatasetWriter:
    """Writes a data set's file in blocks, under another name beside the target until it is complete.

    As a context manager: leaving without `finish`, by an exception, a signal or neither, removes what was written and
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
        self._gathered: list[SparseRows] = []
        self._written = 0
        self._arrays: dict[str, Any] = {}  # kept open: HDF5 writes and forgets the last, partial chunk of a closed one
        self._lengths: list[NDArray[np.int64]] = []
        self._splits: list[str] = []
        self._finished = False
        try:
            with self._writing():
                self._output = _Output(self._partial, "w+")
                self._file = h5py.File(self._output, "w")
        except BaseException:
            self._discard()
            raise

    def append(self, split: str, rows: SparseRows) -> None:
        """Add rows at the end of the file as rows of a split; they are written when there are many.

        Raises:
            RunError: the disk is full or fails.

        """
        rows = rows.compact()
        self._gathered.append(rows)
        self._lengths.append(np.diff(rows.row_pointers).astype(np.int64))
        self._splits.append(split)
        self.column_count = max(self.column_count, rows.column_count)
        self.elements += rows.elements
        if self.elements - self._written >= GATHER:
            self._write_gathered()

    def finish(self, positive: NDArray[np.bool_], classes: tuple[str, str]) -> None:
        """Write the rest, make sure that it is on disk, and give the file its name.

        positive (rows,) says of every row in the order written whether it is of the second of the classes.

        Raises:
            RunError: the disk is full or fails.

        """
        self._write_gathered()
        names = list(dict.fromkeys(self._splits))
        sizes = [len(lengths) for lengths in self._lengths]
        codes = np.repeat([names.index(split) for split in self._splits], sizes)
        pointers = np.concatenate([[0], np.cumsum(np.concatenate(self._lengths))])
        with self._writing():
            file = self._file
            file.attrs.update(format=FORMAT, format_version=FORMAT_VERSION, created_by=f"mpisgd {__version__}")
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
            self._discard()

    def _discard(self) -> None:
        """Close and remove what was written; where the start failed there is no attribute to close."""
        with signals_wait():
            with suppress(*H5PY_ERRORS):
                self._file.close()
            with suppress(OSError, AttributeError):
                self._output.close()
            self._partial.unlink(missing_ok=True)

    def _write_gathered(self) -> None:
        """Write the elements that are only in memory so far."""
        parts, self._gathered, self._written = self._gathered, [], self.elements
        if not parts:
            return
        with self._writing():
            self._extend("X/data", np.concatenate([part.values for part in parts]))
            self._extend("X/indices", np.concatenate([part.columns for part in parts]))

    def _extend(self, name: str, content: NDArray[Any]) -> None:
        """Write at the end of an array."""
        if name not in self._arrays:
            self._arrays[name] = self._create(name, content, CHUNK)
            return
        array = self._arrays[name]
        array.resize(len(array) + len(content), axis=0)
        array[len(array) - len(content) :] = content

    def _create(self, name: str, content: NDArray[Any], chunk: int) -> Any:
        """Write a new array that can grow, with a checksum for every chunk."""
        return self._file.create_dataset(name, data=content, chunks=(chunk,), maxshape=(None,), fletcher32=True)

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
        """Turn what a failing disk raises, or has been kept from raising, into a RunError; signals wait."""
        try:
            with signals_wait():
                yield
            if self._output.failure:
                raise self._output.failure
        except (OSError, RuntimeError, ValueError) as error:
            raise RunError(f"{self._path}: cannot be written: {one_line(error)}") from None


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


def _names_to_disk(directory: Path) -> None:
    """Wait until the names in a directory are on the disk itself."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
