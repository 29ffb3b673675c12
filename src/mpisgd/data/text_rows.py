"""svmlight (LIBSVM) text, plain, gzip or bzip2: `label column:value column:value ...`, one row a line.

A file is read in blocks of whole lines, so memory is bounded by a block and not by the file. Each block that is as
programs write it (`_parse_block`) becomes one JSON array of numbers, since JSON has parsers that take many bytes in
one instruction. Anything else in it, be it a comment, a `qid` or a fault, sends the block through the reader that
takes one line at a time (`text_lines`).
"""

from __future__ import annotations

import bz2
import gzip
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from mpisgd.data.text_lines import Parsed, parse_lines
from mpisgd.errors import DataError
from mpisgd.sparse_rows import INT32_MAX, SparseRows

BLOCK_BYTES = 500_000  # what is made of a block stays in a core's cache

_GZIP, _BZIP2 = b"\x1f\x8b", b"BZh"
_DIGITS, _MARKS = b"0123456789", b"+-.eE"  # what numbers are made of
# Commas for what stands between numbers, and for anything else but numbers what no JSON has.
_AS_JSON = bytes(byte if byte in _DIGITS + _MARKS else ord(",") if byte in b" :\n" else ord("?") for byte in range(256))


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
                first_line += int(np.count_nonzero(np.frombuffer(text, np.uint8) == ord("\n")))
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
    text = text if text.endswith(b"\n") else text.rstrip(b" ") + b"\n"
    parsed = _parse_plain(text, first_line)
    if parsed is None and (tidied := _one_blank(text)) != text:
        return _parse_plain(tidied, first_line)
    return parsed


def _one_blank(text: bytes) -> bytes:
    """Return the text with one blank between numbers and none at the ends of lines."""
    for seen, meant in ((b"\t", b" "), (b"\r\n", b"\n"), (b"  ", b" "), (b" \n", b"\n")):
        if seen in text:
            text = text.replace(seen, meant)
    return text


def _parse_plain(text: bytes, first_line: int) -> Parsed | None:
    """Parse lines of `label column:value column:value ...`; None if anything is spelled in another way."""
    pointers = _row_pointers(text)
    if pointers is None:
        return None
    ends = np.flatnonzero(np.frombuffer(text, np.uint8) == ord("\n"))
    starts = np.concatenate([[0], ends[:-1] + 1])
    numbers = _numbers(text, starts)
    if numbers is None or len(numbers) != len(ends) + 2 * pointers[-1]:
        return None
    is_label = 2 * pointers[:-1] + np.arange(len(ends))
    labels, pairs = numbers[is_label], np.delete(numbers, is_label).reshape(-1, 2)
    with np.errstate(over="ignore"):
        values = pairs[:, 1].astype(np.float32)
    columns = _columns(pairs[:, 0], pointers)
    if columns is None or not np.isfinite(values).all():
        return None
    first = np.unique(labels, return_index=True)[1]
    spans = zip(labels[first].tolist(), starts[first].tolist(), ends[first].tolist(), strict=True)
    spellings = {label: text[start:end].partition(b" ")[0].decode("ascii") for label, start, end in spans}
    lines = np.arange(first_line, first_line + len(labels))
    return Parsed(labels, pointers, columns, values, spellings, lines)


def _row_pointers(text: bytes) -> NDArray[np.int64] | None:
    """Count elements up to each row; None unless blanks, colons and line ends stand as they should.

    With all digits out, a blank and a colon are neighbours exactly where a whole column, or nothing, was between
    them. If there is nothing but such pairs and line ends, then every line is a label, column, value, column ...
    """
    rest = text.translate(None, _DIGITS)
    parting = rest.translate(None, _MARKS)
    near = np.frombuffer(rest, np.uint8)
    pairs = np.count_nonzero((near[:-1] == ord(" ")) & (near[1:] == ord(":")))
    ends = np.flatnonzero(np.frombuffer(parting, np.uint8) == ord("\n"))
    if len(parting) != 2 * pairs + len(ends):
        return None
    return np.concatenate([[0], (ends - np.arange(len(ends))) // 2])


def _numbers(text: bytes, starts: NDArray[np.int64]) -> NDArray[np.float64] | None:
    """Read all numbers of lines, of which `starts` are the first bytes, as one JSON array; None if it is none."""
    listed = bytearray(b"[") + text.translate(_AS_JSON)
    listed[-1] = ord("]")
    found = np.frombuffer(listed, np.uint8)
    plus = starts[found[starts + 1] == ord("+")] + 1
    if (found[plus + 1] == ord("-")).any():
        return None
    found[plus] = ord(" ")  # JSON knows no sign before a number but "-"
    try:
        return np.frombuffer(_parser().parse(listed).as_buffer(of_type="d"), np.float64)
    except (ValueError, RuntimeError):  # what simdjson raises on any text that it refuses
        return None


@cache
def _parser() -> Any:
    """Return the JSON parser, which keeps its memory from one block to the next."""
    import simdjson  # noqa: PLC0415 - rank 0 alone reads text

    return simdjson.Parser()


def _columns(numbers: NDArray[np.float64], pointers: NDArray[np.int64]) -> NDArray[np.int32] | None:
    """Return columns counted from 0; None unless they are in range and increase within each row."""
    if numbers.min(initial=1) < 1 or numbers.max(initial=1) > INT32_MAX:
        return None
    columns = numbers.astype(np.int32) - np.int32(1)
    increases = np.ones(len(columns) + 1, np.bool_)
    np.greater(columns[1:], columns[:-1], out=increases[1:-1])
    increases[pointers] = True  # the first of a row need not exceed the last of the row before
    return columns if increases.all() else None
