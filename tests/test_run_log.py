"""The run directory: whose it is, what it is called, and the lines that are written into it."""

from __future__ import annotations

import json
import math
import re
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from mpisgd.errors import RunError, UsageError
from mpisgd.run_log import CONFIG, EVENTS, METRICS, MODEL, RunLog, make_run_directory


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("left", [MODEL, CONFIG, METRICS, EVENTS])
def test_an_earlier_run_is_not_overwritten_unless_forced(tmp_path: Path, left: str) -> None:
    (tmp_path / left).write_text("earlier")
    with pytest.raises(UsageError) as caught:
        make_run_directory(str(tmp_path), force=False)
    assert f"{tmp_path}: found {left} of an earlier run" in str(caught.value)
    assert "--force" in str(caught.value)
    assert (tmp_path / left).read_text() == "earlier"
    assert make_run_directory(str(tmp_path), force=True) == tmp_path


def test_a_directory_with_other_files_is_taken_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert make_run_directory(str(tmp_path), force=False) == tmp_path
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_missing_directories_are_made(tmp_path: Path) -> None:
    named = tmp_path / "a" / "b"
    assert make_run_directory(str(named), force=False) == named
    assert named.is_dir()


def test_new_directories_are_called_by_date_and_time_and_never_twice_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = [make_run_directory(None, force=False) for _ in range(3)]
    assert len(set(made)) == 3
    for path in made:
        assert path.is_dir()
        assert path.parent == Path("runs")
        assert re.fullmatch(r"\d{8}-\d{6}(-\d+)?", path.name)


@pytest.mark.parametrize("force", [False, True])
def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path, force: bool) -> None:
    (tmp_path / "file").write_text("old")
    for path in (tmp_path / "file", tmp_path / "file" / "run", Path("/proc"), Path("/proc/run")):
        with pytest.raises(RunError, match=f"^run directory {re.escape(str(path))}: cannot write to it: [^\n]+$"):
            make_run_directory(str(path), force=force)
    assert (tmp_path / "file").read_text() == "old"


def test_a_log_begins_empty_and_every_line_is_there_at_once(tmp_path: Path) -> None:
    for name in (METRICS, EVENTS):
        (tmp_path / name).write_text("of an earlier run\n")
    log = RunLog(tmp_path)
    assert lines(tmp_path / METRICS) == lines(tmp_path / EVENTS) == []
    log.metrics({"rows": 1, "accuracy": 0.5})
    assert lines(tmp_path / METRICS) == [{"rows": 1, "accuracy": 0.5}]
    log.event("shutdown", reason="passes")
    log.event("finished")
    first, second = lines(tmp_path / EVENTS)
    assert (first["event"], first["reason"], second["event"]) == ("shutdown", "passes", "finished")
    assert datetime.fromisoformat(str(first["time"])).utcoffset() == timedelta(0)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_no_finite_number_is_null(tmp_path: Path, number: float) -> None:
    log = RunLog(tmp_path)
    log.metrics({"objective": number})
    log.event("finished", objective=number, workers=[{"computing": number}, (1, 0.5)])
    (measured,), (finished,) = lines(tmp_path / METRICS), lines(tmp_path / EVENTS)
    assert measured["objective"] is finished["objective"] is None
    assert finished["workers"] == [{"computing": None}, [1, 0.5]]


@pytest.mark.parametrize("name", [METRICS, EVENTS])
def test_a_full_disk_is_an_error_that_names_the_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to("/dev/full")
    log = RunLog(tmp_path)
    write = {METRICS: lambda: log.metrics({"rows": 1}), EVENTS: lambda: log.event("finished")}[name]
    with pytest.raises(RunError, match=f"^{re.escape(str(tmp_path / name))}: cannot write: No space left on device$"):
        write()
