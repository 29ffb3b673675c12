"""The real thing: RCV1 learnt in both modes, as well as a sequential learner does (0.938), and as the paper did."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launch import json_lines, run, serial
from mpisgd.data.prepare import prepare_lyrl2004
from mpisgd.model import load_model

pytestmark = pytest.mark.rcv1
MODES = ("sync", "async")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("ranks", [2, 3, 9])
def test_the_defaults_learn_rcv1(mode: str, ranks: int, rcv1_h5: Path, tmp_path: Path) -> None:
    ended = run("--data", rcv1_h5, "--run-dir", tmp_path, "--mode", mode, ranks=ranks, timeout=300)
    assert (ended.code, ended.errors) == (0, "")
    finished = json_lines(tmp_path / "events.jsonl")[-1]
    assert finished["reason"] in {"passes", "no_improvement"}
    scores = json.loads(serial("evaluate", tmp_path / "model.h5", rcv1_h5, "--json").out)
    assert scores["rows"] == 5519
    assert scores["accuracy"] >= 0.935
    assert scores == finished["test"]


@pytest.mark.parametrize("mode", MODES)
def test_the_papers_settings_reach_its_target_with_eight_workers(mode: str, rcv1_h5: Path, tmp_path: Path) -> None:
    arguments = "--data", rcv1_h5, "--run-dir", tmp_path, "--mode", mode, "--preset", "paper"
    ended = run(*arguments, ranks=9, timeout=300)
    assert (ended.code, ended.errors) == (0, "")
    assert "target accuracy reached" in ended.out
    events = json_lines(tmp_path / "events.jsonl")
    assert [event["reason"] for event in events if event["event"] == "shutdown"] == ["target_accuracy"]
    for name in ("worker_told", "worker_gone"):
        assert sorted(event["worker"] for event in events if event["event"] == name) == list(range(1, 9))
    assert events[-1]["event"] == "finished"
    metrics = json_lines(tmp_path / "metrics.jsonl")
    first = next(line for line in metrics if line["accuracy"] >= 0.9)
    assert all(line["accuracy"] < 0.9 for line in metrics[: metrics.index(first)])


def test_both_forms_of_the_collection_make_the_same_model(rcv1: Path, rcv1_h5: Path, tmp_path: Path) -> None:
    collection = tmp_path / "lyrl2004.h5"
    prepare_lyrl2004(rcv1, "CCAT", collection, force=False)
    weights = []
    for data in (rcv1_h5, collection):
        run_directory = tmp_path / data.stem
        assert run("--data", data, "--run-dir", run_directory, "--passes", "2", timeout=120).code == 0
        weights.append(load_model(run_directory / "model.h5").vector().tobytes())
    assert weights[0] == weights[1]
