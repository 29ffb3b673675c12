"""`data/prepare_rcv1.py` and what it stands on: two kinds of text become one file, or a fault is named."""

from __future__ import annotations

import gzip
import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from mpisgd.data.dataset import Block, open_dataset
from mpisgd.data.lyrl2004 import read_topic
from mpisgd.data.prepare import prepare, prepare_lyrl2004
from mpisgd.errors import DataError, UsageError

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "data" / "prepare_rcv1.py"
REAL = Path(os.environ.get("RCV1_DATA", ROOT.parent / "shared" / "data"))

needs_rcv1 = pytest.mark.skipif(
    not (REAL / "rcv1_ccat_train.svm.bz2").exists(), reason=f"no RCV1 files in {REAL}: set RCV1_DATA"
)


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prepare_rcv1", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Return a directory with a small collection in the form of LYRL2004."""
    directory = tmp_path / "rcv1"
    directory.mkdir()
    (directory / "lyrl2004_vectors_train.dat").write_text("11  1:0.5 3:0.25\n12  2:1\n15  \n")
    with gzip.open(directory / "lyrl2004_vectors_test_pt0.dat.gz", "wb") as file:
        file.write(b"20  5:1\n")
    (directory / "lyrl2004_vectors_test_pt1.dat").write_text("21  1:1\n22  1:2\n")
    topics = "CCAT 11 1\nC15 11 1\nMCAT 12 1\nCCAT 15 1\nGCAT 20 1\nCCAT 21 1\nC15 21 1\nMCAT 22 1\n"
    (directory / "rcv1-v2.topics.qrels").write_text(topics)
    return directory


def only(path: Path, split: str) -> Block:
    with open_dataset(path) as dataset:
        (block,) = dataset.blocks(split)
    return block


def test_the_collection_becomes_rows_of_one_topic_against_the_rest(collection: Path, tmp_path: Path) -> None:
    out = tmp_path / "rcv1.h5"
    summary = prepare_lyrl2004(collection, "CCAT", out, force=False)
    assert (summary.splits, summary.positive) == ({"train": 3, "test": 3}, {"train": 2, "test": 1})
    assert (summary.column_count, summary.elements, summary.classes) == (5, 6, ("-1", "1"))
    train, test = only(out, "train"), only(out, "test")
    assert train.labels.tolist() == [1, -1, 1]
    assert test.labels.tolist() == [-1, 1, -1]
    assert train.rows.row_pointers.tolist() == [0, 2, 3, 3]
    assert train.rows.columns.tolist() == [0, 2, 1]
    assert test.rows.columns.tolist() == [4, 0, 0]
    prepare_lyrl2004(collection, "MCAT", out, force=True)
    assert only(out, "train").labels.tolist() == [-1, 1, -1]


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        (
            "lyrl2004_vectors_train.dat",
            None,
            ["no lyrl2004_vectors_train.dat and no lyrl2004_vectors_train.dat.gz"],
        ),
        (
            "rcv1-v2.topics.qrels",
            None,
            ["no rcv1-v2.topics.qrels and", "http://www.ai.mit.edu/", "a08-topic-qrels"],
        ),
        (
            "rcv1-v2.topics.qrels",
            "CCAT 11 1\nMCAT 12 1\n",
            ["train.dat: line 3: found document 15", "topics.qrels"],
        ),
        ("rcv1-v2.topics.qrels", "CCAT 11 1\nMCAT twelve 1\n", ["qrels: line 2: found 'MCAT twelve 1'"]),
        ("rcv1-v2.topics.qrels", "", ["no topic 'CCAT'"]),
        ("lyrl2004_vectors_train.dat", "11 1:0.5\n12 1;5\n", ["train.dat: line 2: found '1;5'"]),
        ("lyrl2004_vectors_train.dat", "11 1:0.5\n11.5 1:5\n", ["train.dat: line 2: found document 11.5"]),
    ],
)
def test_faults_of_the_collection_are_named(
    collection: Path, tmp_path: Path, name: str, content: str | None, parts: list[str]
) -> None:
    (collection / name).unlink()
    if content is not None:
        (collection / name).write_text(content)
    with pytest.raises(DataError) as caught:
        prepare_lyrl2004(collection, "CCAT", tmp_path / "rcv1.h5", force=False)
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [collection]


def test_an_unknown_topic_is_refused_with_the_nearest(collection: Path) -> None:
    with pytest.raises(DataError, match=r"no topic 'ccat', expected one such as CCAT, "):
        read_topic(collection, "ccat")


def svmlight(directory: Path, name: str, content: str) -> Path:
    path = directory / name
    path.write_text(content)
    return path


def test_training_and_held_out_rows_become_splits(tmp_path: Path) -> None:
    train = svmlight(tmp_path, "a.svm", "2 1:1 4:0\n+1 2:1\n1\n")
    test = svmlight(tmp_path, "b.svm", "1.0 6:1\n")
    out = tmp_path / "rows.h5"
    summary = prepare(train, test, out, force=False)
    assert (summary.classes, summary.column_count, summary.elements) == (("+1", "2"), 6, 4)
    assert only(out, "train").labels.tolist() == [1, -1, -1]
    assert only(out, "test").labels.tolist() == [-1]
    assert only(out, "train").rows.column_count == 6
    with pytest.raises(UsageError, match=r"rows\.h5 exists: pass --force"):
        prepare(train, None, out, force=False)
    prepare(train, None, out, force=True)
    with open_dataset(out) as dataset:
        assert (dataset.splits, dataset.column_count) == ({"train": 3}, 4)


@pytest.mark.parametrize(
    ("train", "test", "parts"),
    [
        ("1 1:1\n", "1 1:1\n", ["a.svm: found only one label (1), expected two classes"]),
        ("1 1:1\n2 1:1\n0 1:1\n", "1 1:1\n", ["a.svm: found 3 different labels (0, 1, 2)"]),
        ("1 1:1\n2 1:1\n", "1 1:1\n\n3 1:1\n", ["b.svm: line 3: found label 3, expected 1 or 2"]),
        ("1 1:1\n2 1:1\n", "1 1:x\n", ["b.svm: line 1: found '1:x'"]),
        ("1 1:1\n2 1:1\n", "", ["b.svm: found no rows"]),
    ],
)
def test_faults_of_the_text_are_named_and_nothing_stays(
    tmp_path: Path, train: str, test: str, parts: list[str]
) -> None:
    paths = svmlight(tmp_path, "a.svm", train), svmlight(tmp_path, "b.svm", test)
    with pytest.raises(DataError) as caught:
        prepare(*paths, tmp_path / "rows.h5", force=False)
    for part in parts:
        assert part in str(caught.value)
    assert sorted(tmp_path.iterdir()) == sorted(paths)


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SCRIPT, *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


def test_the_script_ends_with_what_was_written_and_what_to_do_next(collection: Path, tmp_path: Path) -> None:
    out = tmp_path / "rcv1.h5"
    ended = run("--lyrl2004", collection, "--out", out)
    assert ended.returncode == 0
    assert f"{out}: 5 columns, 6 non-zeros" in ended.stdout
    assert "train: 3 rows, 66.7% of class 1, 33.3% of class -1" in ended.stdout
    assert f"mpirun -n 9 python -m mpisgd --data {out}" in ended.stdout
    assert ended.stderr.startswith("writing ")


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        ([], 2, "one of the arguments --libsvm --lyrl2004 --download is required"),
        (["--libsvm", "a.svm"], 2, "--out FILE.h5 is missing"),
        (["--libsvm", "a.svm", "--topic", "CCAT", "--out", "b.h5"], 2, "--topic goes with --lyrl2004"),
        (["--lyrl2004", ".", "--test", "b.svm", "--out", "b.h5"], 2, "--test goes with --libsvm"),
        (["--download", "libsvm", "--out", "b.h5"], 2, "--out and --force do not go with --download"),
        (["--libsvm", "none.svm", "--out", "b.h5"], 1, "none.svm: cannot be read: No such file or directory"),
        (["--libsvm", str(SCRIPT), "--out", str(SCRIPT)], 2, "prepare_rcv1.py exists: pass --force"),
    ],
)
def test_the_script_names_what_is_wrong_in_one_line(
    script: ModuleType, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, part: str
) -> None:
    try:
        ended = script.main(arguments)
    except SystemExit as error:  # how argparse ends
        ended = error.code
    last = capsys.readouterr().err.splitlines()[-1]
    assert ended == code
    assert last.startswith("prepare_rcv1: error: ")
    assert part in last


@pytest.mark.parametrize(
    ("command", "number"),
    [
        ([SCRIPT, "--libsvm"], signal.SIGINT),
        ([SCRIPT, "--libsvm"], signal.SIGTERM),
        (["-m", "mpisgd", "prepare"], signal.SIGINT),
        (["-m", "mpisgd", "prepare"], signal.SIGTERM),
    ],
)
def test_a_signal_leaves_nothing_behind(tmp_path: Path, command: list[str | Path], number: signal.Signals) -> None:
    path = svmlight(tmp_path, "a.svm", "# the slow reader takes this\n" + "1 1:1 2:2 3:3\n-1 4:4\n" * 300_000)
    started = subprocess.Popen(
        [sys.executable, *command, path, "--out", tmp_path / "rows.h5"],
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 30
    while len(list(tmp_path.iterdir())) == 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    started.send_signal(number)
    _, said = started.communicate(timeout=30)
    assert started.returncode == 128 + number
    assert f"interrupted by {number.name}: no unfinished file is left" in said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == [path]


def test_files_are_fetched_once_and_whole(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "rows.bz2").write_bytes(b"rows" * 1000)
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "site"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/rows.bz2"
        assert script.download([url], tmp_path / "into") == 0
        server.shutdown()
    assert (tmp_path / "into" / "rows.bz2").read_bytes() == b"rows" * 1000
    assert script.download([url], tmp_path / "into") == 0  # the server is gone: it is not asked again


def test_files_that_cannot_be_fetched_are_listed(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    urls = ["http://127.0.0.1:9/a.bz2", "http://127.0.0.1:9/b.bz2"]
    assert script.download(urls, tmp_path) == 1
    said = capsys.readouterr().err
    assert said.startswith("prepare_rcv1: error: http://127.0.0.1:9/a.bz2: ")
    assert f"by hand and put them into {tmp_path}" in said
    assert all(f"  {url}\n" in said for url in urls)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.rcv1
@needs_rcv1
def test_both_forms_of_the_real_collection_give_the_same_file(tmp_path: Path) -> None:
    text, collection = tmp_path / "text.h5", tmp_path / "collection.h5"
    train, test = REAL / "rcv1_ccat_train.svm.bz2", REAL / "rcv1_ccat_test.svm.bz2"
    summary = prepare(train, test, text, force=False)
    assert summary.splits == {"train": 22_079, "test": 5_519}
    assert summary.column_count == 47_236
    assert summary.classes == ("-1", "+1")
    assert round(summary.positive["train"] / 22_079, 3) == 0.451
    prepare_lyrl2004(REAL, "CCAT", collection, force=False)
    for split in ("train", "test"):
        with open_dataset(text) as one, open_dataset(collection) as other:
            assert other.splits == summary.splits
            assert other.column_count == 47_236
            for left, right in zip(one.blocks(split), other.blocks(split), strict=True):
                np.testing.assert_array_equal(left.labels, right.labels)
                for field in ("values", "columns", "row_pointers"):
                    np.testing.assert_array_equal(getattr(left.rows, field), getattr(right.rows, field))
                np.testing.assert_allclose(left.rows.squared_norms(), 1, atol=1e-4)
