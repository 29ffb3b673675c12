"""A model comes back as it was saved, predicts as it learnt, and one that is damaged is told from one that is not."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpisgd.config import Config
from mpisgd.errors import DataError
from mpisgd.model import Model, describe_model_file, is_model, load_model
from mpisgd.preprocessing import Preprocessing
from strategies import eighths, examples, ordinary, sparse_rows, vectors

preprocessings = st.builds(Preprocessing, st.booleans(), st.booleans())
words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8)


@st.composite
def models(draw: st.DrawFn, values: st.SearchStrategy[float] = ordinary) -> Model:
    preprocessing = draw(preprocessings)
    vector = draw(vectors(preprocessing.width(draw(st.integers(1, 6))), values))
    config = Config(seed=draw(st.integers(0, 9)), data=draw(st.none() | words), passes=draw(st.none() | st.just(2.5)))
    return Model.from_vector(vector, preprocessing, (draw(words), draw(words)), config)


def a_model() -> Model:
    return Model(np.array([1, -2, 0.5], np.float32), 0.25, Preprocessing(True, False), ("-1", "+1"), Config())


@examples
@given(models())
def test_a_model_comes_back_as_it_was_saved(model: Model) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "model.h5"
        model.save(path)
        assert is_model(path)
        found = load_model(path)
    np.testing.assert_array_equal(found.weights, model.weights)
    assert found.weights.dtype == np.float32
    assert (found.bias, found.preprocessing, found.classes, found.config) == (
        model.bias,
        model.preprocessing,
        model.classes,
        model.config,
    )


@examples
@given(vectors(4, ordinary), preprocessings)
def test_vector_is_what_the_model_was_made_from(vector: np.ndarray, preprocessing: Preprocessing) -> None:
    model = Model.from_vector(vector, preprocessing, ("a", "b"), Config())
    assert preprocessing.width(model.feature_count) == 4
    np.testing.assert_array_equal(model.vector(), vector)
    model.vector()[:] = 0
    np.testing.assert_array_equal(model.vector(), vector)


@examples
@given(models(eighths), st.data())
def test_a_model_predicts_as_it_learnt(model: Model, data: st.DataObject) -> None:
    rows = data.draw(sparse_rows(column_count=model.feature_count))
    learnt = model.preprocessing.apply(rows)
    margins = learnt.margins(model.vector(), 0, len(rows))
    np.testing.assert_allclose(model.margins(rows), margins, rtol=1e-5, atol=1e-4)


def test_what_is_told_of_a_model_file(tmp_path: Path) -> None:
    a_model().save(tmp_path / "model.h5")
    facts = describe_model_file(tmp_path / "model.h5")
    assert (facts["features"], facts["non-zero weights"], facts["bias"]) == (3, 3, 0.25)
    assert facts["norm of the weights"] == pytest.approx(np.sqrt(1 + 4 + 0.25))
    assert "mpisgd" in facts["written by"]


# --- files that are no model, or no longer


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_model(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def make_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("X", data=[1, 2, 3])


FOREIGN: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "no such file"),
    "a directory": (lambda path: path.mkdir(), "cannot read it as mpisgd model"),
    "empty": (lambda path: path.write_bytes(b""), "cannot read it as mpisgd model"),
    "text": (lambda path: path.write_text("+1 3:0.5\n" * 100), "cannot read it as mpisgd model"),
    "other HDF5": (make_hdf5, "found an HDF5 file without a format, expected mpisgd model"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_files_are_told(tmp_path: Path, kind: str) -> None:
    make, expected = FOREIGN[kind]
    make(tmp_path / "model.h5")
    assert expected in refusal(tmp_path / "model.h5")
    assert not is_model(tmp_path / "model.h5")


def set_weights(file: h5py.File, values: list[float]) -> None:
    del file["weights"]
    file.create_dataset("weights", data=np.array(values, np.float32))


def put_group(file: h5py.File) -> None:
    del file["weights"]
    file.create_group("weights")


CHANGES: dict[str, tuple[Callable[[h5py.File], object], str]] = {
    "of a data set": (lambda file: file.attrs.modify("format", "mpisgd data set"), "found mpisgd data set"),
    "newer": (lambda file: file.attrs.modify("format_version", 2), "found version 2 of mpisgd model, expected 1"),
    "without weights": (lambda file: file.__delitem__("weights"), "weights"),
    "without bias": (lambda file: file.__delitem__("bias"), "bias"),
    "weights a group": (put_group, "cannot read"),
    "weights too few": (lambda file: set_weights(file, [1, 2]), "found weights of shape (2,), expected (3,)"),
    "weights not finite": (lambda file: set_weights(file, [1, np.nan, 2]), "not finite"),
    "config no JSON": (lambda file: file.attrs.modify("config", "{"), "cannot read"),
    "config of another version": (lambda file: file.attrs.modify("config", '{"speed": 1}'), "speed"),
    **{
        f"without {name}": (lambda file, name=name: file.attrs.__delitem__(name), name)
        for name in ("format_version", "feature_count", "add_bias", "normalize", "positive_class", "config")
    },
}


@pytest.mark.parametrize("change", CHANGES)
def test_models_that_lack_something_or_have_it_wrong_are_told(tmp_path: Path, change: str) -> None:
    path = tmp_path / "model.h5"
    a_model().save(path)
    damage, expected = CHANGES[change]
    with h5py.File(path, "r+") as file:
        damage(file)
    assert expected in refusal(path)


def test_a_model_cut_short_anywhere_is_told(tmp_path: Path) -> None:
    path = tmp_path / "model.h5"
    a_model().save(path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        refusal(path)


def test_damaged_weights_are_told_by_their_checksum(tmp_path: Path) -> None:
    path = tmp_path / "model.h5"
    a_model().save(path)
    whole = path.read_bytes()
    weights = a_model().weights.tobytes()
    assert whole.count(weights) == 1
    path.write_bytes(whole.replace(weights, np.array([1, -2, 0.75], np.float32).tobytes()))
    refusal(path)


def test_a_model_whose_end_never_reached_the_disk_is_told(tmp_path: Path) -> None:
    """As long as it was, and zeros from somewhere on: what a power cut leaves. Asking what it is does not raise."""
    path = tmp_path / "model.h5"
    a_model().save(path)
    whole = path.read_bytes()
    for kept in range(0, len(whole), 512):
        path.write_bytes(whole[:kept] + bytes(len(whole) - kept))
        refusal(path)
        assert is_model(path) in (True, False)


def test_a_disk_that_fills_up_leaves_the_old_model(tmp_path: Path) -> None:
    path = tmp_path / "model.h5"
    a_model().save(path)
    old = path.read_bytes()
    program = """
import resource, sys, pathlib
import numpy as np
from mpisgd.config import Config
from mpisgd.errors import RunError
from mpisgd.model import Model
from mpisgd.preprocessing import Preprocessing
model = Model(np.ones(100_000, np.float32), 0.0, Preprocessing(True, False), ("-1", "+1"), Config())
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    model.save(pathlib.Path(sys.argv[1]))
except RunError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program, str(path)], check=True, capture_output=True, text=True)
    assert done.stdout.startswith(f"{path}: cannot write: ")
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]
