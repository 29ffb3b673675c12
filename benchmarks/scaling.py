"""Two workers against one on the full-size set, in lock step and asynchronously."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

from benchmarks import ceiling, sets
from benchmarks.bench import ALL_ROWS, MODES, TO_ACCURACY, Bench, add_accuracy, add_speed, mpisgd_row
from benchmarks.kernel import as_in_a_shard
from benchmarks.measure import Training
from benchmarks.report import Claim, Result

LEAST_GAIN = 1.7
CASES = [(mode, workers) for mode in MODES for workers in (1, 2)]
RUNS_ALIKE, SHORT_RUNS_ALIKE = 3, 8
TO_OBJECTIVE = "s to objective"
TO_FINAL = "s to final accuracy"
ALONE, TOGETHER = "the kernel in one process", "the kernel in two processes, nothing exchanged"
IN_STEP = "the kernel in two processes, nothing exchanged, that wait for each other as in lock step"
NEAR = 1.1  # of the objective that one worker ends with
# Of the accuracy that one worker ends with. From pass to pass it varies by 0.0005: at 0.005 below the end, where a pass
# adds at most 0.003, that is a tenth of the time.
SHORT = 0.01
SPEED_PASSES = 20  # half a second or more: a tenth of one is now and then half as fast as the next
GAINS = {
    ALL_ROWS: "a pass",
    TO_ACCURACY: "time to accuracy",
    TO_OBJECTIVE: "time to objective",
    TO_FINAL: "time to final accuracy, slowly learnt rows",
}


def run(bench: Bench) -> Result:
    """Run one and two workers in turn, once for each seed."""
    result = Result("scaling", f"two workers against one on {bench.full.name}")
    rows = sets.row_count(bench.full.path, "train")
    speed_run = functools.partial(bench.speed_run, passes=SPEED_PASSES)
    for seed in bench.seeds:
        for (mode, workers), run in fastest_of_each(speed_run, seed).items():
            add_speed(result, mpisgd_row(mode, workers), run, rows)
        add_time_to_accuracy(bench, result, seed)
        add_convergence(bench, result, seed)
        add_final_accuracy(bench, result, seed)
        add_ceilings(bench, result)
    alone, together, in_step = (result.median(row, "rows/s") for row in (ALONE, TOGETHER, IN_STEP))
    for mode in MODES:
        one, two = mpisgd_row(mode, 1), mpisgd_row(mode, 2)
        for column, words in GAINS.items():
            gain = result.median(one, column) / result.median(two, column)
            result.claims.append(Claim(f"{mode}: {words}, one worker's over two's", gain, LEAST_GAIN, at_least=True))
    result.notes += [
        f"Of {RUNS_ALIKE} runs alike, in turn with the others, the fastest counts, for each seed: what else wants the"
        f" cores only slows them. Of those to an accuracy, which take milliseconds, it is {SHORT_RUNS_ALIKE}.",
        f"Two processes that exchange nothing make {together / alone:.2f} times the rows of one in a second on these"
        f" cores; if they wait for each other as in lock step, {in_step / alone:.2f} times.",
        "The time to an accuracy is that of the shortest of runs for 1/256, 1/128 ... of a pass whose model reaches it"
        " on the test rows. Here it is reached within the first turns, so half of it goes into where to begin.",
        f"The time to an objective is that until the validation objective is within {NEAR - 1:.0%} of the lowest that"
        " one worker in lock step reaches in eight passes; between two passes by a straight line, as measuring more"
        " often takes a part of the cores that learn.",
        f"The time to the final accuracy is that on generated rows whose truth is in all of 50,000 columns, until the"
        f" accuracy on the test rows is within {SHORT} of what one worker in lock step ends with after eight passes;"
        " in the same way.",
    ]
    return result


def fastest_of_each(learn: Callable[[str, int, int], Training], seed: int) -> dict[tuple[str, int], Training]:
    """Return the fastest of some runs alike by mode and workers; they take turns, so that each has quiet moments."""
    runs = [{of: learn(*of, seed) for of in CASES} for _ in range(RUNS_ALIKE)]
    return {of: min((some[of] for some in runs), key=lambda run: run.training_seconds) for of in CASES}


def add_ceilings(bench: Bench, result: Result) -> None:
    """Add what the cores allow, in turn as well."""
    whole = as_in_a_shard(sets.load(bench.full.path, "train"))
    rows: dict[str, list[float]] = {ALONE: [], TOGETHER: [], IN_STEP: []}
    for _ in range(RUNS_ALIKE):
        rows[ALONE].append(ceiling.rows_per_second(whole, 1))
        rows[TOGETHER].append(ceiling.rows_per_second(whole, 2))
        rows[IN_STEP].append(ceiling.rows_per_second(whole, 2, in_step=True))
    for row, of_runs in rows.items():
        result.figure(row, "rows/s", max(of_runs))


def add_time_to_accuracy(bench: Bench, result: Result, seed: int) -> None:
    """Add how long each takes to the target, in turn as well: by more runs, since they end within milliseconds."""
    shortest = {of: bench.shortest(*of, seed) for of in CASES}
    seconds = {of: [found[1]] if found else [] for of, found in shortest.items()}
    for _ in range(SHORT_RUNS_ALIKE - 1):
        for of, found in shortest.items():
            again = bench.seconds_there(found[0], *of, seed) if found else None
            seconds[of] += [again] if again else []
    for mode, workers in CASES:
        add_accuracy(result, mpisgd_row(mode, workers), min(seconds[mode, workers], default=math.inf))


def add_convergence(bench: Bench, result: Result, seed: int) -> None:
    """Add when each comes near the objective that one worker in lock step ends with, for a seed and its rows."""
    runs = fastest_of_each(bench.objective_run, seed)
    near = NEAR * min(line["objective"] for line in runs["sync", 1].metrics)
    for (mode, workers), run in runs.items():
        result.figure(mpisgd_row(mode, workers), TO_OBJECTIVE, run.seconds_to_objective(near))


def add_final_accuracy(bench: Bench, result: Result, seed: int) -> None:
    """Add when each comes near the accuracy that one worker in lock step ends with, where that takes passes."""
    runs = fastest_of_each(bench.long_run, seed)
    near = runs["sync", 1].metrics[-1]["accuracy"] - SHORT
    for (mode, workers), run in runs.items():
        result.figure(mpisgd_row(mode, workers), TO_FINAL, run.seconds_to_accuracy(near))
