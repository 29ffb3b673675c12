"""What users do with a trained model: evaluate, predict, info, go on learning; and that labels stay their own."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.datasets import load_svmlight_file
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_score, recall_score, roc_auc_score

from conftest import Small, svmlight
from launch import json_lines, run, serial
from mpisgd.command_line import COMMANDS
from mpisgd.model import Model, load_model

SCORES = {
    "rows", "accuracy", "precision", "recall", "f1", "auc",
    "true_positives", "false_positives", "true_negatives", "false_negatives",
}  # fmt: skip


def lines_of(path: Path) -> list[str]:
    assert path.read_text().endswith("\n")
    return path.read_text().splitlines()


def predict(model: Path, data: Path, out: Path, *more: str) -> list[str]:
    ended = serial("predict", model, data, "--out", out, *more)
    assert (ended.code, ended.errors) == (0, "")
    return lines_of(out)


def numpy_margins(model: Model, rows: csr_matrix) -> NDArray[np.float64]:
    """Apply a model without the program: x.w + bias in double precision."""
    return rows.astype(np.float64) @ model.weights.astype(np.float64) + model.bias


def read(path: Path) -> tuple[csr_matrix, NDArray[np.float64]]:
    return load_svmlight_file(str(path), n_features=50)


@pytest.fixture
def model(trained: Path) -> Path:
    return trained / "model.h5"


@pytest.mark.parametrize("words", [("-1", "+1"), ("0", "1"), ("2", "4"), ("-1.5", "1e1")])
@pytest.mark.parametrize("prepared", [False, True])
def test_labels_come_out_as_they_went_in(words: tuple[str, str], prepared: bool, tmp_path: Path) -> None:
    train, test = tmp_path / "train.svm", tmp_path / "test.svm"
    train.write_text(svmlight(200, seed=1, words=words))
    test.write_text(svmlight(50, seed=2, words=words))
    data = train
    if prepared:
        data = tmp_path / "rows.h5"
        assert serial("prepare", train, "--test", test, "--out", data).code == 0
    ended = run("--data", data, "--run-dir", tmp_path / "run", "--passes", "10", ranks=2)
    assert (ended.code, ended.errors) == (0, "")
    model = tmp_path / "run" / "model.h5"
    assert load_model(model).classes == words
    labels = predict(model, data if prepared else test, tmp_path / "labels")
    truth = [line.split()[0] for line in lines_of(test)]
    assert set(labels) == set(words)
    assert np.mean(np.array(labels) == np.array(truth)) > 0.8
    scores = json.loads(serial("evaluate", model, data if prepared else test, "--json").out)
    assert scores["accuracy"] == np.mean(np.array(labels) == np.array(truth))
    positives = scores["true_positives"] + scores["false_negatives"]
    assert positives == truth.count(words[1])


def test_margins_labels_and_numpy_agree(small: Small, model: Path, tmp_path: Path) -> None:
    labels = predict(model, small.h5, tmp_path / "labels")
    margins = np.array(predict(model, small.h5, tmp_path / "margins", "--margins"), float)
    assert len(labels) == len(margins) == 100
    assert labels == ["+1" if margin > 0 else "-1" for margin in margins]
    expected = numpy_margins(load_model(model), read(small.test)[0])
    np.testing.assert_allclose(margins, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bias", ["--bias", "--no-bias"])
@pytest.mark.parametrize("normalize", ["--normalize", "--no-normalize"])
def test_predictions_do_what_learning_did_to_the_rows(bias: str, normalize: str, small: Small, tmp_path: Path) -> None:
    ended = run("--data", small.h5, "--run-dir", tmp_path, "--passes", "3", bias, normalize, ranks=2)
    assert ended.code == 0
    model = load_model(tmp_path / "model.h5")
    assert (model.bias != 0) == (bias == "--bias")
    rows, labels = read(small.test)
    if normalize == "--normalize":
        rows = csr_matrix(rows / np.sqrt(rows.power(2).sum(axis=1)))
    expected = numpy_margins(model, rows)
    margins = np.array(predict(tmp_path / "model.h5", small.h5, tmp_path / "margins", "--margins"), float)
    np.testing.assert_allclose(margins, expected, rtol=1e-5, atol=1e-5)
    finished = json_lines(tmp_path / "events.jsonl")[-1]
    assert finished["test"]["accuracy"] == np.mean((margins > 0) == (labels > 0))


def test_evaluate_agrees_with_scikit_learn(small: Small, model: Path, tmp_path: Path) -> None:
    ended = serial("evaluate", model, small.h5, "--json")
    assert (ended.code, ended.errors, ended.out.count("\n")) == (0, "", 1)
    scores = json.loads(ended.out)
    margins = np.array(predict(model, small.h5, tmp_path / "margins", "--margins"), float)
    truth, said = read(small.test)[1], np.where(margins > 0, 1, -1)
    (tn, fp), (fn, tp) = confusion_matrix(truth, said).tolist()
    assert scores.keys() == SCORES
    assert scores == pytest.approx(
        {
            "rows": 100,
            "accuracy": accuracy_score(truth, said),
            "precision": precision_score(truth, said),
            "recall": recall_score(truth, said),
            "f1": f1_score(truth, said),
            "auc": roc_auc_score(truth, margins),
            "true_positives": tp,
            "false_positives": fp,
            "true_negatives": tn,
            "false_negatives": fn,
        },
        rel=1e-12,
    )
    assert 0 < fp + fn < 100  # so that more than 0 and 1 was compared
    finished = json_lines(model.with_name("events.jsonl"))[-1]
    assert finished["test"] == pytest.approx(scores, rel=1e-12)
    plain = serial("evaluate", model, small.h5)
    for name, score in (("accuracy", "accuracy"), (r"precision of \+1", "precision"), ("AUC", "auc")):
        assert re.search(rf"{name} +{scores[score]:.4f}", plain.out)


@pytest.mark.parametrize("split", ["train", "test"])
def test_text_and_hdf5_give_the_same(split: str, small: Small, model: Path, tmp_path: Path) -> None:
    text = {"train": small.train, "test": small.test}[split]
    for more in ([], ["--margins"]):
        one = predict(model, small.h5, tmp_path / "one", "--split", split, "--force", *more)
        assert one == predict(model, text, tmp_path / "other", "--split", split, "--force", *more)
        assert len(one) == {"train": 400, "test": 100}[split]
    scores = [serial("evaluate", model, data, "--json", "--split", split).out for data in (small.h5, text)]
    assert scores[0] == scores[1]


def test_text_may_be_narrower_than_the_model(model: Path, tmp_path: Path) -> None:
    data = tmp_path / "rows.svm"
    data.write_text("+1 1:1 3:0.5\n-1 2:1\n+1\n")
    margins = np.array(predict(model, data, tmp_path / "margins", "--margins"), float)
    loaded = load_model(model)
    w = loaded.weights
    np.testing.assert_allclose(margins, np.array([w[0] + w[2] / 2, w[1], 0]) + loaded.bias, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("word", ["0", "7", "1"])
def test_rows_without_labels_can_be_predicted(word: str, small: Small, model: Path, tmp_path: Path) -> None:
    data = tmp_path / "rows.svm"
    data.write_text("".join(f"{word} {line.split(maxsplit=1)[1]}\n" for line in lines_of(small.test)))
    assert predict(model, data, tmp_path / "one") == predict(model, small.h5, tmp_path / "other")


def test_predict_replaces_a_file_only_with_force(small: Small, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels"
    out.write_text("mine\n")
    assert serial("predict", model, small.h5, "--out", out).code == 2
    assert out.read_text() == "mine\n"
    assert len(predict(model, small.h5, out, "--force")) == 100


INFO: list[tuple[str, Callable[[Small, Path], Path], list[str]]] = [
    (
        "HDF5 data set",
        lambda small, model: small.h5,
        ["data set", "50", "-1 and +1", "400 rows", "100 rows", "are +1"],
    ),
    ("text", lambda small, model: small.train, ["data set", "50", "-1 and +1", "400 rows"]),
    (
        "model",
        lambda small, model: model,
        ["mpisgd model", "50", "-1 and +1", "numpy ", 'mode = "sync"', "seed = 7", "passes = 5.0"],
    ),
]


@pytest.mark.parametrize(("file", "words"), [case[1:] for case in INFO], ids=[case[0] for case in INFO])
def test_info_says_what_is_in_a_file(
    file: Callable[[Small, Path], Path], words: list[str], small: Small, model: Path
) -> None:
    ended = serial("info", file(small, model))
    assert (ended.code, ended.errors) == (0, "")
    for word in [str(file(small, model)), *words]:
        assert word in ended.out


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_command_has_help(command: str) -> None:
    ended = serial(*filter(None, [command]), "--help")
    assert (ended.code, ended.errors) == (0, "")
    assert ended.out.startswith("usage: ")


def test_help_under_mpirun_is_said_once() -> None:
    ended = run("--help", ranks=3)
    assert (ended.code, ended.errors) == (0, "")
    assert ended.out.count("usage: ") == 1


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_warm_start_begins_where_the_model_ended(mode: str, small: Small, trained: Path, tmp_path: Path) -> None:
    """One row a worker at a tiny step: what is measured is the model that training started from."""
    tiny = ["--batch-size", "1", "--iterations", "1", "--learning-rate", "1e-12", "--passes", "0.001", "--seed", "7"]
    data = ["--data", small.h5, "--mode", mode, "--run-dir"]
    assert run(*data, tmp_path / "warm", *tiny, "--initial-model", trained / "model.h5").code == 0
    assert run(*data, tmp_path / "cold", *tiny, "--no-bias").code == 0
    ended, warm, cold = (
        json_lines(directory / "metrics.jsonl")[-1] for directory in (trained, tmp_path / "warm", tmp_path / "cold")
    )
    assert warm["passes"] < 0.02
    assert warm["accuracy"] == ended["accuracy"]
    assert warm["objective"] == pytest.approx(ended["objective"], rel=1e-6)
    assert cold["objective"] == pytest.approx(1, rel=1e-6)  # the hinge loss at zero weights
    np.testing.assert_allclose(
        load_model(tmp_path / "warm" / "model.h5").vector(), load_model(trained / "model.h5").vector(), atol=1e-9
    )


@pytest.mark.parametrize(
    "settings",
    [
        [],
        [
            "--preset",
            "paper",
            "--max-seconds",
            "none",
            "--passes",
            "4",
            "--target-accuracy",
            "none",
            "--merge",
            "damped",
        ],
        ["--loss", "logistic", "--normalize", "--no-bias", "--gradient-threshold", "1e-3", "--seed", "3"],
    ],
    ids=["defaults", "preset and more", "other"],
)
def test_a_runs_config_makes_the_same_model_again(settings: list[str], small: Small, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    assert run("--data", small.h5, "--run-dir", one, *settings).code == 0
    ended = run("--config", one / "config.toml", "--run-dir", other)
    assert (ended.code, ended.errors) == (0, "")
    assert load_model(one / "model.h5").vector().tobytes() == load_model(other / "model.h5").vector().tobytes()
    assert load_model(one / "model.h5").vector().any()
    changed = set((one / "config.toml").read_text().splitlines()) ^ set(
        (other / "config.toml").read_text().splitlines()
    )
    assert {line.split(" = ")[0] for line in changed} == {"run_dir"}


def test_a_model_does_not_need_its_directory(small: Small, trained: Path, tmp_path: Path) -> None:
    shutil.copy(trained / "model.h5", tmp_path / "mine.h5")
    assert serial("evaluate", tmp_path / "mine.h5", small.h5).code == 0
