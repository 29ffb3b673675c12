"""Two workers against one on the full-size set, in lock step and asynchronously."""

from __future__ import annotations

from benchmarks import sets
from benchmarks.bench import MODES, TO_ACCURACY, Bench, add_accuracy, add_speed, mpisgd_row
from benchmarks.report import Claim, Result

LEAST_GAIN = 1.7


def run(bench: Bench) -> Result:
    """Run one and two workers in turn, once for each seed."""
    result = Result("scaling", f"two workers against one on {bench.full.name}")
    rows = sets.row_count(bench.full.path, "train")
    for seed in bench.seeds:
        for mode in MODES:
            for workers in (1, 2):
                row = mpisgd_row(mode, workers)
                add_speed(result, row, bench.speed_run(mode, workers, seed), rows)
                add_accuracy(result, row, bench.accuracy_run(mode, workers, seed), bench.full.target)
    for mode in MODES:
        one, two = mpisgd_row(mode, 1), mpisgd_row(mode, 2)
        rate = result.median(two, "rows/s") / result.median(one, "rows/s")
        sooner = result.median(one, TO_ACCURACY) / result.median(two, TO_ACCURACY)
        result.claims += [
            Claim(f"{mode}: rows/s, two workers over one", rate, LEAST_GAIN, at_least=True),
            Claim(f"{mode}: time to accuracy, one worker's over two's", sooner, LEAST_GAIN, at_least=True),
        ]
    result.notes.append("The time to an accuracy is measured on the test rows, in runs of its own.")
    return result
