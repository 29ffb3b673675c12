"""From text to a saved model: `mpisgd prepare` and training against a scikit-learn script that does the same."""

from __future__ import annotations

import json

from benchmarks import sets
from benchmarks.bench import Bench, add_usage
from benchmarks.measure import run_module, train
from benchmarks.report import Claim, Result

WORKERS = 2
FULL_SIZE_RUNS = 3  # of minutes each
OWN, SCRIPT = "mpisgd prepare + training", "scikit-learn script"
WHOLE = "s, text to model"


def run(bench: Bench) -> Result:
    """Run both in turn on the base's text and on the full-size text."""
    result = Result("whole-process", f"text file to saved model, {WORKERS} workers, lambda the only setting")
    for data, seeds in ((bench.base, bench.seeds), (bench.full, bench.seeds[:FULL_SIZE_RUNS])):
        texts = [sets.text_of(data.path, split, bench.directory) for split in ("train", "test")]
        size = f"{data.name}, {texts[0].stat().st_size / 1e6:.0f} MB"
        for seed in seeds:
            run_own(bench, result, f"{OWN}: {size}", data, seed)
            run_script(bench, result, f"{SCRIPT}: {size}", data, seed)
        share = result.median(f"{OWN}: {size}", WHOLE) / result.median(f"{SCRIPT}: {size}", WHOLE)
        result.claims.append(Claim(f"{size}: time from text to model, of the script's", share, 0.5))
    return result


def run_own(bench: Bench, result: Result, row: str, data: sets.LearningSet, seed: int) -> None:
    """Prepare and train."""
    texts = [str(sets.text_of(data.path, split, bench.directory)) for split in ("train", "test")]
    prepared = bench.directory / "prepared.h5"
    preparing, usage = run_module("mpisgd", "prepare", texts[0], "--test", texts[1], "--out", str(prepared), "--force")
    settings = ("--regularization", repr(data.regularization), "--seed", str(seed))
    training = train(prepared, bench.directory / "run", WORKERS, *settings)
    prepared.unlink()
    result.figure(row, WHOLE, preparing + training.process_seconds)
    result.figure(row, "s preparing or loading", preparing)
    result.figure(row, "s training", training.training_seconds)
    result.figure(row, "test accuracy", training.test_accuracy)
    result.figure(row, "peak MB, preparing", usage[0].peak_bytes / 1e6)
    add_usage(result, row, training.ranks)


def run_script(bench: Bench, result: Result, row: str, data: sets.LearningSet, seed: int) -> None:
    """Run the script."""
    texts = [str(sets.text_of(data.path, split, bench.directory)) for split in ("train", "test")]
    out = bench.directory / "script.json"
    model = str(bench.directory / "script.joblib")
    arguments = (*texts, model, str(out), repr(data.regularization), str(seed))
    seconds, usage = run_module("benchmarks.sklearn_script", *arguments)
    found = json.loads(out.read_text())
    result.figure(row, WHOLE, seconds)
    result.figure(row, "s preparing or loading", found["loading"])
    result.figure(row, "s training", found["training"])
    result.figure(row, "test accuracy", found["accuracy"])
    add_usage(result, row, usage)
