"""What rank 0 says before and leaves after a run: model, config, scores, summary, done file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mpisgd.compiled_loops import Float, is_compiled
from mpisgd.console import Console
from mpisgd.errors import RunError
from mpisgd.evaluation import Scores, score
from mpisgd.files import write_atomically
from mpisgd.job import Job
from mpisgd.model import Model
from mpisgd.monitor import Monitor
from mpisgd.rank0_rows import HeldOut
from mpisgd.run_log import CONFIG, MODEL, RunLog
from mpisgd.settings import to_toml
from mpisgd.svm import ScaledVector

# An objective this many times the best one measured is more than the noise of steps that still fall: the user is told.
ASTRAY = 1.1
# An objective this many times that of zero weights is of no use to anybody.
HOPELESS = 10.0


def announce_training(job: Job, console: Console) -> None:
    """Say what is about to be learnt; before it is, as launchers take a core for what is said."""
    config = job.config
    if not is_compiled():
        console.say(
            "without the compiled kernel learning takes ten times as long: install a C compiler, then mpisgd again"
        )
    if config.scale_columns == "always":
        console.say("columns are scaled to one size while they are learnt (--scale-columns)")
    console.say(
        f"{config.mode}: {job.workers} workers learn {job.learning_rows:,} rows of"
        f" {job.feature_count:,} features; measured on {config.eval_split} rows"
    )


def log_training(job: Job, data: str, monitor: Monitor, nodes: list[list[int]]) -> None:
    """Log what is being learnt and where it began; `nodes`: which workers share memory, not with the server."""
    config = job.config
    monitor.event(
        "training",
        data=data,
        mode=config.mode,
        workers=job.workers,
        learning_rows=job.learning_rows,
        features=job.feature_count,
        learning_rate=config.learning_rate,
        bias_step=job.bias_step,
        scale_columns=config.scale_columns,
        iterations=config.iterations,
        by_keys=job.by_keys,
        nodes=nodes,
    )


def leave_results(
    job: Job,
    classes: tuple[str, str],
    monitor: Monitor,
    weights: ScaledVector,
    scales: Float | None,
    held_out: HeldOut,
    log: RunLog,
    console: Console,
) -> None:
    """Measure the final weights, save the model, score the test rows, say how it went; the done file comes last.

    Where the columns are scaled, by `scales`, the model's weights are those of the columns as they are in the file.

    Raises:
        RunError: the weights diverged, or the disk did not take what was to be left.

    """
    monitor.measure_now(weights, "end")
    weights = best_measured(weights, job, monitor, console)
    vector = weights.weights()
    model = Model.from_vector(vector if scales is None else vector * scales, job.preprocessing, classes, job.config)
    model.save(log.directory / MODEL)
    write_atomically(log.directory / CONFIG, to_toml(job.config).encode())
    scores = _test_scores(vector, held_out)
    if monitor.failure is not None:
        raise monitor.failure
    log.event(
        "finished",
        reason=monitor.stop_reason,
        seconds=monitor.last["seconds"],
        passes=monitor.last["passes"],
        kept_passes=_kept_passes(monitor),
        measured=monitor.last["accuracy"],
        test=asdict(scores) if scores else None,
        in_memory=monitor.in_memory,
        **monitor.turns.details(monitor.last["seconds"]),
    )
    console.summary(f"mpisgd: {_outcome(monitor)}", _summary(job, monitor, scores, log.directory))
    if job.config.done_file is not None:
        write_atomically(Path(job.config.done_file), f"{monitor.stop_reason}\n".encode())


def best_measured(weights: ScaledVector, job: Job, monitor: Monitor, console: Console) -> ScaledVector:
    """Return the final weights, or those that the validation rows found better after an earlier pass.

    Without patience learning is to go on to the end, and the final weights are what is wanted. Measured on the test
    rows they stay what they are, too: the test rows choose nothing.

    Raises:
        RunError: there are no weights worth keeping: not finite, or far worse than zeros.

    """
    last, best = monitor.last, monitor.best
    if job.keeps_best and best and not last["objective"] <= best["objective"]:
        if not last["objective"] <= ASTRAY * best["objective"]:
            console.say(
                f"the objective rose from {best['objective']:.4g} after {best['passes']:.2f} passes to"
                f" {last['objective']:.4g}: lower --learning-rate (it was {job.config.learning_rate:g})"
            )
            monitor.event("went_astray", objective=last["objective"], best_objective=best["objective"])
        assert monitor.best_weights is not None  # noqa: S101 - there is a best measurement
        weights = monitor.best_weights
        kept = {"accuracy": best["accuracy"], "objective": best["objective"], "kept_passes": best["passes"]}
        monitor.last = {**last, **kept}
    of_zeros = float(job.objective.losses(np.zeros(1, np.float32), np.ones(1, np.float32))[0])
    if not (monitor.last["objective"] <= HOPELESS * of_zeros and np.isfinite(weights.vector).all()):
        raise RunError(
            f"learning diverged: found an objective of {monitor.last['objective']:.4g}, that of zero weights is"
            f" {of_zeros:.4g}; nothing was saved; lower --learning-rate (it was {job.config.learning_rate:g})"
        )
    return weights


def _test_scores(weights: Float, held_out: HeldOut) -> Scores | None:
    if held_out.test is None:
        return None
    rows, labels = held_out.test.rows, held_out.test.labels
    return score(rows.margins(weights, 0, len(rows)), labels)


def _outcome(monitor: Monitor) -> str:
    """Return in words why training stopped."""
    words = {
        "passes": "all passes done",
        "max_seconds": "time limit reached",
        "target_accuracy": "target accuracy reached",
        "no_improvement": "no longer improving",
    }
    reason = str(monitor.stop_reason)
    return words.get(reason, f"stopped by {reason}")


def _kept_passes(monitor: Monitor) -> float:
    """Return after how many passes the weights were what is saved."""
    return float(monitor.last.get("kept_passes", monitor.last["passes"]))


def _if_useless(scores: Scores) -> str:
    """Return a warning where always answering one class is as good as the model, or nothing."""
    positives = scores.true_positives + scores.false_negatives
    larger = max(positives, scores.rows - positives) / scores.rows
    return f": no better than always the same answer, {larger:.4f}" if scores.accuracy <= larger else ""


def _if_nothing_sent(last: dict[str, Any]) -> str:
    return ": lower --gradient-threshold" if last["changes_sent"] == 0 < last["changes"] else ""


def _summary(job: Job, monitor: Monitor, scores: Scores | None, directory: Path) -> dict[str, str]:
    last = monitor.last
    how = "scored once" if job.config.eval_split == "validation" else "those measured on while training"
    return {
        "test accuracy": f"{scores.accuracy:.4f} ({scores.rows:,} rows, {how}){_if_useless(scores)}"
        if scores
        else "no test rows",
        "measured": f"{job.config.eval_split} accuracy {last['accuracy']:.4f}, objective {last['objective']:.4f},"
        f" of the weights after {_kept_passes(monitor):.2f} passes",
        "learnt": f"{last['passes']:.2f} passes, {last['rows']:,} rows in {last['seconds']:.2f} s"
        f" ({last['rows_per_second']:,.0f} rows/s)",
        "exchanged": f"{last['updates']:,} updates ({last['updates_per_second']:,.0f} a second),"
        f" {last['bytes_up'] / 1e6:,.1f} MB up and {last['bytes_down'] / 1e6:,.1f} MB down,"
        f" {last['bytes_up_per_update']:,.0f} and {last['bytes_down_per_update']:,.0f} bytes each",
        "changes": f"{last['changes_sent']:,} of {last['changes']:,} above the threshold, merged by"
        f" {last['merge_weight']:.2f} on average{_if_nothing_sent(last)}",
        "round trip": f"{1e3 * last['round_trip_p50']:.2f} ms median, {1e3 * last['round_trip_p99']:.2f} ms p99",
        "staleness": f"{last['staleness_p50']:.0f} median, {last['staleness_max']} most;"
        f" at most {last['turns_ahead_max']} turns ahead of the slowest worker",
        "run directory": str(directory),
    }
