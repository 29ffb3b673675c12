"""The trained model: what it is, how it predicts, its HDF5 file."""

from __future__ import annotations

import io
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mpisgd import __version__
from mpisgd.compiled_loops import Float
from mpisgd.config import Config
from mpisgd.errors import DataError
from mpisgd.files import write_atomically
from mpisgd.preprocessing import Preprocessing
from mpisgd.sparse_rows import SparseRows

FORMAT = "mpisgd model"
FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Model:
    """A linear classifier: the class of a row is the sign of its margin x.w + bias.

    weights        float32 (feature_count,)
    bias           0 where the model was learnt without
    preprocessing  what rows went through before
    classes        negative and positive label, spelled as in the data
    config         the run's settings
    """

    weights: Float
    bias: float
    preprocessing: Preprocessing
    classes: tuple[str, str]
    config: Config

    @classmethod
    def from_vector(
        cls, vector: Float, preprocessing: Preprocessing, classes: tuple[str, str], config: Config
    ) -> Model:
        """Build a model from the learnt vector, whose last entry is the bias where there is one."""
        if preprocessing.bias:
            return cls(vector[:-1], float(vector[-1]), preprocessing, classes, config)
        return cls(vector, 0.0, preprocessing, classes, config)

    @property
    def feature_count(self) -> int:
        """The number of columns that rows must have, the bias not counted."""
        return len(self.weights)

    def vector(self) -> Float:
        """Return the weights as learning holds them, the bias last where there is one; a copy."""
        return np.append(self.weights, np.float32(self.bias)) if self.preprocessing.bias else self.weights.copy()

    def margins(self, rows: SparseRows) -> Float:
        """Return x.w + bias of every row as it came, float32 (rows,): the bits that training measured itself by."""
        return self.preprocessing.apply(rows).margins(self.vector(), 0, len(rows))

    def save(self, path: Path) -> None:
        """Write the model, whole or not at all; RunError if the disk does not take it."""
        memory = io.BytesIO()
        with h5py.File(memory, "w") as file:
            file.attrs.update(
                {
                    "format": FORMAT,
                    "format_version": FORMAT_VERSION,
                    "feature_count": self.feature_count,
                    "add_bias": self.preprocessing.bias,
                    "normalize": self.preprocessing.normalize,
                    "negative_class": self.classes[0],
                    "positive_class": self.classes[1],
                    "config": self.config.to_json(),
                    "versions": f"mpisgd {__version__}, numpy {np.__version__}, h5py {h5py.__version__},"
                    f" Python {platform.python_version()}",
                }
            )
            file.create_dataset("weights", data=self.weights, fletcher32=True)
            file.create_dataset("bias", data=np.float32(self.bias))
        write_atomically(path, memory.getvalue())


def load_model(path: Path) -> Model:
    """Read a model.

    Raises:
        DataError: there is no such file, or it is no (whole) model.

    """
    with _reading(path), h5py.File(path, "r") as file:
        if file.attrs.get("format") != FORMAT:
            found = file.attrs.get("format", "an HDF5 file without a format")
            raise DataError(f"{path}: found {found}, expected {FORMAT}")
        attributes = dict(file.attrs)
        if attributes["format_version"] != FORMAT_VERSION:
            raise DataError(
                f"{path}: found version {attributes['format_version']} of {FORMAT}, expected {FORMAT_VERSION}"
            )
        weights = np.asarray(file["weights"][...], np.float32)
        model = Model(
            weights=weights,
            bias=float(file["bias"][()]),
            preprocessing=Preprocessing(bool(attributes["add_bias"]), bool(attributes["normalize"])),
            classes=(attributes["negative_class"], attributes["positive_class"]),
            config=Config.from_json(attributes["config"]),
        )
        feature_count = int(attributes["feature_count"])
    if weights.shape != (feature_count,):
        raise DataError(f"{path}: found weights of shape {weights.shape}, expected ({feature_count},)")
    if not (np.isfinite(weights).all() and np.isfinite(model.bias)):
        raise DataError(f"{path}: found weights that are not finite numbers")
    return model


def is_model(path: Path) -> bool:
    """Tell whether a file says that it is a model; one that cannot be read is not."""
    try:
        with h5py.File(path, "r") as file:
            return bool(file.attrs.get("format") == FORMAT)
    except (OSError, KeyError, RuntimeError, ValueError):  # what h5py raises on damaged files
        return False


def describe_model_file(path: Path) -> dict[str, Any]:
    """Return what there is to know about a model file, for `mpisgd info`."""
    model = load_model(path)
    with h5py.File(path, "r") as file:
        versions = str(file.attrs["versions"])
    return {
        "kind": FORMAT,
        "features": model.feature_count,
        "non-zero weights": int(np.count_nonzero(model.weights)),
        "bias": model.bias,
        "norm of the weights": float(np.linalg.norm(model.weights)),
        "classes": " and ".join(model.classes),
        "bias column": model.preprocessing.bias,
        "rows normalised": model.preprocessing.normalize,
        "written by": versions,
        "config": model.config,
    }


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what h5py raises on a file that is missing, damaged or something else into one line."""
    if not path.exists():
        raise DataError(f"{path}: no such file, expected {FORMAT}")
    try:
        yield
    except DataError:
        raise
    except KeyError as error:
        raise DataError(f"{path}: damaged {FORMAT}: {error.args[0]}") from error
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: cannot read it as {FORMAT}: {reason}") from error
