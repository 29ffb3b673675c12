"""The rows' way from a data set to the workers: nothing lost, nothing twice, nothing changed."""

from __future__ import annotations

from functools import partialmethod

import numpy as np
import pytest
from mpi4py import MPI
from scipy.sparse import csr_matrix, random_array

from mpisgd.channel import SERVER, Channel
from mpisgd.config import Config
from mpisgd.data.dataset import MemoryDataset
from mpisgd.job import Job
from mpisgd.learner import ShardFeed
from mpisgd.messages import pack_rows, pack_rows_end
from mpisgd.rank0_rows import RowPlan, SampleSender, read_learning_rows, scatter_held_out, scatter_partition
from mpisgd.shard import Shard
from mpisgd.sharding import sample_size
from mpisgd.sparse_rows import SparseRows

pytestmark = pytest.mark.mpi(min_size=2)
ROWS, COLUMNS = 500, 40


def made_rows() -> MemoryDataset:
    """Rows that differ from one another, some of them empty: the first column numbers them."""
    values = random_array((ROWS, COLUMNS), density=0.1, rng=5).toarray()
    values[:, 0] = np.arange(ROWS)
    values[::17] = 0
    matrix = csr_matrix(values, dtype=np.float32)
    labels = np.where(np.arange(ROWS) % 3 == 0, 1, -1).astype(np.float32)
    rows = SparseRows.checked(matrix.data, matrix.indices, matrix.indptr, COLUMNS, where="made")
    return MemoryDataset("made", COLUMNS, ("-1", "1"), {"train": (rows, labels)})


def dense(shard: Shard) -> np.ndarray:
    """The rows with their labels as a last column."""
    rows = shard.rows
    matrix = csr_matrix((rows.values, rows.columns, rows.row_pointers), shape=(len(rows), rows.column_count))
    return np.column_stack([matrix.toarray(), shard.labels])


def next_shard(feed: ShardFeed) -> Shard | None:
    shard = feed.take()
    feed.ask_next()
    return shard


def in_order(matrix: np.ndarray) -> np.ndarray:
    return matrix[np.lexsort(matrix.T)]


def test_a_partition_gives_every_row_to_one_worker_or_keeps_it(channel: Channel, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(MemoryDataset, "blocks", partialmethod(MemoryDataset.blocks, block_elements=97))
    config = Config(bias=False, seed=3)
    job = Job(config, COLUMNS, ROWS)
    if channel.rank == SERVER:
        plan = RowPlan(made_rows(), config, len(channel.workers))
        mine = scatter_partition(channel, made_rows(), plan.owner)
        channel.wait_until_sent()
    else:
        received = ShardFeed(channel, job).take()
        assert received is not None
        mine = received
    parts = MPI.COMM_WORLD.gather(dense(mine))
    if channel.rank == SERVER:
        rows, labels = made_rows()._parts["train"]
        np.testing.assert_array_equal(in_order(np.vstack(parts)), in_order(dense(Shard(rows, labels))))
        assert len(parts[0]) == round(0.05 * ROWS)
        sizes = [len(part) for part in parts[1:]]
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("rows", [1, 7, 400])
def test_every_worker_is_sent_a_part_of_the_held_out_rows_after_its_shard(channel, monkeypatch, rows):
    """Also where there are fewer than workers, and where they come in several blocks."""
    monkeypatch.setattr("mpisgd.rank0_rows.BLOCK_ELEMENTS", 50)
    all_rows = Shard(*made_rows()._parts["train"])
    job = Job(Config(bias=True, normalize=True), COLUMNS - 1, 1)  # what is held out is preprocessed already
    if channel.rank == SERVER:
        for worker in channel.workers:
            channel.server_send_rows(worker, pack_rows(all_rows.rows.part(0, 3), all_rows.labels[:3], 3, 9))
        scatter_held_out(channel, all_rows.first(rows))
        channel.wait_until_sent()
        part = all_rows.first(0)
    else:
        feed = ShardFeed(channel, job)
        first, received = feed.take(), feed.take_held_out()
        assert first is not None
        assert received is not None
        assert len(first.rows) == 3
        part = received
    parts = MPI.COMM_WORLD.gather(dense(part))
    if channel.rank == SERVER:
        np.testing.assert_array_equal(np.vstack(parts), dense(all_rows.first(rows)))
        sizes = [len(part) for part in parts[1:]]
        assert max(sizes) - min(sizes) <= 1


def test_samples_come_anew_and_in_whole(channel: Channel, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mpisgd.rank0_rows.BLOCK_ELEMENTS", 50)
    config = Config(bias=False, sharding="sample", seed=8)
    samples = 3
    size = sample_size(ROWS - round(0.05 * ROWS), len(channel.workers))
    if channel.rank == SERVER:
        plan = RowPlan(made_rows(), config, len(channel.workers))
        learning, kept = read_learning_rows(made_rows(), plan.owner)
        assert (len(learning.rows), len(kept.rows)) == (ROWS - round(0.05 * ROWS), round(0.05 * ROWS))
        sender = SampleSender(channel, learning, config.seed)
        for worker in channel.workers:
            sender.begin(worker)
        for _ in range(samples * len(channel.workers)):
            channel.wait_until(
                lambda: (letter := channel.server_poll()) and not sender.begin(letter.worker), sender.advance
            )
        for worker in channel.workers:
            sender.end(worker)
        sender.finish()
        channel.wait_until_sent()
        expected = dense(learning)
        gathered = MPI.COMM_WORLD.gather(None)[1:]
        for shards in gathered:
            for shard in shards:
                assert shard.shape == (size, COLUMNS + 1)
                matches = (shard[:, None, :] == expected[None]).all(axis=2)
                assert matches.any(axis=1).all()
            if size > 5:
                assert not np.array_equal(in_order(shards[0]), in_order(shards[1]))
    else:
        feed = ShardFeed(channel, Job(config, COLUMNS, ROWS))
        shards = [next_shard(feed) for _ in range(samples)]
        assert all(shard is not None for shard in shards)
        feed.drain()
        MPI.COMM_WORLD.gather([dense(shard) for shard in shards if shard is not None])


def test_a_worker_that_waits_for_rows_learns_that_none_will_come(channel: Channel):
    if channel.rank == SERVER:
        for worker in channel.workers:
            channel.server_send_rows(worker, pack_rows_end())
        channel.wait_until_sent()
    else:
        assert ShardFeed(channel, Job(Config(), COLUMNS, ROWS)).take() is None
