"""Data sets: what is written is what is read, whatever the blocks, and damaged files are named."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mpisgd.data import dataset_writer
from mpisgd.data.dataset import Block, Dataset, Hdf5Dataset, MemoryDataset, open_dataset
from mpisgd.data.dataset_writer import DatasetWriter
from mpisgd.data.text_rows import read_blocks
from mpisgd.errors import DataError, RunError, UsageError
from mpisgd.interrupt import SignalledError, interruptible
from mpisgd.sparse_rows import SparseRows, concatenate

Row = list[tuple[int, float]]

row_lists = st.lists(
    st.lists(st.tuples(st.integers(0, 8), st.floats(-4, 4, width=32)), max_size=5, unique_by=lambda pair: pair[0]),
    max_size=12,
)


def sparse(rows: list[Row], column_count: int = 9) -> SparseRows:
    pairs = [pair for row in rows for pair in row]
    return SparseRows.checked(
        np.array([value for _, value in pairs], np.float32),
        np.array([column for column, _ in pairs], np.int32),
        np.cumsum([0, *map(len, rows)]),
        column_count,
        where="test",
    )


def write(path: Path, parts: list[tuple[str, SparseRows]], positive: list[bool]) -> None:
    with DatasetWriter(path, force=True) as writer:
        for split, rows in parts:
            writer.append(split, rows)
        writer.finish(np.array(positive, np.bool_), ("-1", "+1"))


def dense(rows: SparseRows) -> NDArray[np.float32]:
    full = np.zeros((len(rows), rows.column_count), np.float32)
    places = np.repeat(np.arange(len(rows)), np.diff(rows.row_pointers))
    packed = rows.compact()
    full[places, packed.columns] = packed.values
    return full


def joined(blocks: list[Block], column_count: int) -> tuple[NDArray[np.float32], list[float]]:
    """Return the rows and labels of all blocks after a look at their places and widths."""
    place = 0
    for block in blocks:
        assert block.first == place
        assert block.rows.column_count == column_count
        assert block.labels.dtype == np.float32
        assert len(block.labels) == len(block.rows)
        place += len(block.rows)
    rows = concatenate([block.rows for block in blocks], column_count)
    return dense(rows), [label for block in blocks for label in block.labels.tolist()]


@settings(max_examples=40, deadline=None)  # each example writes to the disk
@given(st.lists(st.tuples(st.sampled_from(["train", "test"]), row_lists), min_size=1, max_size=4), st.data())
def test_a_file_read_in_any_blocks_equals_memory(parts: list[tuple[str, list[Row]]], data: st.DataObject) -> None:
    count = sum(len(rows) for _, rows in parts)
    positive = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    by_split: dict[str, tuple[list[Row], list[float]]] = {split: ([], []) for split, _ in parts}
    signs = iter(positive)
    for split, rows in parts:
        by_split[split][0].extend(rows)
        by_split[split][1].extend(1.0 if next(signs) else -1.0 for _ in rows)
    memory = MemoryDataset(
        "generated",
        9,
        ("-1", "+1"),
        {split: (sparse(rows), np.array(signs, np.float32)) for split, (rows, signs) in by_split.items()},
    )
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "rows.h5"
        write(path, [(split, sparse(rows)) for split, rows in parts], positive)
        with open_dataset(path) as file:
            assert (file.splits, file.classes, file.column_count) == (memory.splits, memory.classes, 9)
            for split, (rows, expected) in by_split.items():
                for dataset in (file, memory):
                    size = data.draw(st.integers(1, 30))
                    blocks = list(dataset.blocks(split, block_elements=size))
                    assert all(block.rows.elements <= size or len(block.rows) == 1 for block in blocks)
                    found, labels = joined(blocks, 9)
                    np.testing.assert_array_equal(found, dense(sparse(rows)))
                    assert labels == expected
                    assert dataset.row_lengths(split).tolist() == [len(row) for row in rows]


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """Return a small file: four training rows, two test rows, five columns."""
    rows = [[(0, 1.0), (2, 2.0)], [(1, -1.0)], [], [(4, 0.5), (3, 3.0)], [(0, 1.0)], [(2, 1.0)]]
    path = tmp_path / "rows.h5"
    parts = [("train", sparse(rows[:4], 5)), ("test", sparse(rows[4:], 5))]
    write(path, parts, [True, False, True, False, True, False])
    return path


def test_the_file_is_laid_out_as_anndata_wants_it(good: Path) -> None:
    with h5py.File(good) as file:
        assert dict(file.attrs)["format"] == "mpisgd dataset"
        assert file.attrs["format_version"] == 1
        assert file["X"].attrs["encoding-type"] == "csr_matrix"
        assert file["X"].attrs["encoding-version"] == "0.1.0"
        assert file["X"].attrs["shape"].tolist() == [6, 5]
        kinds = {name: array.dtype for name, array in file["X"].items()}
        assert kinds == {"data": np.float32, "indices": np.int32, "indptr": np.int64}
        for name, categories in (("labels", [b"-1", b"+1"]), ("split", [b"train", b"test"])):
            assert file[name].attrs["encoding-type"] == "categorical"
            assert file[name].attrs["encoding-version"] == "0.2.0"
            assert not file[name].attrs["ordered"]
            assert file[name]["categories"][:].tolist() == categories
            assert file[name]["categories"].attrs["encoding-type"] == "string-array"
            assert file[name]["codes"].dtype == np.int8
        assert all(file[name].fletcher32 for name in ("X/data", "X/indices", "X/indptr", "labels/codes"))


def replace(file: h5py.File, name: str, content: Any) -> None:
    del file[name]
    file[name] = content


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (
            lambda f: f.__delitem__("X"),
            ["found labels, split", "expected a group X of encoding 'csr_matrix'"],
        ),
        (lambda f: f["X"].attrs.__setitem__("encoding-type", "csc_matrix"), ["X of encoding 'csc_matrix'"]),
        (lambda f: f.attrs.__setitem__("format_version", 2), ["found format_version 2, expected 1"]),
        (lambda f: f["X"].attrs.__delitem__("shape"), ["shape of X"]),
        (lambda f: f["X"].attrs.__setitem__("shape", [6, 5, 1]), ["shape of X: found [6, 5, 1]"]),
        (lambda f: f["X"].attrs.__setitem__("shape", "wide"), ["shape of X"]),
        (lambda f: f["X"].attrs.__setitem__("shape", [7, 5]), ["X/indptr: found length 7, expected 8"]),
        (lambda f: f["X"].attrs.__setitem__("shape", [6, 4]), ["column of row 3: found 4", "column < 4"]),
        (lambda f: f.__delitem__("X/data"), ["X/data cannot be read"]),
        (lambda f: f.__delitem__("labels"), ["labels/codes cannot be read"]),
        (lambda f: f.__delitem__("split/categories"), ["split/categories cannot be read"]),
        (lambda f: f["X/data"].resize((3,)), ["X/indices: found length 7, expected 3"]),
        (lambda f: replace(f, "X/data", ["a"] * 7), ["X/data: found object", "expected numbers"]),
        (lambda f: replace(f, "X/data", np.ones((7, 1))), ["shape (7, 1)", "one dimension"]),
        (lambda f: replace(f, "X/indices", np.ones(7)), ["X/indices: found float64", "expected integers"]),
        (lambda f: f["X/indptr"].__setitem__(2, 1), ["row 1: row pointers decrease: found 2 then 1"]),
        (lambda f: f["X/indptr"].__setitem__(0, 1), ["X/indptr: first row pointer: found 1, expected 0"]),
        (lambda f: f["X/indptr"].__setitem__(6, 6), ["X/indptr: last row pointer: found 6, expected the 7"]),
        (lambda f: f["X/indices"].__setitem__(2, -1), ["column of row 1: found -1"]),
        (lambda f: f["X/data"].__setitem__(2, np.nan), ["value of row 1: found nan"]),
        (lambda f: replace(f, "X/data", np.full(7, 1e300)), ["value of row 0: found 1e+300"]),
        (lambda f: f["labels/codes"].__setitem__(4, 2), ["labels of row 4: found code 2"]),
        (lambda f: f["labels/codes"].__setitem__(4, -1), ["labels of row 4: found code -1"]),
        (lambda f: f["labels/codes"].resize((5,)), ["labels/codes: found length 5, expected 6"]),
        (lambda f: replace(f, "labels/categories", ["a", "b", "c"]), ["found 3 classes", "expected two"]),
        (lambda f: replace(f, "labels/categories", 1), ["labels/categories cannot be read"]),
        (lambda f: f["split/codes"].__setitem__(0, 9), ["split of row 0: found code 9"]),
    ],
)
def test_a_wrong_layout_is_named(good: Path, damage: Callable[[h5py.File], None], parts: list[str]) -> None:
    with h5py.File(good, "r+") as file:
        damage(file)
    with pytest.raises(DataError) as caught, open_dataset(good) as dataset:
        list(dataset.blocks("train"))
    for part in ["rows.h5", *parts]:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damaged_bytes_never_show_a_traceback(good: Path) -> None:
    """Whatever single stretch of the file is overwritten, it is read, or refused with a DataError."""
    content = good.read_bytes()
    refused = []
    for place in range(0, min(len(content), 16_000), 127):
        good.write_bytes(content[:place] + b"\xa5" * 9 + content[place + 9 :])
        try:
            with open_dataset(good) as dataset:
                for split in dataset.splits:
                    list(dataset.blocks(split))
        except DataError as error:
            refused.append(str(error))
    assert len(refused) > 20
    assert not any("\n" in message for message in refused)


@pytest.mark.parametrize("share", [0.001, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(good: Path, share: float) -> None:
    content = good.read_bytes()
    good.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match=r"rows\.h5"):
        open_dataset(good)


def test_a_corrupt_chunk_is_refused(good: Path) -> None:
    with h5py.File(good) as file:
        offset = file["X/data"].id.get_chunk_info(0).byte_offset
    content = bytearray(good.read_bytes())
    content[offset + 4] ^= 1
    good.write_bytes(content)
    with (
        open_dataset(good) as dataset,
        pytest.raises(DataError, match=r"rows\.h5: rows 0 to 3 cannot be read"),
    ):
        list(dataset.blocks("train"))


def test_an_unknown_split_is_refused_with_the_names_there_are(good: Path) -> None:
    with open_dataset(good) as dataset:
        for wrong in (lambda: list(dataset.blocks("dev")), lambda: dataset.row_lengths("dev")):
            with pytest.raises(DataError, match="no split 'dev', expected one of those there are: train, test"):
                wrong()


def test_files_of_others_are_read(good: Path) -> None:
    """Float64 values, int64 columns, classes in another order: the larger number is the positive class."""
    with h5py.File(good, "r+") as file:
        replace(file, "X/data", file["X/data"][:].astype(">f8"))
        replace(file, "X/indices", file["X/indices"][:].astype(np.int64))
        replace(file, "labels/categories", ["+1", "-1"])
    with open_dataset(good) as dataset:
        assert dataset.classes == ("-1", "+1")
        (block,) = dataset.blocks("test")
    assert block.labels.tolist() == [-1, 1]
    assert (block.rows.values.dtype, block.rows.columns.dtype) == (np.float32, np.int32)


def test_columns_in_any_order_and_twice_in_a_row_add_up(good: Path) -> None:
    with h5py.File(good, "r+") as file:
        file["X/indices"][:] = [2, 0, 1, 3, 3, 0, 2]
    with open_dataset(good) as dataset:
        (block,) = dataset.blocks("train")
    weights = np.array([1, 10, 100, 1000, 10000], np.float32)
    assert block.rows.margins(weights, 0, 4).tolist() == [102, -10, 0, 3500]
    block.rows.add_weighted_sum(np.ones(4, np.float32), 0, weights)
    assert weights.tolist() == [3, 9, 101, 1003.5, 10000]


def text(directory: Path, content: str) -> Path:
    path = directory / "rows.svm"
    path.write_text(content)
    return path


def test_text_is_one_split_in_memory(tmp_path: Path) -> None:
    path = text(tmp_path, "+1 1:1 3:2\n0 2:1\n1\n")
    with open_dataset(path) as dataset:
        assert (dataset.name, dataset.classes, dataset.splits) == (str(path), ("0", "+1"), {"test": 3})
        found, labels = joined(list(dataset.blocks("test")), 3)
    np.testing.assert_array_equal(found, [[1, 0, 2], [0, 1, 0], [0, 0, 0]])
    assert labels == [1, -1, 1]
    assert open_dataset(path, split_for_text="train").splits == {"train": 3}


def test_text_of_many_blocks_is_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_blocks = partial(read_blocks, block_bytes=10)
    monkeypatch.setattr("mpisgd.data.dataset.read_blocks", in_blocks)
    with open_dataset(text(tmp_path, "+1\n-1\n" + "-1 1:1 3:2\n+1 2:1\n" * 20 + "-1 7:1\n-1\n+1\n")) as dataset:
        found, labels = joined(list(dataset.blocks("test", block_elements=7)), 7)
        assert dataset.row_lengths("test").tolist() == [0, 0, *[2, 1] * 20, 1, 0, 0]
    expected = np.zeros((45, 7), np.float32)
    expected[2:42:2, [0, 2]] = [1, 2]
    expected[3:42:2, 1] = expected[42, 6] = 1
    np.testing.assert_array_equal(found, expected)
    assert labels == [1, -1, *[-1, 1] * 20, -1, -1, 1]


def test_text_may_have_no_elements_at_all(tmp_path: Path) -> None:
    with open_dataset(text(tmp_path, "1\n-1\n")) as dataset:
        assert dataset.row_lengths("test").tolist() == [0, 0]


IN_MEMORY = """
import re, sys
from pathlib import Path
from mpisgd.data.dataset import open_dataset
from mpisgd.data.prepare import prepare
# Not getrusage: its peak is at first that of the process that started this one.
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
path, small = map(Path, sys.argv[1:])
prepare(small, None, small.with_suffix(".h5"), force=False)
start = peak()
prepare(path, None, path.with_suffix(".h5"), force=False)
print(peak() - start)
with open_dataset(path) as dataset:
    print(peak() - start)
"""


def test_memory_is_bounded_by_a_block_or_the_rows_once(tmp_path: Path) -> None:
    row = " ".join(f"{column}:{column / 7:.6f}" for column in range(1, 200))
    small, path = tmp_path / "small.svm", tmp_path / "rows.svm"
    small.write_text(f"1 {row}\n-1 {row}\n" * 5_000)
    path.write_text(f"1 {row}\n-1 {row}\n" * 10_000)  # 50 MB; as rows 32 MB
    command = [sys.executable, "-c", IN_MEMORY, str(path), str(small)]
    ended = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    prepared, opened = map(float, ended.stdout.split())
    assert prepared < 10
    assert opened < 40


def first_labels(dataset: Dataset, split: str) -> list[float]:
    with dataset:
        return next(dataset.blocks(split)).labels.tolist()


def test_a_models_columns_and_classes_are_taken_over(tmp_path: Path, good: Path) -> None:
    path = text(tmp_path, "1.0 1:1\n-1 2:1\n")
    with open_dataset(path, column_count=7, classes=("-1", "+1")) as dataset:
        assert (dataset.column_count, dataset.classes) == (7, ("-1", "+1"))
        assert next(dataset.blocks("test")).rows.column_count == 7
    assert first_labels(open_dataset(path, classes=("-1", "+1")), "test") == [1, -1]
    assert first_labels(open_dataset(text(tmp_path, "1 1:1\n"), classes=("-1", "+1")), "test") == [1]
    assert first_labels(open_dataset(good, column_count=5, classes=("-1.0", "1")), "test") == [1, -1]


def test_labels_can_be_ignored(tmp_path: Path, good: Path) -> None:
    path = text(tmp_path, "0 1:1\n5 1:1\n+1 2:1\n")
    assert first_labels(open_dataset(path, classes=("-1", "1"), any_label=True), "test") == [0, 0, 1]
    assert first_labels(open_dataset(good, classes=("1", "2"), any_label=True), "test") == [-1, 0]


@pytest.mark.parametrize(
    ("content", "arguments", "parts"),
    [
        ("1 9:1\n-1 1:1\n", {"column_count": 5}, ["found 9 columns", "at most the model's 5"]),
        ("1 1:1\n2 1:1\n", {"classes": ("-1", "1")}, ["line 2: found label 2, expected -1 or 1"]),
        ("1 1:1\n2 1:1\n3 1:1\n", {}, ["found 3 different labels (1, 2, 3), expected two classes"]),
        ("1 1:1\n1.0 1:1\n", {}, ["found only one label (1), expected two classes"]),
    ],
)
def test_text_that_does_not_fit_is_named(
    tmp_path: Path, content: str, arguments: dict[str, Any], parts: list[str]
) -> None:
    with pytest.raises(DataError) as caught:
        open_dataset(text(tmp_path, content), **arguments)
    for part in ["rows.svm", *parts]:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"column_count": 4}, "found 5 columns, expected the model's 4"),
        ({"column_count": 6}, "found 5 columns, expected the model's 6"),
        ({"classes": ("0", "1")}, r"found classes \('-1', '\+1'\), expected the model's \('0', '1'\)"),
    ],
)
def test_a_file_that_does_not_fit_is_named(good: Path, arguments: dict[str, Any], part: str) -> None:
    with pytest.raises(DataError, match=part):
        Hdf5Dataset(good, **arguments)


@pytest.mark.parametrize(("content", "part"), [(None, "No such file"), (b"", "found no rows")])
def test_a_missing_and_an_empty_file_are_named(tmp_path: Path, content: bytes | None, part: str) -> None:
    path = tmp_path / "rows.h5"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=part):
        open_dataset(path)


def write_and_stop(path: Path) -> None:
    with DatasetWriter(path, force=True) as writer:
        writer.append("train", sparse([[(0, 1.0)]]))
        raise KeyboardInterrupt


def test_an_existing_file_stays_without_force_or_when_writing_fails(good: Path) -> None:
    before = good.read_bytes()
    with pytest.raises(UsageError, match=r"rows\.h5 exists: pass --force"):
        DatasetWriter(good, force=False)
    with pytest.raises(KeyboardInterrupt):
        write_and_stop(good)
    assert good.read_bytes() == before
    assert [path.name for path in good.parent.iterdir()] == ["rows.h5"]


def test_a_signal_in_the_midst_of_writing_comes_out_as_itself(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is raised while HDF5 writes may crash the process: the signal waits instead."""
    before = good.read_bytes()
    write_as_before = dataset_writer._Output.write

    def write_and_be_interrupted(self: dataset_writer._Output, content: Any) -> int:
        os.kill(os.getpid(), signal.SIGINT)
        return write_as_before(self, content)

    monkeypatch.setattr(dataset_writer._Output, "write", write_and_be_interrupted)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # who starts in a shell's background inherits none
    with pytest.raises(KeyboardInterrupt):
        write(good, [("train", sparse([[(0, 1.0)]]))], [True])
    with pytest.raises(SignalledError, match="SIGINT") as caught, interruptible():
        write(good, [("train", sparse([[(0, 1.0)]]))], [True])
    assert caught.value.exit_code == 130
    assert good.read_bytes() == before
    assert [path.name for path in good.parent.iterdir()] == ["rows.h5"]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_directory_that_is_missing_or_in_the_way_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"none/rows\.h5: cannot be written: .*No such file"):
        DatasetWriter(tmp_path / "none" / "rows.h5", force=False)
    with pytest.raises(UsageError, match="found a directory"):
        DatasetWriter(tmp_path, force=True)


WITHOUT_ROOM = """
import resource, signal, sys
from pathlib import Path
from test_dataset import sparse, write
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
rows = sparse([[(i, 1.0) for i in range(9)]] * 20_000)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
for room in map(int, sys.argv[2:]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        write(Path(sys.argv[1]), [("train", rows)] * 3, [True] * 60_000)
    except Exception as error:
        print(room, type(error).__name__, error)
"""


def test_a_full_disk_is_one_line_and_leaves_the_old_file(good: Path) -> None:
    before = good.read_bytes()
    rooms = ["0", "700", "100000", "3000000", "4700000"]
    command = [sys.executable, "-c", WITHOUT_ROOM, str(good), *rooms]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, cwd=Path(__file__).parent, timeout=60)
    assert ended.stderr == ""
    assert ended.stdout.splitlines() == [f"{room} RunError {good}: cannot be written: File too large" for room in rooms]
    assert good.read_bytes() == before
    assert [path.name for path in good.parent.iterdir()] == ["rows.h5"]
