"""The commands that need no MPI: prepare, evaluate, predict, info."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from mpisgd.command_line import evaluate_parser, info_parser, predict_parser, prepare_parser
from mpisgd.compiled_loops import Float
from mpisgd.config import Config
from mpisgd.console import Console
from mpisgd.data.dataset import open_dataset
from mpisgd.data.prepare import describe, prepare
from mpisgd.errors import UsageError
from mpisgd.evaluation import Scores, score
from mpisgd.files import write_atomically
from mpisgd.interrupt import interruptible
from mpisgd.model import Model, describe_model_file, is_model, load_model
from mpisgd.settings import to_toml


def run_prepare(arguments: Sequence[str]) -> None:
    """Turn svmlight text into one HDF5 file."""
    options = prepare_parser().parse(arguments)
    test = Path(options.test) if options.test else None
    with interruptible():
        summary = prepare(Path(options.train), test, Path(options.out), force=options.force)
    with Console() as console:
        console.say(describe(summary))


def run_evaluate(arguments: Sequence[str]) -> None:
    """Score a model on labelled rows."""
    options = evaluate_parser().parse(arguments)
    model = load_model(Path(options.model))
    scores = score(*_margins_and_labels(model, options.data, options.split, any_label=False))
    with Console() as console:
        if options.json:
            console.say(json.dumps(asdict(scores)))
        else:
            console.summary(f"{options.model} on {options.data}", _score_lines(scores, model.classes))


def run_predict(arguments: Sequence[str]) -> None:
    """Write every row's label, or margin, to a file."""
    options = predict_parser().parse(arguments)
    out = Path(options.out)
    if out.exists() and not options.force:
        raise UsageError(f"{out}: found a file, expected a new name; pass --force to overwrite it")
    model = load_model(Path(options.model))
    margins, _ = _margins_and_labels(model, options.data, options.split, any_label=True)
    negative, positive = model.classes
    words = map(str, margins.tolist()) if options.margins else (positive if m > 0 else negative for m in margins)
    write_atomically(out, "".join(f"{word}\n" for word in words).encode())
    with Console() as console:
        console.say(f"{out}: {len(margins):,} {'margins' if options.margins else 'labels'}")


def run_info(arguments: Sequence[str]) -> None:
    """Say what is in a data set or a model."""
    path = Path(info_parser().parse(arguments).file)
    config: Config | None = None
    if is_model(path):
        facts = describe_model_file(path)
        config = facts.pop("config")
    else:
        facts = _describe_dataset(path)
    with Console() as console:
        console.summary(str(path), {name: str(value) for name, value in facts.items()})
        if config is not None:
            console.say("\n" + to_toml(config).rstrip())


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "prepare": run_prepare,
    "evaluate": run_evaluate,
    "predict": run_predict,
    "info": run_info,
}


def _margins_and_labels(model: Model, data: str, split: str, *, any_label: bool) -> tuple[Float, Float]:
    """Return the margins and labels of a split, float32 (rows,), read a block at a time."""
    with open_dataset(
        Path(data),
        column_count=model.feature_count,
        classes=model.classes,
        any_label=any_label,
        split_for_text=split,
    ) as dataset:
        blocks = [(model.margins(block.rows), block.labels) for block in dataset.blocks(split)]
    empty = np.empty(0, np.float32)
    return (
        np.concatenate([empty, *(margins for margins, _ in blocks)]),
        np.concatenate([empty, *(labels for _, labels in blocks)]),
    )


def _score_lines(scores: Scores, classes: tuple[str, str]) -> dict[str, str]:
    return {
        "rows": f"{scores.rows:,}",
        "accuracy": f"{scores.accuracy:.4f}",
        f"precision of {classes[1]}": f"{scores.precision:.4f}",
        f"recall of {classes[1]}": f"{scores.recall:.4f}",
        f"F1 of {classes[1]}": f"{scores.f1:.4f}",
        "AUC": f"{scores.auc:.4f}",
        f"{classes[1]} predicted {classes[1]}": f"{scores.true_positives:,}",
        f"{classes[1]} predicted {classes[0]}": f"{scores.false_negatives:,}",
        f"{classes[0]} predicted {classes[1]}": f"{scores.false_positives:,}",
        f"{classes[0]} predicted {classes[0]}": f"{scores.true_negatives:,}",
    }


def _describe_dataset(path: Path) -> dict[str, str]:
    """Read a data set through, so that what is said of it is also checked."""
    facts: dict[str, str] = {}
    with open_dataset(path, split_for_text="rows") as dataset:
        facts["kind"] = "data set"
        facts["features"] = f"{dataset.column_count:,}"
        facts["classes"] = " and ".join(dataset.classes)
        for split, rows in dataset.splits.items():
            positives = elements = 0
            for block in dataset.blocks(split):
                positives += int(np.count_nonzero(block.labels > 0))
                elements += block.rows.elements
            share = positives / rows if rows else 0.0
            facts[split] = f"{rows:,} rows, {elements:,} elements, {share:.1%} are {dataset.classes[1]}"
    return facts
