"""svmlight (LIBSVM) text, plain, gzip or bzip2: `label column:value column:value ...`, one row a line.

A file is read in blocks of whole lines, so memory is bounded by a block and not by the file. Each block goes
through NumPy at once (`_parse_block`) if it is as programs write it. Anything else in it, be it a comment, a
`qid` or a fault, sends the block through the reader that takes one line at a time (`text_lines`).
"""

from __future__ import annotations

import bz2
import gzip
import warnings
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from mpisgd.data.text_lines import FLOAT32_LIMIT, Parsed, parse_lines
from mpisgd.errors import DataError
from mpisgd.sparse_rows import INT32_MAX, SparseRows

BLOCK_BYTES = 16_000_000

_GZIP, _BZIP2 = b"\x1f\x8b", b"BZh"
_NUMBER_BYTES = b"0123456789+-.eE"


@dataclass(frozen=True, slots=True)
class TextBlock:
    """Some consecutive rows of a text file.

    rows       column_count is one more than the largest column in this block; columns count from 0
    labels     (rows,) float64, as they stand in the file
    spellings  for each distinct label of the block how its first occurrence is spelled, such as "+1"
    lines      (rows,) int64, the number of each row's line, counted from 1
    path       the file
    position   bytes read so far from the file as it is on disk, that is compressed
    """

    rows: SparseRows
    labels: NDArray[np.float64]
    spellings: dict[float, str]
    lines: NDArray[np.int64]
    path: Path
    position: int


def read_blocks(path: Path, *, block_bytes: int = BLOCK_BYTES) -> Iterator[TextBlock]:
    """Read a file's rows in order, about `block_bytes` of uncompressed text at a time.

    Raises:
        DataError: no such file, no rows, damaged compression, or a line that is not svmlight; it is named.

    """
    rows_seen = 0
    for text, first_line, position in _text_blocks(path, block_bytes):
        parsed = _parse_block(text, first_line)
        if parsed is None:
            parsed = parse_lines(text, first_line, path)
        if len(parsed.labels):
            rows_seen += len(parsed.labels)
            yield _text_block(parsed, path, position)
    if not rows_seen:
        raise DataError(f"{path}: found no rows, expected lines of 'label column:value column:value ...'")


def file_bytes(path: Path) -> int:
    """Return the size on disk of a file that is about to be read.

    Raises:
        DataError: it is missing or no file.

    """
    try:
        if path.is_dir():
            raise DataError(f"{path}: found a directory, expected a file of rows")
        return path.stat().st_size
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def read_lines(path: Path) -> Iterator[bytes]:
    """Read the lines of a plain, gzip or bzip2 file, without their ends.

    Raises:
        DataError: no such file, or damaged compression.

    """
    for text, _, _ in _text_blocks(path, BLOCK_BYTES):
        yield from text.splitlines()


def _text_blocks(path: Path, block_bytes: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield (whole lines, the number of the first, compressed bytes read so far)."""
    file_bytes(path)
    first_line = 1
    try:
        with path.open("rb") as raw, closing(_decompressed(raw)) as file:
            while text := file.read(block_bytes):
                if b"\0" in text:
                    raise DataError(f"{path}: line {first_line} or later: found binary data, expected text")
                text += file.readline()
                yield text, first_line, raw.tell()
                first_line += text.count(b"\n")
    except EOFError:
        raise DataError(f"{path}: found the end of a cut-off compressed file, expected more data") from None
    except (OSError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be read: {reason}") from None


def _decompressed(raw: BinaryIO) -> BinaryIO:
    """Return the file's text; the first bytes tell how it is compressed, whatever its name."""
    start = raw.read(3)
    raw.seek(0)
    if start.startswith(_GZIP):
        return cast(BinaryIO, gzip.GzipFile(fileobj=raw))
    return cast(BinaryIO, bz2.BZ2File(raw)) if start == _BZIP2 else raw


def _text_block(parsed: Parsed, path: Path, position: int) -> TextBlock:
    """Return the block as the rest of the program sees it."""
    rows = SparseRows.checked(
        parsed.values,
        parsed.columns,
        parsed.row_pointers,
        int(parsed.columns.max(initial=-1)) + 1,
        where=str(path),
    )
    return TextBlock(rows, parsed.labels, parsed.spellings, parsed.lines, path, position)


def _parse_block(text: bytes, first_line: int) -> Parsed | None:
    """Parse whole lines at once; None where anything is other than programs write it."""
    text = _one_blank(text)
    found = np.frombuffer(text, np.uint8)
    if found.size == 0 or text.translate(None, _NUMBER_BYTES + b": \n"):
        return None
    ends = np.flatnonzero((found == ord(" ")) | (found == ord(":")) | (found == ord("\n")))
    line_ends = np.flatnonzero(found[ends] == ord("\n"))
    numbers_in_line = np.diff(line_ends, prepend=-1)
    starts = np.concatenate([[0], ends[:-1] + 1])
    if (starts == ends).any() or (numbers_in_line % 2 == 0).any():
        return None
    # A line is label, column, value, column, value ...: its numbers with an odd place are columns.
    place = np.arange(len(ends)) - np.repeat(line_ends - numbers_in_line + 1, numbers_in_line)
    is_column = place % 2 == 1
    if not np.array_equal(found[ends] == ord(":"), is_column) or not _whole_columns(found):
        return None
    numbers = _numbers(text)
    if numbers is None or len(numbers) != len(ends):
        return None
    is_label = place == 0
    pointers = np.concatenate([[0], np.cumsum(numbers_in_line // 2)])
    columns, values, labels = numbers[is_column], numbers[~is_column & ~is_label], numbers[is_label]
    if not _in_range(labels, values) or not _increasing(columns, pointers):
        return None
    first = np.unique(labels, return_index=True)[1]
    spans = zip(labels[first].tolist(), starts[is_label][first], ends[is_label][first], strict=True)
    spellings = {label: text[start:end].decode("ascii") for label, start, end in spans}
    lines = np.arange(first_line, first_line + len(labels))
    return Parsed(labels, pointers, columns.astype(np.int64) - 1, values, spellings, lines)


def _one_blank(text: bytes) -> bytes:
    """Return the text with one blank between numbers, none at the ends of lines, and a last newline."""
    for seen, meant in ((b"\t", b" "), (b"\r\n", b"\n"), (b"  ", b" "), (b" \n", b"\n")):
        if seen in text:
            text = text.replace(seen, meant)
    return text if text.endswith(b"\n") else text.rstrip(b" ") + b"\n"


def _whole_columns(found: NDArray[np.uint8]) -> bool:
    """Tell whether columns are digits only: with all digits out, a blank precedes each ':'."""
    rest = found[(found < ord("0")) | (found > ord("9"))]
    return bool((rest[np.flatnonzero(rest == ord(":")) - 1] == ord(" ")).all())


def _numbers(text: bytes) -> NDArray[np.float64] | None:
    """Read numbers parted by ':' and white space; None if anything else is there."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # how NumPy says that it stopped before the end
            return np.fromstring(text.replace(b":", b" ").decode("ascii"), sep=" ")
    except (ValueError, DeprecationWarning):
        return None


def _in_range(labels: NDArray[np.float64], values: NDArray[np.float64]) -> bool:
    """Tell whether all labels are finite and all values within float32."""
    return bool(np.isfinite(labels).all() and (np.abs(values) < FLOAT32_LIMIT).all())


def _increasing(columns: NDArray[np.float64], pointers: NDArray[np.int64]) -> bool:
    """Tell whether columns, counted from 1 here, are in range and increase within each row."""
    if columns.min(initial=1) < 1 or columns.max(initial=1) > INT32_MAX:
        return False
    increases = np.ones(len(columns) + 1, np.bool_)
    increases[1:-1] = columns[1:] > columns[:-1]
    increases[pointers] = True  # the first of a row need not exceed the last of the row before
    return bool(increases.all())
