"""Two workers against one on the full-size set, in lock step and asynchronously."""

from __future__ import annotations

from benchmarks import ceiling, sets
from benchmarks.bench import MODES, TO_ACCURACY, Bench, add_accuracy, add_speed, mpisgd_row
from benchmarks.report import Claim, Result

LEAST_GAIN = 1.7
TO_OBJECTIVE = "s to objective"
ALONE, TOGETHER = "the kernel in one process", "the kernel in two processes, nothing exchanged"
NEAR = 1.1  # of the objective that one worker ends with


def run(bench: Bench) -> Result:
    """Run one and two workers in turn, once for each seed."""
    result = Result("scaling", f"two workers against one on {bench.full.name}")
    rows = sets.row_count(bench.full.path, "train")
    for seed in bench.seeds:
        for mode in MODES:
            for workers in (1, 2):
                row = mpisgd_row(mode, workers)
                add_speed(result, row, bench.speed_run(mode, workers, seed), rows)
                add_accuracy(result, row, bench.accuracy_run(mode, workers, seed))
        add_convergence(bench, result, seed)
        for row, processes in ((ALONE, 1), (TOGETHER, 2)):
            result.figure(row, "rows/s", ceiling.rows_per_second(bench.full.path, processes))
    of_cores = result.median(TOGETHER, "rows/s") / result.median(ALONE, "rows/s")
    for mode in MODES:
        one, two = mpisgd_row(mode, 1), mpisgd_row(mode, 2)
        rate = result.median(two, "rows/s") / result.median(one, "rows/s")
        sooner = result.median(one, TO_ACCURACY) / result.median(two, TO_ACCURACY)
        result.claims += [
            Claim(f"{mode}: rows/s, two workers over one", rate, LEAST_GAIN, at_least=True),
            Claim(f"{mode}: time to accuracy, one worker's over two's", sooner, LEAST_GAIN, at_least=True),
        ]
        sooner = result.median(one, TO_OBJECTIVE) / result.median(two, TO_OBJECTIVE)
        result.claims.append(
            Claim(f"{mode}: time to objective, one worker's over two's", sooner, LEAST_GAIN, at_least=True)
        )
    result.notes += [
        f"Two processes that exchange nothing make {of_cores:.2f} times the rows of one in a second on these cores.",
        "The time to an accuracy is that of the shortest of runs for 1/64, 1/32 ... of a pass whose model reaches it on"
        " the test rows. Here it is reached within the first turns, so a part of it goes into where to begin.",
        f"The time to an objective is that until the validation objective is within {NEAR - 1:.0%} of the lowest that"
        " one worker in lock step reaches in eight passes; between two passes by a straight line, as measuring more"
        " often takes a part of the cores that learn.",
    ]
    return result


def add_convergence(bench: Bench, result: Result, seed: int) -> None:
    """Add when each comes near the objective that one worker in lock step ends with, for a seed and its rows."""
    runs = {(mode, workers): bench.objective_run(mode, workers, seed) for mode in MODES for workers in (1, 2)}
    near = NEAR * min(line["objective"] for line in runs["sync", 1].metrics)
    for (mode, workers), run in runs.items():
        result.figure(mpisgd_row(mode, workers), TO_OBJECTIVE, run.seconds_to_objective(near))
