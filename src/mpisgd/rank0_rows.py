"""Rank 0's way with the rows: it reads them once, keeps those held out and sends each worker its shard."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpisgd.channel import Channel
from mpisgd.compiled_loops import Float
from mpisgd.config import Config
from mpisgd.data.dataset import Dataset
from mpisgd.errors import DataError
from mpisgd.messages import Bytes, pack_rows, pack_rows_end
from mpisgd.preprocessing import Preprocessing
from mpisgd.scaling import scale
from mpisgd.shard import Shard
from mpisgd.sharding import NOBODY, choose_validation, contiguous_parts, partition, sample_size
from mpisgd.sparse_rows import SparseRows, concatenate

# Elements of one message of rows that are in memory: 8 bytes each, so about 8 MB.
BLOCK_ELEMENTS = 1_000_000


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Rows that no worker learns from: those measured on while training, and the test rows, if there are any."""

    measured: Shard
    test: Shard | None

    def scale_columns(self, scales: Float) -> None:
        """Multiply all columns by their scales, float32 (column_count,), in place."""
        scale(self.measured.rows, scales)
        if self.test is not None and self.test is not self.measured:
            scale(self.test.rows, scales)


class RowPlan:
    """Which training rows are learnt from, by whom, and which rows are measured on.

    Rows are measured on a split of the file, where it has the one that is wanted, or else on some of the
    training rows, which are then nobody's.
    """

    def __init__(self, dataset: Dataset, config: Config, workers: int) -> None:
        if "train" not in dataset.splits:
            found = ", ".join(dataset.splits) or "none"
            raise DataError(f"{dataset.name}: found the splits {found}, expected a split 'train'")
        self.measured_split = _measured_split(dataset, config)
        rng = np.random.default_rng(config.seed)
        rows = dataset.splits["train"]
        held_out = np.zeros(rows, np.bool_) if self.measured_split else choose_validation(rows, rng)
        self.learning_rows = rows - int(held_out.sum())
        self.held_out_rows = dataset.splits[self.measured_split] if self.measured_split else rows - self.learning_rows
        if self.learning_rows < workers:
            raise DataError(
                f"{dataset.name}: found {self.learning_rows} rows to learn from"
                f" ({rows - self.learning_rows} more held out), expected at least one for each of the"
                f" {workers} workers; start fewer ranks"
            )
        self.owner = partition(held_out, workers if config.sharding == "partition" else 1, rng)


def _measured_split(dataset: Dataset, config: Config) -> str | None:
    """Return the split of the file to measure on, or None for some of the training rows."""
    if config.eval_split == "test" and not dataset.splits.get("test"):
        raise DataError(
            f"{dataset.name}: found no rows of a split 'test', expected some for eval_split = test;"
            " add it with 'mpisgd prepare TRAIN --test TEST'"
        )
    return config.eval_split if dataset.splits.get(config.eval_split) else None


def read_split(dataset: Dataset, split: str, preprocessing: Preprocessing) -> Shard:
    """Read a whole split into memory, preprocessed."""
    blocks = list(dataset.blocks(split))
    rows = concatenate([preprocessing.apply(block.rows) for block in blocks], preprocessing.width(dataset.column_count))
    return Shard(rows.narrow(), np.concatenate([np.empty(0, np.float32), *(block.labels for block in blocks)]))


def scatter_partition(channel: Channel, dataset: Dataset, owner: NDArray[np.int32]) -> Shard:
    """Send every worker its rows, block by block as they are read; return the rows of nobody, as they came.

    The last block under way to each worker and the one being read are all that is in memory.
    """
    workers = len(channel.workers)
    lengths = dataset.row_lengths("train")
    shard_rows = np.bincount(owner + 1, minlength=workers + 1)
    shard_elements = np.bincount(owner + 1, weights=lengths, minlength=workers + 1)
    kept: list[Shard] = []
    for block in dataset.blocks("train"):
        owners = owner[block.first : block.first + len(block.rows)]
        kept.append(_pick(block.rows, block.labels, owners == NOBODY))
        for worker in channel.workers:
            part = _pick(block.rows, block.labels, owners == worker - 1)
            if len(part.rows):
                totals = int(shard_rows[worker]), int(shard_elements[worker])
                channel.server_send_rows(worker, pack_rows(part.rows, part.labels, *totals))
    return _join(kept, dataset.column_count)


def scatter_held_out(channel: Channel, held_out: Shard) -> None:
    """Send every worker its part of the rows that weights are measured on, which are preprocessed."""
    parts = contiguous_parts(len(held_out.rows), len(channel.workers))
    for worker, part in zip(channel.workers, parts, strict=True):
        for block in _packed(held_out, np.arange(part.start, part.stop)):
            channel.server_send_rows(worker, block)


def read_learning_rows(dataset: Dataset, owner: NDArray[np.int32]) -> tuple[Shard, Shard]:
    """Read all training rows into memory, as they came: those to learn from, and those of nobody."""
    learning, kept = [], []
    for block in dataset.blocks("train"):
        nobodys = owner[block.first : block.first + len(block.rows)] == NOBODY
        kept.append(_pick(block.rows, block.labels, nobodys))
        learning.append(_pick(block.rows, block.labels, ~nobodys))
    return _join(learning, dataset.column_count), _join(kept, dataset.column_count)


class SampleSender:
    """Sends each worker one random sample of n / (2 x workers) rows after the other, a block at a time.

    Sample d of a worker depends on the seed, the worker and d alone, not on when it is asked for.
    """

    def __init__(self, channel: Channel, learning: Shard, seed: int) -> None:
        self._channel, self._learning, self._seed = channel, learning, seed
        self._draws = dict.fromkeys(channel.workers, 0)
        self._blocks: dict[int, Iterator[Bytes]] = {}

    def begin(self, worker: int) -> None:
        """Start to send this worker its next sample."""
        self._blocks[worker] = self._sample(worker, self._draws[worker])
        self._draws[worker] += 1

    def end(self, worker: int) -> None:
        """Send this worker the word that no more rows will come, in place of what is not sent yet."""
        self._blocks[worker] = iter([pack_rows_end()])

    def advance(self) -> bool:
        """Send a block to every worker that has taken the last one; tell whether there was any to send."""
        sent = False
        for worker, blocks in list(self._blocks.items()):
            if self._channel.server_can_send_rows(worker):
                block = next(blocks, None)
                if block is None:
                    del self._blocks[worker]
                else:
                    self._channel.server_send_rows(worker, block)
                    sent = True
        return sent

    def finish(self) -> None:
        """Send all that is left to send."""
        self._channel.wait_until(lambda: not self._blocks, self.advance)

    def _sample(self, worker: int, draw: int) -> Iterator[Bytes]:
        rng = np.random.default_rng([self._seed, worker, draw + 1])
        rows = len(self._learning.rows)
        chosen = rng.choice(rows, size=sample_size(rows, len(self._channel.workers)), replace=False)
        return _packed(self._learning, chosen)


def _packed(shard: Shard, chosen: NDArray[np.int64]) -> Iterator[Bytes]:
    """Yield the chosen rows in packed blocks; of none, one that says so."""
    lengths = shard.rows.lengths(chosen)
    block_of_row = np.cumsum(lengths, dtype=np.int64) // BLOCK_ELEMENTS
    for part in np.split(chosen, np.flatnonzero(np.diff(block_of_row)) + 1):
        yield pack_rows(shard.rows.take(part), shard.labels[part], len(chosen), int(lengths.sum()))


def _pick(rows: SparseRows, labels: Float, mask: NDArray[np.bool_]) -> Shard:
    chosen = np.flatnonzero(mask)
    return Shard(rows.take(chosen), labels[chosen])


def _join(parts: list[Shard], column_count: int) -> Shard:
    labels = np.concatenate([np.empty(0, np.float32), *(part.labels for part in parts)])
    return Shard(concatenate([part.rows for part in parts], column_count), labels)
