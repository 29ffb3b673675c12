"""Data sets that many tests share, made once a session: a small one, and the real RCV1 where there is one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

SMALL_COLUMNS = 50


@dataclass(frozen=True)
class Small:
    """A small data set of two classes: svmlight text, and one HDF5 file of both splits. Not to be written to."""

    train: Path
    test: Path
    h5: Path


def svmlight(rows: int, seed: int, words: tuple[str, str] = ("-1", "+1")) -> str:
    """Return rows of about 8 of the 50 columns; a hidden weight vector decides their labels, words[1] if positive."""
    hidden = np.random.default_rng(0).standard_normal(SMALL_COLUMNS)
    rng = np.random.default_rng(seed)
    lines = []
    for _ in range(rows):
        columns = np.sort(rng.choice(SMALL_COLUMNS, size=rng.integers(4, 13), replace=False))
        values = rng.integers(1, 9, len(columns)) / 8
        elements = (f"{column + 1}:{value:g}" for column, value in zip(columns, values, strict=True))
        lines.append(" ".join([words[int(hidden[columns] @ values > 0)], *elements]))
    return "".join(f"{line}\n" for line in lines)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """400 rows to train on, 100 to test on."""
    from launch import serial

    directory = tmp_path_factory.mktemp("small")
    files = Small(directory / "train.svm", directory / "test.svm", directory / "small.h5")
    files.train.write_text(svmlight(400, seed=1))
    files.test.write_text(svmlight(100, seed=2))
    assert serial("prepare", files.train, "--test", files.test, "--out", files.h5).code == 0
    return files


@pytest.fixture(scope="session")
def trained(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a model of the small set: lock step, two workers, a seed. Not to be written to."""
    from launch import run

    directory = tmp_path_factory.mktemp("trained") / "run"
    ended = run("--data", small.h5, "--run-dir", directory, "--passes", "5", "--seed", "7")
    assert (ended.code, ended.errors) == (0, "")
    return directory


@pytest.fixture(scope="session")
def rcv1() -> Path:
    """The folder of the real RCV1 files."""
    folder = Path(os.environ.get("RCV1_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "rcv1_ccat_train.svm.bz2").exists():
        pytest.skip(f"no RCV1 files in {folder}: set RCV1_DATA")
    return folder


@pytest.fixture(scope="session")
def rcv1_h5(rcv1: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real RCV1 as one HDF5 file, prepared from its svmlight text."""
    from launch import serial

    out = tmp_path_factory.mktemp("rcv1") / "rcv1.h5"
    ended = serial("prepare", rcv1 / "rcv1_ccat_train.svm.bz2", "--test", rcv1 / "rcv1_ccat_test.svm.bz2", "--out", out)
    assert ended.code == 0, ended.errors
    return out
