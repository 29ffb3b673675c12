"""Several nodes: each node's turns merged in its memory first, against every worker's by messages, asynchronously.

The nodes are this machine's ranks as MPICH divides them, so all share its cores, and messages stay within it.
"""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.measure import RunFailedError, mpi_flavour
from benchmarks.report import Claim, Result

WAYS = {"by delegates": "auto", "by messages": "never"}
# By nodes and workers in all, the least gain in rows/s. Four workers a server keeps busy by messages, too.
LEAST_GAIN = {(2, 4): 1.0, (2, 8): 1.2, (2, 16): 1.2, (4, 16): 1.2}
OF_FULL = ("--passes", "3", "--patience", "none")
MOST_OBJECTIVE = 1.1  # times that by messages
MOST_PASSES = 1.5  # times one worker's
MOST_SHORT = 0.003  # of one worker's accuracy
ALONE = "1 worker"


def run(bench: Bench) -> Result:
    """Train either way in turn, once for each seed and number of workers, on the full-size set and on the base.

    Raises:
        RunFailedError: there is no MPICH.

    """
    python = next((python for python in bench.pythons if mpi_flavour(python) == "MPICH"), None)
    if python is None:
        raise RunFailedError("found no MPICH, expected it: it alone takes ranks of one host for those of several nodes")
    result = Result("nodes", f"{bench.full.name}, three passes; accuracy and passes: {bench.base.name}, nothing set")
    for seed in bench.seeds:
        add_learnt(bench, result, ALONE, 1, seed, python=python)
        for nodes, workers in LEAST_GAIN:
            for way, memory in WAYS.items():
                row, options = name_of(nodes, workers, way), ("--shared-memory", memory)
                add_full(bench, result, row, workers, seed, *options, python=python, nodes=nodes)
                add_learnt(bench, result, row, workers, seed, *options, python=python, nodes=nodes)
    result.claims += [claim for nodes, workers in LEAST_GAIN for claim in claims(result, nodes, workers)]
    return result


def name_of(nodes: int, workers: int, way: str) -> str:
    """Return a row's name."""
    return f"{nodes} nodes, {workers} workers, {way}"


def add_full(
    bench: Bench, result: Result, row: str, workers: int, seed: int, *options: str, python: str, nodes: int
) -> None:
    """Learn the full-size set, and add how fast that was and how far it came."""
    fixed = ("--regularization", repr(bench.full.regularization), *OF_FULL)
    training = bench.train(bench.full.path, "async", workers, seed, *fixed, *options, python=python, nodes=nodes)
    last = training.metrics[-1]
    result.figure(row, "rows/s", training.rows_per_second)
    result.figure(row, "objective", last["objective"])
    result.figure(row, "bytes a turn", last["bytes_up_per_update"] + last["bytes_down_per_update"])


def add_learnt(
    bench: Bench, result: Result, row: str, workers: int, seed: int, *options: str, python: str, nodes: int = 1
) -> None:
    """Learn the base with nothing set, and add how well and in how many passes."""
    training = bench.train(bench.base.path, "async", workers, seed, *options, python=python, nodes=nodes)
    result.figure(row, "test accuracy", training.test_accuracy)
    result.figure(row, "passes", training.passes)
    result.figure(row, "s", training.training_seconds)


def claims(result: Result, nodes: int, workers: int) -> list[Claim]:
    """Return what is claimed of so many workers."""
    delegates, messages = (name_of(nodes, workers, way) for way in WAYS)

    def ratio(of: str, figure: str, to: str) -> float:
        return result.median(of, figure) / result.median(to, figure)

    setting = f"{nodes} nodes, {workers} workers by delegates"
    gain = ratio(delegates, "rows/s", messages)
    short = result.median(ALONE, "test accuracy") - result.median(delegates, "test accuracy")
    return [
        Claim(f"{setting}: rows/s, over those by messages", gain, LEAST_GAIN[nodes, workers], at_least=True),
        Claim(f"{setting}: objective, over that by messages", ratio(delegates, "objective", messages), MOST_OBJECTIVE),
        Claim(f"{setting}: passes, over one worker's", ratio(delegates, "passes", ALONE), MOST_PASSES),
        Claim(f"{setting}: accuracy short of one worker's", short, MOST_SHORT),
    ]
