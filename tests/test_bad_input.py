"""Whatever is wrong with what a user gives: one line that says so, the right exit code, and nothing spoilt.

Training on files is tested under mpirun, where every rank must end; what needs no second rank, in this process.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import h5py
import numpy as np
import pytest

from conftest import Small
from launch import Ended, run, serial
from mpisgd.channel import Channel
from mpisgd.config import Config, Declaration, declarations
from mpisgd.errors import MpisgdError, report
from mpisgd.interrupt import Interrupt
from mpisgd.job import NO_JOB
from mpisgd.model import Model
from mpisgd.preprocessing import Preprocessing
from mpisgd.training import train

Make = Callable[[Path, Small], None]
NO_SIGNALS = SimpleNamespace(immediate=contextlib.nullcontext, received=None)


@dataclass(frozen=True)
class Case:
    """One thing that is wrong.

    arguments  words of the command line; {data} is what `make` makes, {dir} its directory, {run} that of an earlier
               run in it (and every training's run directory, with --force), {model} that run's model, {h5} a good file
    code       the exit code
    words      what must stand in the line
    ranks      with how many ranks it is tried under mpirun; 0 without mpirun; none: in this process
    settings   environment variables
    """

    name: str
    arguments: str
    code: int
    words: tuple[str, ...]
    make: Make = lambda directory, small: None
    ranks: tuple[int, ...] = ()
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def trains(self) -> bool:
        return self.arguments.startswith("--")


def text(content: str) -> Make:
    return lambda directory, small: (directory / "data").write_text(content) and None


def small_copy(change: Callable[[bytes], bytes]) -> Make:
    return lambda directory, small: (directory / "data").write_bytes(change(small.h5.read_bytes())) and None


def damaged(change: Callable[[h5py.File], Any]) -> Make:
    def make(directory: Path, small: Small) -> None:
        shutil.copy(small.h5, directory / "data")
        with h5py.File(directory / "data", "r+") as file:
            change(file)

    return make


def put(name: str, place: int, value: float) -> Make:
    return damaged(lambda file: file[name].__setitem__(place, value))


def flipped(directory: Path, small: Small) -> None:
    with h5py.File(small.h5) as file:
        place = file["X/data"].id.get_chunk_info(0).byte_offset + 100
    content = bytearray(small.h5.read_bytes())
    content[place] ^= 1
    (directory / "data").write_bytes(content)


def three_classes(file: h5py.File) -> None:
    del file["labels/categories"]
    file["labels/categories"] = ["-1", "0", "1"]


def no_rows_matrix(file: h5py.File) -> None:
    del file["X"]
    file["matrix"] = np.eye(3)


def narrow_model(directory: Path, small: Small) -> None:
    Model(np.ones(7, np.float32), 0.0, Preprocessing(True, False), ("-1", "1"), Config()).save(directory / "data")


def without_test_rows(directory: Path, small: Small) -> None:
    assert serial("prepare", small.train, "--out", directory / "data").code == 0


def directory(where: Path, small: Small) -> None:
    (where / "data").mkdir()


def unwritable(where: Path, small: Small) -> None:
    directory(where, small)
    (where / "data").chmod(0o500)


GOOD_ROWS = "-1 1:1 3:2\n+1 2:1\n" * 20
TRAIN_ON_DATA = "--data {data}"
TRAIN_ON_GOOD = "--data {h5}"

CASES = [
    # How many ranks
    Case("one rank", TRAIN_ON_GOOD, 2, ("found one rank", "expected at least two", "mpirun -n 9"), ranks=(0, 1)),
    Case(
        "more workers than rows",
        TRAIN_ON_DATA,
        1,
        ("data: found 2 rows to learn from", "each of the 3 workers", "start fewer ranks"),
        text("1 1:1\n-1 2:1\n1 1:2\n"),
        (4,),
    ),
    # HDF5 to train on
    Case("missing file", TRAIN_ON_DATA, 1, ("data: cannot be read: No such file",), ranks=(2, 3)),
    Case("empty file", TRAIN_ON_DATA, 1, ("data: found no rows", "expected lines of"), text(""), (3,)),
    Case("truncated file", TRAIN_ON_DATA, 1, ("data: ", "truncated"), small_copy(lambda b: b[: len(b) // 2]), (2,)),
    Case("flipped byte", TRAIN_ON_DATA, 1, ("data: rows ", "cannot be read"), flipped, (2, 3)),
    Case("no CSR", TRAIN_ON_DATA, 1, ("data: found", "expected a group X of"), damaged(no_rows_matrix), (3,)),
    Case(
        "decreasing row pointers",
        TRAIN_ON_DATA,
        1,
        ("data: X/indptr: row 3: row pointers decrease", "expected the second"),
        put("X/indptr", 4, 2),
        (2,),
    ),
    Case(
        "column out of range",
        TRAIN_ON_DATA,
        1,
        ("data: column of row ", "found 50", "0 <= column < 50"),
        put("X/indices", 700, 50),
        (2, 3),
    ),
    Case("NaN", TRAIN_ON_DATA, 1, ("data: value of row ", "found nan", "expected"), put("X/data", 700, math.nan), (2,)),
    Case("infinite", TRAIN_ON_DATA, 1, ("data: value of row ", "found inf"), put("X/data", 9, math.inf), (3,)),
    Case(
        "NaN in test rows", TRAIN_ON_DATA, 1, ("data: value of row 499", "found nan"), put("X/data", -1, math.nan), (3,)
    ),
    Case("NaN, samples", f"{TRAIN_ON_DATA} --sharding sample", 1, ("found nan",), put("X/data", 700, math.nan), (3,)),
    Case(
        "three classes",
        TRAIN_ON_DATA,
        1,
        ("data: labels: found 3 classes", "expected two"),
        damaged(three_classes),
        (2,),
    ),
    # Text to train on
    Case(
        "one class", TRAIN_ON_DATA, 1, ("data: found only one label (1)", "expected two"), text("1 1:1\n1 2:1\n"), (3,)
    ),
    Case(
        "three labels", TRAIN_ON_DATA, 1, ("data: found 3 different labels (1, 2, 3)",), text("1 1:1\n2 1:1\n3 1:1\n")
    ),
    Case("malformed line", TRAIN_ON_DATA, 1, ("data: line 41: found '2:x'",), text(f"{GOOD_ROWS}1 2:x\n"), (2,)),
    Case(
        "column zero", TRAIN_ON_DATA, 1, ("line 41: found '0:1'", "add one to every"), text(f"{GOOD_ROWS}1 0:1\n"), (3,)
    ),
    Case("directory as data", TRAIN_ON_DATA, 1, ("data: found a directory",), directory),
    # prepare
    Case(
        "prepare malformed", "prepare {data} --out {dir}/o", 1, ("line 41: found '2:x'",), text(f"{GOOD_ROWS}1 2:x\n")
    ),
    Case(
        "prepare zero", "prepare {data} --out {dir}/o", 1, ("line 1: found '0:1'", "add one"), text("1 0:1\n-1 1:1\n")
    ),
    Case("prepare one class", "prepare {data} --out {dir}/o", 1, ("only one label (1)",), text("1 1:1\n")),
    Case("prepare missing", "prepare {data} --out {dir}/o", 1, ("data: cannot be read: No such file",)),
    Case("prepare over a file", "prepare {data} --out {data}", 2, ("data exists", "--force"), text(GOOD_ROWS)),
    Case("prepare nowhere", "prepare {data} --out {dir}/none/o", 1, ("none/o: cannot be written",), text(GOOD_ROWS)),
    Case("prepare without out", "prepare {data}", 2, ("--out",), text(GOOD_ROWS)),
    # Models that do not fit
    Case("evaluate, other width", "evaluate {data} {h5}", 1, ("found 50 columns", "the model's 7"), narrow_model),
    Case("evaluate text, wider", "evaluate {data} {text}", 1, ("found 50 columns", "the model's 7"), narrow_model),
    Case("predict, other width", "predict {data} {h5} --out {dir}/o", 1, ("found 50", "the model's 7"), narrow_model),
    Case(
        "initial model, other width",
        f"{TRAIN_ON_GOOD} --initial-model {{data}}",
        1,
        ("data: found a model of 7 features", "expected 50", "small.h5"),
        narrow_model,
        (3,),
    ),
    Case("initial model, missing", f"{TRAIN_ON_GOOD} --initial-model {{data}}", 1, ("data: no such file",)),
    Case(
        "initial model, other file", f"{TRAIN_ON_GOOD} --initial-model {{h5}}", 1, ("found mpisgd dataset", "expected")
    ),
    Case(
        "initial model, other scaling",
        f"{TRAIN_ON_GOOD} --initial-model {{model}} --scale-columns always",
        2,
        ("found a model with scale_columns never", "expected always"),
    ),
    Case(
        "initial model, no bias", f"{TRAIN_ON_GOOD} --initial-model {{model}} --no-bias", 2, ("bias true", "bias false")
    ),
    Case("model is text", "evaluate {data} {h5}", 1, ("data: cannot read it as mpisgd model",), text("weights")),
    Case("model is a data set", "predict {h5} {h5} --out {dir}/o", 1, ("small.h5: found mpisgd dataset",)),
    Case("model missing", "evaluate {data} {h5}", 1, ("data: no such file",)),
    Case(
        "labels of other classes",
        "evaluate {model} {data}",
        1,
        ("line 2: found label 5", "-1 or +1"),
        text("1 1:1\n5 1:1\n"),
    ),
    Case("unknown split", "evaluate {model} {h5} --split dev", 1, ("no split 'dev'", "train, test")),
    Case(
        "predict over a file", "predict {model} {h5} --out {data}", 2, ("data: found a file", "--force"), text("mine")
    ),
    Case("info on neither", "info {data}", 1, ("data: line 1: found ",), text("neither nor\n")),
    Case("info on nothing", "info {data}", 1, ("data: ", "No such file")),
    # Words
    Case(
        "unknown option",
        f"{TRAIN_ON_GOOD} --batchsize 4",
        2,
        ("--batchsize", "did you mean '--batch-size'"),
        ranks=(2, 3),
    ),
    Case("option of another command", "evaluate {model} {h5} --jsn", 2, ("--jsn: unknown", "did you mean '--json'")),
    Case("abbreviated option", f"{TRAIN_ON_GOOD} --batch 4", 2, ("--batch: unknown",)),
    Case("option without a value", "--data", 2, ("--data: expected one argument",)),
    Case("stray word", f"{TRAIN_ON_GOOD} more", 2, ("more: unknown",)),
    Case(
        "unknown command", "evalute {model} {h5}", 2, ("found command 'evalute'", "did you mean 'evaluate'"), ranks=(3,)
    ),
    Case("unknown command alone", "trian", 2, ("found command 'trian'", "did you mean 'train'")),
    Case("evaluate on ranks", "evaluate {model} {h5}", 2, ("'evaluate' on 3 ranks", "leave out mpirun"), ranks=(3,)),
    Case("predict on ranks", "predict {model} {h5} --out {dir}/o", 2, ("'predict' on 3 ranks",), ranks=(3,)),
    Case("info on ranks", "info {h5}", 2, ("'info' on 2 ranks",), ranks=(2,)),
    # Sources of settings
    Case(
        "unknown key", "--config {data}", 2, ("data: batchsize: unknown", "'batch_size'"), text("batchsize = 4"), (2,)
    ),
    Case(
        "unknown variable",
        TRAIN_ON_GOOD,
        2,
        ("environment: MPISGD_BATCHSIZE: unknown", "'MPISGD_BATCH_SIZE'"),
        ranks=(3,),
        settings={"MPISGD_BATCHSIZE": "4"},
    ),
    Case("config missing", "--config {data}", 2, ("data: cannot read the config file: No such file",)),
    Case("config is a directory", "--config {data}", 2, ("data: cannot read the config file",), directory),
    Case("config is no TOML", "--config {data}", 2, ("data: not a TOML file", "line 1"), text("passes: 3")),
    Case("config is binary", "--config {h5}", 2, ("small.h5: not a TOML file",)),
    Case("config is nested", "--config {data}", 2, ("data: learning: unknown",), text("[learning]\npasses = 3")),
    Case("wrong value in TOML", "--config {data}", 2, ("data: passes: found 'x'",), text("passes = 'x'"), (2,)),
    Case("list for a text", "--config {data}", 2, ("data: data: found ['a']", "a text"), text("data = ['a']")),
    Case("number for a text", "--config {data}", 2, ("data: data: found 5", "a text"), text("data = 5")),
    Case("number for a word", "--config {data}", 2, ("data: mode: found 1", "sync or async"), text("mode = 1")),
    Case("number for a switch", "--config {data}", 2, ("data: bias: found 3", "true or false"), text("bias = 3")),
    Case("switch for an integer", "--config {data}", 2, ("batch_size: found True",), text("batch_size = true")),
    Case("switch for a number", "--config {data}", 2, ("passes: found True",), text("passes = true")),
    Case(
        "switch in the environment",
        TRAIN_ON_GOOD,
        2,
        ("MPISGD_BIAS: found 'maybe'",),
        settings={"MPISGD_BIAS": "maybe"},
    ),
    Case("unknown preset", f"{TRAIN_ON_GOOD} --preset papr", 2, ("found 'papr'", "did you mean 'paper'")),
    Case(
        "no rule to stop by",
        f"{TRAIN_ON_GOOD} --passes none --patience none",
        2,
        ("no rule to stop by", "at least one"),
    ),
    Case(
        "staleness in lock step",
        f"{TRAIN_ON_GOOD} --max-staleness 3",
        2,
        ("max_staleness: found 3 with mode sync", "expected mode async or none"),
        ranks=(3,),
    ),
    Case(
        "staleness below zero",
        f"{TRAIN_ON_GOOD} --mode async --max-staleness=-1",
        2,
        ("command line: --max-staleness: found '-1'", "an integer, at least 0, or none"),
        ranks=(2,),
    ),
    Case(
        "staleness in words",
        f"{TRAIN_ON_GOOD} --mode async --max-staleness x",
        2,
        ("command line: --max-staleness: found 'x'", "an integer, at least 0, or none"),
    ),
    Case(
        "a wrong value that another source covers",
        f"{TRAIN_ON_GOOD} --passes 1",
        2,
        ("MPISGD_PASSES: found 'x'",),
        settings={"MPISGD_PASSES": "x"},
    ),
    # Where to write
    Case(
        "earlier run",
        f"{TRAIN_ON_GOOD} --run-dir {{run}}",
        2,
        ("run: found model.h5 of an earlier", "--force"),
        ranks=(3,),
    ),
    Case("run directory is a file", f"{TRAIN_ON_GOOD} --run-dir {{h5}}", 1, ("small.h5: cannot write", "File exists")),
    Case(
        "run directory under a file",
        f"{TRAIN_ON_GOOD} --run-dir {{data}}/run",
        1,
        ("run directory", "data/run: cannot write", "Not a directory"),
        text("a file"),
        (2,),
    ),
    Case(
        "done file is a directory", f"{TRAIN_ON_GOOD} --done-file {{data}}", 1, ("done file", "data: cannot"), directory
    ),
    Case(
        "no test rows",
        f"{TRAIN_ON_DATA} --eval-split test",
        1,
        ("split 'test'", "prepare TRAIN --test"),
        without_test_rows,
        (2,),
    ),
    Case("evaluate no test rows", "evaluate {model} {data}", 1, ("no split 'test'", ": train"), without_test_rows),
    # Learning that fails
    Case(
        "diverges",
        f"{TRAIN_ON_GOOD} --learning-rate 1e30 --loss squared_hinge",
        1,
        ("learning diverged", "nothing was saved", "--learning-rate (it was 1e+30)"),
        ranks=(2, 3),
    ),
    Case(
        "diverges before anything is measured",
        f"{TRAIN_ON_GOOD} --learning-rate 1e30 --loss squared_hinge --passes 1 --mode async",
        1,
        ("learning diverged", "nothing was saved", "--learning-rate (it was 1e+30)"),
        ranks=(2, 3),
    ),
]
if os.geteuid():
    CASES.append(
        Case(
            "forbidden",
            f"{TRAIN_ON_GOOD} --run-dir {{data}}/run",
            1,
            ("data/run: cannot write", "Permission"),
            unwritable,
        )
    )


@pytest.fixture
def work(tmp_path: Path, trained: Path) -> Path:
    """A directory with a copy of an earlier run in it."""
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path


@pytest.mark.parametrize(
    ("case", "ranks"),
    [
        pytest.param(case, ranks, id=f"{case.name}-{'here' if ranks is None else ranks}")
        for case in CASES
        for ranks in case.ranks or (None,)
    ],
)
def test_what_is_wrong_is_said_in_one_line(case: Case, ranks: int | None, work: Path, small: Small) -> None:
    case.make(work, small)
    places = {"data": work / "data", "dir": work, "run": work / "run", "model": work / "run" / "model.h5"}
    arguments = case.arguments.format(**places, h5=small.h5, text=small.test).split()
    if case.trains and "--run-dir" not in arguments:
        arguments += ["--force", "--run-dir", str(work / "run")]
        if arguments[0] == "--data" and arguments[1] == "--force":  # the option whose value is missing
            arguments = [*arguments[1:], "--data"]
    before = contents(work)
    if ranks is None:
        ended = (refused if case.trains else serial)(*arguments, settings=case.settings)
    else:
        ended = run(*arguments, ranks=ranks, settings=case.settings, cwd=work)
    assert_one_line(ended, case, whole=case.trains)
    after = contents(work)
    logs = {work / "run" / name for name in ("metrics.jsonl", "events.jsonl")}  # begun anew once rows travel
    assert {path: content for path, content in after.items() if path not in logs} == {
        path: content for path, content in before.items() if path not in logs
    }


def assert_one_line(ended: Ended, case: Case, *, whole: bool) -> None:
    """Only the line is on standard error (`whole`), or on the program's lines there: prepare says how far it is."""
    assert "Traceback" not in ended.errors + ended.out
    assert len(ended.said) == 1, ended
    assert not whole or ended.error_lines == ended.said
    assert ended.said[0].startswith("mpisgd: error: ")
    assert len(ended.said[0]) < 600
    for word in case.words:
        assert word in ended.said[0]
    assert ended.code == case.code


def contents(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def refused(*arguments: str, settings: dict[str, str]) -> Ended:
    """Let rank 0 find out, in this process, that a run is impossible; see that the workers are told."""

    class Announcements:
        workers = range(1, 3)
        said: list[str] = []  # noqa: RUF012 - of one run

        def server_announce(self, text: str) -> None:
            assert text == NO_JOB, "the run was begun"
            self.said.append(text)

    channel, code, errors = Announcements(), 0, io.StringIO()
    with contextlib.redirect_stderr(errors):
        try:
            train(cast(Channel, channel), arguments, settings, cast(Interrupt, NO_SIGNALS))
        except MpisgdError as error:
            report(error)
            code = error.exit_code
    assert channel.said == [NO_JOB]
    return Ended(code, "", errors.getvalue())


def wrong_values(declared: Declaration) -> Iterator[str]:
    """Return values that a setting must not take, as a user types them."""
    if declared.choices:
        yield from ("", declared.choices[0].upper(), declared.choices[0] + "x")
    elif "number" in declared.expected or "integer" in declared.expected:
        whole = "integer" in declared.expected
        yield from ("", "x", "nan", "inf", "1,5", *(["1.5", "1e400"] if whole else ["1e400"]))
        for word, bound in declared.bounds.items():
            step = 1 if whole else 1e-9
            value = {"ge": bound - step, "gt": bound, "le": bound + step, "lt": bound}[word]
            yield str(value)
    if not declared.optional and declared.kind is not bool:
        yield "none"


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, declared in declarations().items() for value in wrong_values(declared)],
)
def test_no_setting_takes_what_it_must_not(name: str, value: str) -> None:
    expected = f"found {value!r}, expected {declarations()[name].expected}"
    option = f"--{name.replace('_', '-')}"
    ended = refused(f"{option}={value}", settings={})
    assert (ended.code, ended.said) == (2, [f"mpisgd: error: command line: {option}: {expected}"])
    variable = f"MPISGD_{name.upper()}"
    ended = refused(settings={variable: value})
    assert (ended.code, ended.said) == (2, [f"mpisgd: error: environment: {variable}: {expected}"])


@pytest.mark.parametrize("name", [name for name, declared in declarations().items() if declared.kind is bool], ids=str)
def test_a_switch_takes_no_value(name: str) -> None:
    ended = refused(f"--{name}=maybe", settings={})
    assert ended.code == 2
    assert len(ended.said) == 1
    assert f"--{name}" in ended.said[0]
    ended = refused(settings={f"MPISGD_{name.upper()}": "maybe"})
    assert (ended.code, len(ended.said)) == (2, 1)
    assert "found 'maybe', expected true or false" in ended.said[0]


def test_the_messages_values_are_what_the_user_wrote(tmp_path: Path) -> None:
    """A value with newlines and control characters still makes one line."""
    path = tmp_path / "settings.toml"
    path.write_text(f"mode = {json.dumps('sy' + chr(10) + 'nc')}\n")
    ended = refused("--config", str(path), settings={})
    assert (ended.code, len(ended.error_lines)) == (2, 1)


@pytest.mark.parametrize("name", ["no\nsuch.h5", "no such.h5"])
def test_a_name_with_a_line_break_makes_one_line(name: str) -> None:
    ended = refused("--data", name, settings={})
    assert (ended.code, len(ended.error_lines)) == (1, 1)


@pytest.mark.parametrize("command", ["train", "prepare"])
def test_comments_blank_lines_and_query_ids_are_accepted(command: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.svm"
    path.write_text("# made by hand\n\n" + "-1 qid:1 1:1 3:2 # a comment\n+1 qid:2 2:1\n" * 20)
    if command == "train":
        ended = run("--data", path, "--run-dir", tmp_path / "run", "--passes", "1", ranks=2)
        assert ended.errors == ""
    else:
        ended = serial("prepare", path, "--out", tmp_path / "rows.h5")
        assert "train: 40 rows" in ended.out
    assert ended.code == 0
