"""svmlight text: what is read, and that every fault is named with its line."""

from __future__ import annotations

import bz2
import gzip
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpisgd.data import text_rows
from mpisgd.data.text_lines import FLOAT32_LIMIT, parse_lines
from mpisgd.data.text_rows import TextBlock, read_blocks
from mpisgd.errors import DataError
from mpisgd.sparse_rows import concatenate

COMPRESSIONS = {"plain": lambda text: text, "gzip": gzip.compress, "bzip2": bz2.compress}

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
labels = st.sampled_from(["1", "+1", "-1", "0", "2", "1.0", "-1e0", ".5"])
blanks = st.sampled_from([" ", " ", " ", "  ", "\t", " \t "])
line_ends = st.sampled_from(["\n", "\n", "\n", "\r\n", " \n", " # a:b comment\n", "\n\n", "\n# alone\n"])


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Legal text in many guises."""
    lines = []
    for label in draw(st.lists(labels, min_size=1, max_size=8)):
        row = draw(st.dictionaries(st.integers(1, 40), finite, max_size=6))
        columns = draw(st.permutations(sorted(row))) if draw(st.booleans()) else sorted(row)
        query = draw(st.sampled_from(["", "", "", "qid:7"]))
        words = [label, *([query] if query else []), *(f"{column}:{row[column]!r}" for column in columns)]
        lines.append("".join(word + draw(blanks) for word in words[:-1]) + words[-1] + draw(line_ends))
    text = "".join(lines)
    return text.rstrip("\r\n ") if draw(st.booleans()) else text


def naive(text: str) -> list[tuple[float, dict[int, float]]]:
    """Read text as slowly and plainly as can be."""
    rows = []
    for line in text.splitlines():
        words = [word for word in line.split("#")[0].split() if not word.startswith("qid:")]
        if words:
            pairs = [word.split(":") for word in words[1:]]
            row = {int(column) - 1: float(np.float32(float(value))) for column, value in pairs}
            rows.append((float(words[0]), row))
    return rows


def as_dicts(blocks: list[TextBlock]) -> list[tuple[float, dict[int, float]]]:
    """Return what was read in the form of `naive`."""
    rows = concatenate([block.rows for block in blocks], 50)
    found = np.concatenate([block.labels for block in blocks])
    parts = [rows.part(i, i + 1).compact() for i in range(len(rows))]
    return [
        (label, dict(zip(part.columns.tolist(), part.values.tolist(), strict=True)))
        for label, part in zip(found.tolist(), parts, strict=True)
    ]


def read(content: bytes, name: str = "rows.svm", block_bytes: int = 1000) -> list[TextBlock]:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / name
        path.write_bytes(content)
        return list(read_blocks(path, block_bytes=block_bytes))


@settings(max_examples=60, deadline=None)  # each example writes to the disk
@given(texts(), st.sampled_from(sorted(COMPRESSIONS)), st.integers(1, 200))
def test_text_is_read_as_a_plain_reader_reads_it(text: str, compression: str, block_bytes: int) -> None:
    blocks = read(COMPRESSIONS[compression](text.encode()), "any.name", block_bytes)
    assert as_dicts(blocks) == naive(text)
    for block in blocks:
        for start, stop in zip(block.rows.row_pointers[:-1], block.rows.row_pointers[1:], strict=True):
            assert (np.diff(block.rows.columns[start:stop]) > 0).all()


@settings(max_examples=50, deadline=None)
@given(texts())
def test_every_row_knows_its_line(text: str) -> None:
    expected = [i for i, line in enumerate(text.split("\n"), 1) if line.split("#")[0].strip()]
    assert [line for block in read(text.encode(), block_bytes=30) for line in block.lines] == expected


rough = st.lists(
    st.one_of(
        st.sampled_from([" ", "\n", ":", "1", "-1", "2:3", " 4:.5", " 5:1e3", "e", ".", "-", "+", "7", "1e39", "\t"]),
        st.text("0123456789+-.eE: \n\t\r", max_size=4),
    ),
    max_size=14,
).map(lambda parts: "".join(parts).encode())


def assert_read_alike(text: bytes) -> None:
    """What the fast reader accepts, the slow one reads as the same."""
    fast = text_rows._parse_block(text, 5)
    if fast is not None:
        slow = parse_lines(text, 5, Path("rows.svm"))
        for field in ("labels", "row_pointers", "columns", "values", "lines"):
            np.testing.assert_array_equal(getattr(fast, field), getattr(slow, field))
            assert getattr(fast, field).dtype == getattr(slow, field).dtype
        assert fast.spellings == slow.spellings


@settings(deadline=None)
@given(st.one_of(rough, texts().map(str.encode)))
def test_the_fast_reader_accepts_nothing_the_slow_one_reads_otherwise(text: bytes) -> None:
    assert_read_alike(text)


ODD_WORDS = (
    '+ - +1 +-1 -+1 ++1 1+2 1-2 [1] [] [ ] {} { } 1] [1 [1,2] null true false NaN Infinity inf nan "1" " \' , 1, ,1 1,2'
    " ; 0x1 1_0 01 -01 00 0 -0 0.0 -0.0 0e0 1. .5 -.5 . e e1 1e 1e+ 1e5 1E5 1e+05 1e-05 1e+5 1.e5 1e2 1.0 1e400 1e39"
    " 1e-400 1e-46 3.4028235e38 3.4028236e38 3.4028234663852886e38 2147483647 2147483648 4294967297"
    " 9007199254740993 9223372036854775807 9223372036854775808 18446744073709551615 18446744073709551616"
    " 123456789012345678901234567890 -9223372036854775809 /*1*/ //1 \\1 \x0b \x0c \x1f \x85 \xa0 \xb2 ? 1?2 :"
)


@pytest.mark.parametrize("word", ODD_WORDS.split(" "))
@pytest.mark.parametrize(
    "line", ["{}", "{} 1:1", "1 {}:1", "1 1:{}", "1 1:{} 2:1", "1 {}", "1 1:1 {} 2:1", "1 1:1\n{}:1"]
)
def test_no_odd_word_is_taken_for_a_number(line: str, word: str) -> None:
    for before in ("", "+1 1:1\n"):
        text = f"{before}{line.format(word)}\n".encode("latin-1")
        try:
            parse_lines(text, 5, Path("rows.svm"))
        except DataError:
            assert text_rows._parse_block(text, 5) is None
        else:
            assert_read_alike(text)


numbers = st.from_regex(r"-?(0|[1-9][0-9]{0,24})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?", fullmatch=True)


@settings(deadline=None)
@given(st.lists(numbers, min_size=1))
def test_values_are_rounded_as_python_rounds(words: list[str]) -> None:
    words = [word for word in words if abs(float(word)) < FLOAT32_LIMIT and abs(int(float(word))) < 2**64]
    line = "1 " + " ".join(f"{column}:{word}" for column, word in enumerate(words, 1)) + "\n"
    fast = text_rows._parse_block(line.encode(), 1)
    if fast is None:  # whole numbers that 64 bits do not hold
        assert any(len(word.lstrip("-")) >= 19 for word in words)
    else:
        assert fast.values.tolist() == [float(np.float32(float(word))) for word in words]


@pytest.mark.parametrize(
    "text", [b"-1 1:0.5 3:1e-3\n+1\n-1 2:0 \n", b"1\t1:2\r\n0 7:-0.5\r\n", b"12  3:4 9:1", b"1\n2\n", b"+1 1:1e+05\n"]
)
def test_text_as_programs_write_it_takes_the_fast_way(text: bytes) -> None:
    assert text_rows._parse_block(text, 1) is not None


def test_labels_keep_their_first_spelling() -> None:
    (block,) = read(b"+1 1:1\n1 1:1\n-1.0 1:1\n1.0 2:1\n")
    assert block.spellings == {1.0: "+1", -1.0: "-1.0"}
    assert block.labels.tolist() == [1, 1, -1, 1]


def test_a_block_tells_how_far_the_file_is_read() -> None:
    text = b"1 1:1\n" * 100
    positions = [block.position for block in read(text, block_bytes=60)]
    assert len(positions) == 10
    assert positions == sorted(positions)
    assert positions[-1] == len(text)


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("1 4:abc", ["found '4:abc'", "expected column:value with a number after the colon"]),
        ("1 4:", ["found '4:'", "expected column:value"]),
        ("1 :3", ["found ':3'", "expected column:value"]),
        ("1 3", ["found '3'", "expected column:value"]),
        ("1 3:4:5", ["found '3:4:5'"]),
        ("1 3:1-2 5:e", ["found '3:1-2'"]),
        ("one 1:1", ["found 'one'", "expected a label"]),
        ("1,2 1:1", ["found '1,2'", "expected a label"]),
        ("nan 1:1", ["found 'nan'", "expected a label"]),
        ("1e999 1:1", ["found '1e999'", "expected a label"]),
        ("1 -4:1", ["found '-4:1'", "whole column from 1 on"]),
        ("1 1.5:1", ["found '1.5:1'", "whole column from 1 on"]),
        ("1 1e2:1", ["found '1e2:1'", "whole column from 1 on"]),
        ("1 0:1 1:1", ["found '0:1'", "columns from 1 on", "add one to every column"]),
        ("1 2147483648:1", ["found '2147483648:1'", "up to 2147483647"]),
        ("1 " + "9" * 5000 + ":1", ["up to 2147483647"]),
        ("1 2:nan", ["found '2:nan'", "expected column:value with a number"]),
        ("1 2:inf", ["found '2:inf'"]),
        ("1 2:1e39", ["found '2:1e39'", "fits in 32 bits"]),
        ("1 2:1_0", ["found '2:1_0'"]),
        ("1 2:1 2:3", ["column 2 twice"]),
        ("1 qid:x 2:1", ["found 'qid:x'"]),
        ("1 2:1 qid:3", ["found 'qid:3'"]),
        ("\xff\xfe\x07", ["found '\\xff\\xfe\\x07'"]),
    ],
)
@pytest.mark.parametrize("before", ["-1 1:1\n1 2:1\n", "# a comment\n-1 1:1\n"])
def test_a_fault_is_named_with_its_line(line: str, parts: list[str], before: str) -> None:
    with pytest.raises(DataError) as caught:
        read(f"{before}{line}\n1 1:1\n".encode("latin-1"))
    message = str(caught.value)
    assert "rows.svm: line 3: " in message
    assert "\n" not in message
    assert len(message) < 300
    for part in parts:
        assert part in message


def test_lines_are_counted_over_blocks() -> None:
    with pytest.raises(DataError, match=r"rows\.svm: line 51: found '2:x'"):
        read(b"1 1:1\n" * 50 + b"1 2:x\n", block_bytes=20)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "found no rows"),
        (b"# nothing\n\n", "found no rows"),
        (b"\x00\x01\x02" * 50, "found binary data"),
        (gzip.compress(b"1 1:1\n" * 1000)[:-30], "cut-off compressed file"),
        (bz2.compress(b"1 1:1\n" * 1000)[:-10], "cut-off compressed file"),
        (bz2.compress(b"1 1:1\n" * 1000)[:20] + b"rubbish" * 20, "cannot be read"),
        (gzip.compress(b"1 1:1\n" * 1000)[:20] + b"\xff" * 60, "cannot be read"),
    ],
)
def test_a_file_that_is_no_text_is_named(content: bytes, part: str) -> None:
    with pytest.raises(DataError, match=part) as caught:
        read(content)
    assert "rows.svm" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_directory_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.svm: cannot be read: No such file"):
        list(read_blocks(tmp_path / "none.svm"))
    with pytest.raises(DataError, match="found a directory"):
        list(read_blocks(tmp_path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_forbidden_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.svm"
    path.write_text("1 1:1\n")
    path.chmod(0)
    with pytest.raises(DataError, match=r"rows\.svm: cannot be read: Permission denied"):
        list(read_blocks(path))
