"""A file is the old one or the whole new one."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpisgd.errors import RunError
from mpisgd.files import write_atomically


@pytest.mark.parametrize("content", [b"", b"new", b"\0" * 100_000])
def test_the_file_is_the_whole_new_one_and_nothing_else_is_left(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.h5"
    for old in (None, b"old and longer than new"):
        if old is not None:
            path.write_bytes(old)
        write_atomically(path, content)
        assert path.read_bytes() == content
        assert list(tmp_path.iterdir()) == [path]


def refused(path: Path) -> str:
    with pytest.raises(RunError) as caught:
        write_atomically(path, b"new")
    message = str(caught.value)
    assert message.startswith(f"{path}: cannot write: ")
    assert "\n" not in message
    return message


def test_a_directory_that_is_missing(tmp_path: Path) -> None:
    assert "No such file or directory" in refused(tmp_path / "missing" / "model.h5")


def test_a_directory_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "model.h5").mkdir()
    assert "directory" in refused(tmp_path / "model.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["model.h5"]


def test_a_file_where_the_directory_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    assert "Not a directory" in refused(tmp_path / "file" / "model.h5")
    assert (tmp_path / "file").read_text() == "old"


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    assert "File name too long" in refused(tmp_path / ("m" * 300))


def test_a_directory_that_takes_no_files() -> None:
    refused(Path("/proc/model.h5"))
