"""Whole asynchronous runs: bounded staleness, wide rows, and turns of no columns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from mpi4py import MPI
from numpy.typing import NDArray
from runs import Result, run

from mpisgd import job, shared_weights, turns
from mpisgd.channel import Channel
from mpisgd.preprocessing import Preprocessing
from mpisgd.sparse_rows import SparseRows
from strategies import rows_from

pytestmark = pytest.mark.mpi(min_size=2)
LEARNING = ("--mode", "async", "--patience", "none", "--eval-interval", "100", "--batch-size", "5", "--iterations", "4")
BOTH_WAYS = pytest.mark.parametrize("memory", ["auto", "never"])
COLUMNS, OCCURRING = 3_000_000, 60
ROWS, NEW_ROWS = 400, 200


def finished(result: Result) -> dict[str, dict[int, int]]:
    """Return the histograms of the event that ends a run."""
    event = result.events[-1]
    assert event["event"] == "finished"
    return {name: {int(turns): n for turns, n in event[name].items()} for name in ("staleness", "turns_ahead")}


def right(result: Result) -> float:
    """Return the share of the workers' rows that the model knows."""
    margins = [s.rows.margins(result.weights, 0, len(s.rows)) * s.labels for s in result.shards]
    return float(np.mean(np.concatenate(margins) > 0))


# --- bounded staleness


@pytest.mark.parametrize("iterations", ["4", "40"])  # by keys, and of all columns
@pytest.mark.parametrize("bound", [0, 2])
@BOTH_WAYS
def test_no_worker_is_further_ahead_than_it_may(
    channel: Channel, tmp_path: Path, data: Path, bound, iterations, memory
):
    """A turn that begins is counted by how far ahead its worker is then."""
    options = (
        *LEARNING,
        "--shared-memory",
        memory,
        "--iterations",
        iterations,
        "--passes",
        "20",
        "--max-staleness",
        str(bound),
    )
    result = run(channel, tmp_path / "run", "--data", str(data), *options)
    if result:
        workers, counts = len(channel.workers), finished(result)
        assert max(counts["turns_ahead"]) <= bound
        if bound == 0:
            assert max(counts["staleness"]) <= workers - 1
        assert right(result) > 0.75


@pytest.mark.parametrize("bound", ["none", "1"])
@BOTH_WAYS
def test_every_turn_is_counted(channel: Channel, tmp_path: Path, data: Path, bound, memory):
    """When its update comes, and when its worker is let go on: but for the last, whose reply says stop."""
    options = (*LEARNING, "--shared-memory", memory, "--passes", "20", "--max-staleness", bound)
    result = run(channel, tmp_path / "run", "--data", str(data), *options)
    if result:
        counts = finished(result)
        updates = result.metrics[-1]["updates"]
        assert sum(counts["staleness"].values()) == updates
        assert sum(counts["turns_ahead"].values()) == updates - len(channel.workers)
        assert [int(worker) for worker in result.events[-1]["workers"]] == list(channel.workers)


# --- several nodes


@pytest.fixture(params=[4, 7])
def nodes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """As where there are so many workers on a node and the server is on another; the last node may have fewer."""
    of_a_node: int = request.param

    def workers_here(self: Channel) -> MPI.Intracomm:
        return self._crew.Split(color=(self.rank - 1) // of_a_node)

    monkeypatch.setattr(Channel, "share_memory", lambda self, shapes, willing: None)
    monkeypatch.setattr(Channel, "_workers_here", workers_here)
    return of_a_node


def groups(channel: Channel, of_a_node: int) -> list[list[int]]:
    return [list(channel.workers[start : start + of_a_node]) for start in range(0, len(channel.workers), of_a_node)]


@pytest.mark.parametrize(
    "options",
    [
        "--iterations 4",  # by keys
        "--iterations 40",  # of all columns, and several turns a pass for few workers only
        "--iterations auto",
        "--iterations 4 --gradient-threshold 0.01",
        "--sharding sample --iterations 2",
        "--iterations 2 --merge sum --no-bias --scale-columns always",
    ],
)
def test_the_workers_of_a_node_learn_as_one(channel: Channel, tmp_path: Path, data: Path, nodes, options):
    """A turn is counted when its node's update comes: the last ones of a node come too late."""
    options = (*LEARNING, "--passes", "20", *options.split())
    result = run(channel, tmp_path / "run", "--data", str(data), *options)
    if result:
        counts, updates = finished(result), result.metrics[-1]["updates"]
        assert result.events[0]["nodes"] == groups(channel, nodes)
        assert not result.events[-1]["in_memory"]
        assert sum(counts["staleness"].values()) == updates
        assert updates - len(channel.workers) <= sum(counts["turns_ahead"].values()) < updates
        assert result.metrics[-1]["passes"] >= 20
        for name in ("worker_told", "worker_gone"):
            assert sorted(e["worker"] for e in result.events if e["event"] == name) == list(channel.workers)
        assert right(result) > 0.75


def test_on_several_nodes_nobody_waits_for_room_when_all_is_over(
    channel: Channel, tmp_path: Path, data: Path, nodes, monkeypatch: pytest.MonkeyPatch
):
    """Room is made by the delegate, which is gone then."""
    monkeypatch.setattr(shared_weights, "turns_of_update", lambda job, workers: 1)
    result = run(channel, tmp_path / "run", "--data", str(data), *LEARNING, "--passes", "10")
    if result:
        assert result.events[-1]["reason"] == "passes"
        assert right(result) > 0.75


@pytest.mark.parametrize("options", ["--max-staleness 1", "--shared-memory never"])
def test_where_each_is_to_be_answered_nodes_share_nothing(channel: Channel, tmp_path: Path, data: Path, nodes, options):
    result = run(channel, tmp_path / "run", "--data", str(data), *LEARNING, "--passes", "5", *options.split())
    if result:
        assert result.events[0]["nodes"] == [[worker] for worker in channel.workers]


# --- wide rows


@dataclass(frozen=True)
class Wide:
    """Rows as text to learn from, and others of the same kind; the columns that occur in the text."""

    path: Path
    new: SparseRows
    new_labels: NDArray[np.float32]
    occurring: NDArray[np.intp]

    def right(self, weights: NDArray[np.float32]) -> float:
        """Return the share of the new rows that these weights, with a bias, know."""
        rows = Preprocessing(bias=True, normalize=False).apply(self.new)
        return float(np.mean(rows.margins(weights, 0, len(rows)) * self.new_labels > 0))


@pytest.fixture
def wide(tmp_path: Path) -> Wide:
    """Rows of a few columns out of 60 that are spread over three million; the same on every rank."""
    rng = np.random.default_rng(5)
    names = np.sort(rng.choice(COLUMNS - 1, OCCURRING, replace=False))
    names[-1] = COLUMNS - 1
    direction = rng.normal(size=OCCURRING)
    rows, labels = [], []
    for _ in range(ROWS + NEW_ROWS):
        places = np.sort(rng.choice(OCCURRING, size=rng.integers(4, 12), replace=False))
        values = rng.normal(size=len(places)).round(3)
        rows.append(list(zip(names[places].tolist(), values.tolist(), strict=True)))
        labels.append(1 if values @ direction[places] > 0 else -1)
    rows[0].append((COLUMNS - 1, 0.5)) if rows[0][-1][0] < COLUMNS - 1 else None
    lines = (
        " ".join([f"{label:+d}", *(f"{column + 1}:{value}" for column, value in row)])
        for row, label in zip(rows[:ROWS], labels[:ROWS], strict=True)
    )
    path = tmp_path / "wide.svm"
    path.write_text("".join(f"{line}\n" for line in lines))
    occurring = np.unique([column for row in rows[:ROWS] for column, _ in row])
    return Wide(path, rows_from(rows[ROWS:], COLUMNS), np.array(labels[ROWS:], np.float32), occurring)


def run_densely(channel: Channel, directory: Path, *arguments: str) -> Result | None:
    """Train with weights of all columns on every worker."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(turns, "WIDE", 2**62)
        patch.setattr(job, "WIDE", 2**62)
        return run(channel, directory, *arguments)


def assert_learnt_alike(wide: Wide, found: Result, densely: Result) -> None:
    """Both have learnt as much, in the columns that occur; a single worker has learnt the very same."""
    assert all(shard.rows.column_count <= OCCURRING + 1 for shard in found.shards)
    assert all(shard.rows.column_count == COLUMNS + 1 for shard in densely.shards)
    for result in (found, densely):
        for weights in (result.weights, result.last):
            assert weights.shape == (COLUMNS + 1,)
            assert set(np.flatnonzero(weights[:-1])) <= set(wide.occurring)
            assert np.isfinite(weights).all()
    assert found.events[0]["bias_step"] == pytest.approx(densely.events[0]["bias_step"])
    assert wide.right(densely.weights) > 0.8
    assert wide.right(found.weights) > wide.right(densely.weights) - 0.05
    assert found.events[-1]["measured"] > densely.events[-1]["measured"] - 0.1
    if len(found.shards) == 1:
        assert found.metrics[-1]["step_size"] == pytest.approx(densely.metrics[-1]["step_size"])
        np.testing.assert_allclose(found.last, densely.last, rtol=1e-3, atol=2e-5)


def test_wide_rows_are_learnt_as_with_weights_of_all_columns(channel: Channel, tmp_path: Path, wide: Wide):
    options = ("--data", str(wide.path), *LEARNING, "--passes", "10")
    found = run(channel, tmp_path / "own", *options)
    densely = run_densely(channel, tmp_path / "all", *options)
    if found and densely:
        assert_learnt_alike(wide, found, densely)


def test_wide_rows_go_on_from_a_model(channel: Channel, tmp_path: Path, wide: Wide):
    """Which has weights in columns, too, that no worker has: these are there in the end as well."""
    options = ("--data", str(wide.path), *LEARNING)
    first = run(channel, tmp_path / "first", *options, "--passes", "3")
    options = (*options, "--passes", "5", "--initial-model", str(tmp_path / "first" / "model.h5"))
    found = run(channel, tmp_path / "own", *options)
    densely = run_densely(channel, tmp_path / "all", *options)
    if first and found and densely:
        assert_learnt_alike(wide, found, densely)
        assert wide.right(found.weights) > wide.right(first.weights) - 0.05


@pytest.mark.parametrize(("switch", "bound"), [("--no-bias", "none"), ("--normalize", "1")])
def test_wide_rows_with_other_settings(channel: Channel, tmp_path: Path, wide: Wide, switch, bound):
    options = ("--data", str(wide.path), *LEARNING, "--passes", "3", switch, "--max-staleness", bound)
    found = run(channel, tmp_path / "own", *options)
    densely = run_densely(channel, tmp_path / "all", *options)
    if found and densely:
        assert set(np.flatnonzero(found.last[:COLUMNS])) <= set(wide.occurring)
        assert found.events[-1]["measured"] > densely.events[-1]["measured"] - 0.25
        if len(found.shards) == 1:
            np.testing.assert_allclose(found.last, densely.last, rtol=1e-3, atol=2e-5)


# --- turns of no columns


@pytest.mark.parametrize(("columns", "memory"), [(50, "auto"), (50, "never"), (COLUMNS, "auto")])
def test_turns_of_empty_rows_exchange_nothing_and_go_on(channel: Channel, tmp_path: Path, columns, memory):
    empty = [f"{sign}1\n" for sign in "-+"]
    full = [f"{label.strip()} {i % (columns - 1) + 1}:1 {columns}:0.5\n" for i in range(50) for label in empty]
    rows = [row for pair in zip(50 * empty, full, strict=True) for row in pair]
    path = tmp_path / "rows.svm"
    path.write_text("".join(rows))
    options = ("--no-bias", "--iterations", "1", "--batch-size", "1", "--passes", "2", "--patience", "none")
    options = ("--data", str(path), "--mode", "async", "--shared-memory", memory, *options)
    for bound in ("none", "0"):
        result = run(channel, tmp_path / bound, *options, "--max-staleness", bound)
        if result:
            assert result.events[-1]["in_memory"] == (memory == "auto" and columns < COLUMNS)
            assert result.events[0]["by_keys"]
            assert result.events[-1]["reason"] == "passes"
            assert result.metrics[-1]["passes"] >= 2
            assert sum(finished(result)["staleness"].values()) == result.metrics[-1]["updates"]
            assert result.last.any()
