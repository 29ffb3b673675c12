"""A job's processes: every one ends, whatever happens to one of them, and what was saved before stays whole."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import Small
from launch import Job, flavour, json_lines, run, wait_until
from mpisgd.model import load_model

MODES = ("sync", "async")
WAYS = (*MODES, "nodes")  # asynchronously, with the workers on another node than the server
# What it is like for the program where ranks 1 and 2 are on one host and rank 0 on another.
ON_TWO_NODES = """
from mpisgd.channel import Channel
Channel.share_memory = lambda self, shapes, willing: None
"""
MAIN = """
import os, sys
from mpisgd.main import main
sys.exit(main(sys.argv[1:], os.environ))
"""
PAGE = 4096
UNTIL_TOLD = ("--passes", "none", "--patience", "none", "--max-seconds", "100")


def train_on(small: Small, run_directory: Path, *more: str | Path) -> tuple[str | Path, ...]:
    return "--data", small.h5, "--run-dir", run_directory, "--force", *more


def mode_of(way: str) -> str:
    return "async" if way == "nodes" else way


def program_of(way: str) -> tuple[str, ...]:
    return ("-c", ON_TWO_NODES + MAIN) if way == "nodes" else ("-m", "mpisgd")


def wait_for_training(run_directory: Path) -> None:
    """Wait until a measurement has been logged: the workers learn."""
    wait_until(lambda: json_lines(run_directory / "metrics.jsonl"), 30, "the first measurement")


def events(run_directory: Path, name: str) -> list[dict[str, Any]]:
    return [event for event in json_lines(run_directory / "events.jsonl") if event["event"] == name]


def assert_all_workers_told_and_gone(run_directory: Path, workers: int) -> None:
    for name in ("worker_told", "worker_gone"):
        assert sorted(event["worker"] for event in events(run_directory, name)) == list(range(1, workers + 1))


def unfinished(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.suffix in (".tmp", ".partial") or path.name == ".writable"]


@pytest.fixture
def earlier(tmp_path: Path, trained: Path) -> Path:
    """A run directory with an earlier run's model and config, but without its logs."""
    directory = tmp_path / "run"
    directory.mkdir()
    for name in ("model.h5", "config.toml"):
        shutil.copy(trained / name, directory)
    return directory


def assert_earlier_model(directory: Path, trained: Path) -> None:
    assert (directory / "model.h5").read_bytes() == (trained / "model.h5").read_bytes()
    assert load_model(directory / "model.h5").feature_count == 50
    assert unfinished(directory) == []


@pytest.mark.parametrize(
    ("ranks", "arguments", "code"),
    [
        (0, "", 2),
        (1, "", 2),
        (2, "", 0),
        (3, "--mode async", 0),
        (5, "", 0),
        (9, "--mode async --sharding sample", 0),
        (1, "--passes 0", 2),
        (2, "--passes 0", 2),
        (5, "--passes 0", 2),
        (2, "--initial-model missing.h5", 1),
        (5, "--initial-model missing.h5", 1),
        (0, "--help", 0),
        (1, "--help", 0),
        (3, "--help", 0),
        (3, "--version", 0),
    ],
)
def test_the_exit_code_is_the_jobs_whatever_its_size(
    ranks: int, arguments: str, code: int, small: Small, tmp_path: Path
) -> None:
    ended = run(*train_on(small, tmp_path / "run", *arguments.split()), ranks=ranks)
    assert ended.code == code
    assert len(ended.error_lines) == (code != 0)
    learns = code == 0 and arguments not in {"--help", "--version"}
    assert (tmp_path / "run" / "model.h5").exists() == learns


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("rank", [0, 2])
def test_a_killed_rank_ends_the_job_and_spoils_nothing(
    way: str, rank: int, small: Small, earlier: Path, trained: Path
) -> None:
    arguments = train_on(small, earlier, "--mode", mode_of(way), *UNTIL_TOLD)
    with Job(*arguments, program=program_of(way)) as job:
        wait_for_training(earlier)
        os.kill(job.ranks()[rank], signal.SIGKILL)
        assert job.finish(10).code != 0
    assert_earlier_model(earlier, trained)


# What a defect looks like: on one rank, the fifth call of a method that is called again and again raises.
FAILING = """
import os, sys
from mpisgd.learner import Learner
from mpisgd.main import main
from mpisgd.monitor import Monitor

rank = os.environ.get("PMI_RANK") or os.environ["OMPI_COMM_WORLD_RANK"]
kind, names = (Monitor, ["check_limits"]) if rank == "0" else (Learner, ["turn", "steps"])
calls = []

def failing(method):
    def called(*arguments, **options):
        calls.append(1)
        if len(calls) == 5:
            raise ZeroDivisionError("on purpose")
        return method(*arguments, **options)
    return called

if rank == sys.argv[1]:
    for name in names:
        setattr(kind, name, failing(getattr(kind, name)))
sys.exit(main(sys.argv[2:], os.environ))
"""


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_raises_ends_the_job_by_name(
    way: str, rank: int, small: Small, earlier: Path, trained: Path
) -> None:
    arguments = str(rank), *train_on(small, earlier, "--mode", mode_of(way), *UNTIL_TOLD)
    ended = run(*arguments, program=("-c", ON_TWO_NODES * (way == "nodes") + FAILING), timeout=30)
    assert ended.code != 0
    assert ended.said == [f"mpisgd:{' rank 1:' if rank else ''} error: this rank failed; ending the job"]
    assert "ZeroDivisionError: on purpose" in ended.error_lines
    assert_earlier_model(earlier, trained)


# What an installation without a C compiler looks like.
WITHOUT_KERNEL = f"""
import sys
sys.modules["mpisgd._kernel"] = None
{MAIN}
"""


@pytest.mark.parametrize("mode", MODES)
def test_without_the_kernel_the_same_is_learnt_and_the_user_told(mode: str, small: Small, tmp_path: Path) -> None:
    """One worker, as the order of many workers' updates is left to chance; sums are added up in another order."""
    models = []
    for name, options in (("with", {}), ("without", {"program": ("-c", WITHOUT_KERNEL)})):
        limits = ("--passes", "3", "--patience", "none", "--mode", mode)
        ended = run(*train_on(small, tmp_path / name, *limits), ranks=2, **options)
        assert ended.code == 0
        assert ("without the compiled kernel" in ended.out) == (name == "without")
        models.append(load_model(tmp_path / name / "model.h5").vector())
    np.testing.assert_allclose(*models, rtol=1e-2, atol=1e-3)


def killed_by_launcher(number: signal.Signals) -> bool:
    """Tell whether mpirun kills the ranks: Open MPI's sends SIGTERM, 0.25 s later SIGKILL, and ends with 1.

    It drops what they say in between, too. Other signals, such as SIGUSR1, it only passes on.
    """
    return flavour() == "openmpi" and number in {signal.SIGINT, signal.SIGTERM}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_mpirun_ends_training_in_good_order(
    way: str, number: signal.Signals, small: Small, earlier: Path, trained: Path
) -> None:
    arguments = train_on(small, earlier, "--mode", mode_of(way), *UNTIL_TOLD)
    with Job(*arguments, program=program_of(way)) as job:
        wait_for_training(earlier)
        job.process.send_signal(number)
        ended = job.finish(20)
    model = load_model(earlier / "model.h5")
    if killed_by_launcher(number) and not events(earlier, "finished"):
        return  # a slow machine: what counts is that a whole model is there, the new one or the old
    assert ended.errors == ""
    if not killed_by_launcher(number):
        assert ended.code == 0
        assert f"stopped by signal {number.name}" in ended.out
    assert model.config.mode == mode_of(way)
    assert (earlier / "model.h5").read_bytes() != (trained / "model.h5").read_bytes()
    (shutdown,) = events(earlier, "shutdown")
    assert shutdown["reason"] in {"signal SIGTERM", f"signal {number.name}"}
    assert_all_workers_told_and_gone(earlier, 2)
    (begun,) = events(earlier, "training")
    assert begun["nodes"] == ([[1, 2]] if way == "nodes" else [])
    assert json_lines(earlier / "events.jsonl")[-1]["event"] == "finished"
    assert unfinished(earlier) == []


def fifo(path: Path) -> int | None:
    """Return a descriptor to write to a named pipe, once somebody has it open to read."""
    with contextlib.suppress(OSError):
        return os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    return None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_training_saves_nothing(
    number: signal.Signals, tmp_path: Path, earlier: Path, trained: Path
) -> None:
    rows = tmp_path / "rows.svm"
    os.mkfifo(rows)
    with Job("--data", rows, "--run-dir", earlier, "--force") as job:
        writers: list[int] = []
        wait_until(lambda: writers or writers.extend(filter(None, [fifo(rows)])), 30, "the reader of the rows")
        job.process.send_signal(number)
        ended = job.finish(20)
        os.close(*writers)
    assert ended.code != 0
    assert_earlier_model(earlier, trained)
    assert json_lines(earlier / "events.jsonl") == []
    assert "Traceback" not in ended.errors
    if not killed_by_launcher(number):
        (line,) = ended.error_lines
        assert line.startswith(f"mpisgd: error: interrupted by {number.name}")
        assert "nothing was saved" in line


# The signal comes when MPI has started, and before the ranks have spoken to each other.
SIGNALLED = """
import os, signal, sys
from mpisgd.channel import Channel
from mpisgd.main import main

rank = os.environ.get("PMI_RANK") or os.environ["OMPI_COMM_WORLD_RANK"]
make = Channel.__init__

def signalled(*arguments):
    if rank in sys.argv[1]:
        signal.raise_signal(signal.SIGINT)
    make(*arguments)

Channel.__init__ = signalled
sys.exit(main(sys.argv[2:], os.environ))
"""


@pytest.mark.parametrize("ranks", ["0", "01", "012"])
def test_a_signal_while_starting_ends_the_job(ranks: str, small: Small, earlier: Path, trained: Path) -> None:
    """However far each rank is when the launcher signals them all, none is left waiting for another."""
    ended = run(*(ranks, *train_on(small, earlier, "--max-seconds", "5")), program=("-c", SIGNALLED), timeout=20)
    assert ended.code != 0
    assert "Traceback" not in ended.errors
    (line,) = ended.said
    assert line.startswith("mpisgd: error: interrupted by SIGINT")
    assert_earlier_model(earlier, trained)


# The limit must come after MPI has made its shared memory, which is files too.
LIMITED = """
import os, resource, sys
os.environ["OMPI_MCA_osc"] = "^ucx"  # as the program does before it starts MPI, whose files exceed the limit
import mpi4py
mpi4py.rc.threads = False
from mpi4py import MPI
from mpisgd.main import main

if MPI.COMM_WORLD.rank == 0:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
sys.exit(main(sys.argv[2:], os.environ))
"""


@pytest.mark.parametrize("mode", MODES)
def test_a_model_that_is_too_large_leaves_the_old_one(mode: str, small: Small, earlier: Path, trained: Path) -> None:
    arguments = train_on(small, earlier, "--mode", mode, "--passes", "2")
    ended = run(*("4096", *arguments), program=("-c", LIMITED))
    assert ended.error_lines == [
        f"mpisgd: error: {earlier}/model.h5: cannot write: File too large; what was there before is unchanged"
    ]
    assert ended.code == 1
    assert_earlier_model(earlier, trained)
    assert_all_workers_told_and_gone(earlier, 2)


@pytest.fixture
def full_disk(tmp_path: Path, trained: Path) -> Iterator[Path]:
    """A disk with room for an earlier model, and beside it for logs, but not for another model."""
    disk = tmp_path / "disk"
    disk.mkdir()
    pages = -(-(trained / "model.h5").stat().st_size // PAGE)  # more than two
    mount = ["mount", "-t", "tmpfs", "-o", f"size={(pages + 4) * PAGE}", "tmpfs", disk]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    shutil.copy(trained / "model.h5", disk)
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_leaves_the_old_model(small: Small, full_disk: Path, trained: Path) -> None:
    ended = run(*train_on(small, full_disk, "--passes", "2"))
    (line,) = ended.error_lines
    assert line.startswith(f"mpisgd: error: {full_disk}/model.h5: cannot write: No space left on device")
    assert ended.code == 1
    assert_earlier_model(full_disk, trained)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["metrics.jsonl", "events.jsonl"])
def test_a_log_that_can_no_longer_be_written_ends_the_run_in_good_order(
    mode: str, name: str, small: Small, tmp_path: Path
) -> None:
    directory = tmp_path / "run"

    def directory_in_the_way() -> bool:
        (directory / name).unlink(missing_ok=True)
        with contextlib.suppress(FileExistsError):  # a line was written in between
            (directory / name).mkdir()
        return (directory / name).is_dir()

    with Job(*train_on(small, directory, "--mode", mode, *UNTIL_TOLD)) as job:
        wait_for_training(directory)
        wait_until(directory_in_the_way)
        if name == "events.jsonl":  # nothing more happens until there is a reason to stop
            os.kill(job.ranks()[0], signal.SIGTERM)
        ended = job.finish(20)
    assert ended.error_lines == [f"mpisgd: error: {directory / name}: cannot write: Is a directory"]
    assert ended.code == 1
    assert load_model(directory / "model.h5").config.mode == mode
    if name == "metrics.jsonl":
        assert [event["reason"] for event in events(directory, "shutdown")] == ["failed"]
        assert_all_workers_told_and_gone(directory, 2)
        assert events(directory, "finished") == []


@pytest.mark.parametrize("mode", MODES)
def test_the_done_file_is_the_first_to_go_and_the_last_to_come(mode: str, small: Small, tmp_path: Path) -> None:
    directory, done = tmp_path / "run", tmp_path / "done"
    done.write_text("passes\n")
    with Job(*train_on(small, directory, "--mode", mode, "--done-file", done, *UNTIL_TOLD)) as job:
        wait_for_training(directory)
        assert not done.exists()
        os.kill(job.ranks()[0], signal.SIGTERM)
        ended = job.finish(20)
    assert (ended.code, ended.errors) == (0, "")
    assert done.read_text() == "signal SIGTERM\n"
    assert done.stat().st_mtime_ns >= max(path.stat().st_mtime_ns for path in directory.iterdir())
    assert [event["event"] for event in json_lines(directory / "events.jsonl")][-1] == "finished"


@pytest.mark.parametrize("fault", ["--initial-model missing.h5", "--learning-rate 1e30 --loss squared_hinge"])
def test_a_run_that_fails_leaves_no_done_file(fault: str, small: Small, tmp_path: Path) -> None:
    done = tmp_path / "done"
    done.write_text("passes\n")
    assert run(*train_on(small, tmp_path / "run", "--done-file", done, *fault.split()), ranks=2).code == 1
    assert not done.exists()


@pytest.mark.parametrize("mode", MODES)
def test_the_events_tell_the_story_in_order(mode: str, small: Small, tmp_path: Path) -> None:
    assert run(*train_on(small, tmp_path, "--mode", mode, "--passes", "3"), ranks=4).code == 0
    names = [event["event"] for event in json_lines(tmp_path / "events.jsonl")]
    assert names[:2] == ["training", "shutdown"]
    assert sorted(names[2:-1]) == ["worker_gone"] * 3 + ["worker_told"] * 3
    assert names[-1] == "finished"
    assert_all_workers_told_and_gone(tmp_path, 3)
    assert events(tmp_path, "shutdown")[0]["reason"] == "passes"
