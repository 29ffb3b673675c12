"""Text to one HDF5 file, checked and in blocks, with progress on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpisgd.data import lyrl2004
from mpisgd.data.classes import class_labels, two_classes
from mpisgd.data.dataset_writer import DatasetWriter
from mpisgd.data.text_rows import TextBlock, file_bytes, read_blocks

LINE_SECONDS = 5.0  # between two lines of progress where standard error is no terminal


@dataclass(frozen=True, slots=True)
class Summary:
    """What a prepared file holds.

    splits    the number of rows of each split
    positive  the number of them in the positive class
    classes   negative and positive, as spelled
    seconds   how long it took
    """

    path: Path
    splits: dict[str, int]
    positive: dict[str, int]
    column_count: int
    elements: int
    classes: tuple[str, str]
    seconds: float


def prepare(train: Path, test: Path | None, out: Path, *, force: bool) -> Summary:
    """Write a training and a held-out svmlight file as one data set.

    Raises:
        UsageError: `out` exists and `force` is not set.
        DataError: a file is missing or malformed, the training labels are not exactly two, or a test label
            is neither of them.
        RunError: the disk is full or fails.

    """
    paths = {"train": train} if test is None else {"train": train, "test": test}
    total = sum(file_bytes(path) for path in paths.values())
    return write_dataset(out, {split: read_blocks(path) for split, path in paths.items()}, total, force=force)


def prepare_lyrl2004(directory: Path, topic: str, out: Path, *, force: bool) -> Summary:
    """Write the RCV1 collection in a directory as one data set, one topic against all others.

    Raises:
        UsageError, DataError, RunError: as `prepare`; DataError too for a topic that does not exist.

    """
    paths = {split: lyrl2004.find_vectors(directory, split) for split in lyrl2004.VECTORS}
    total = sum(file_bytes(path) for path in chain.from_iterable(paths.values()))
    chosen = lyrl2004.read_topic(directory, topic)
    sources = {split: lyrl2004.read_split(paths[split], chosen) for split in paths}
    return write_dataset(out, sources, total, force=force)


def write_dataset(out: Path, sources: Mapping[str, Iterable[TextBlock]], total_bytes: int, *, force: bool) -> Summary:
    """Write blocks of text as the splits of one data set, in order; the first split decides on the classes.

    Memory holds a block, and of the whole a few bytes a row. `total_bytes` is the size of all text files.

    Raises:
        UsageError, DataError, RunError: as `prepare`.

    """
    start = time.monotonic()
    with DatasetWriter(out, force=force) as writer, progress(f"writing {out}", total_bytes) as advance:
        copied = {split: _copy(blocks, split, writer, advance) for split, blocks in sources.items()}
        first, *others = copied
        classes, labels = _first_labels(copied[first])
        positive = {first: labels}
        for split in others:
            positive[split] = np.concatenate([class_labels(block, classes) > 0 for block in copied[split]])
        writer.finish(np.concatenate(list(positive.values())), classes)
    return Summary(
        out,
        {split: len(labels) for split, labels in positive.items()},
        {split: int(labels.sum()) for split, labels in positive.items()},
        writer.column_count,
        writer.elements,
        classes,
        time.monotonic() - start,
    )


def _copy(
    blocks: Iterable[TextBlock], split: str, writer: DatasetWriter, advance: Callable[[int], None]
) -> Iterator[TextBlock]:
    """Write the rows of blocks as they are asked for, and pass the blocks on for their labels."""
    path, before = None, 0
    for block in blocks:
        before = before if block.path == path else 0
        advance(block.position - before)
        path, before = block.path, block.position
        writer.append(split, block.rows)
        yield block


def _first_labels(blocks: Iterable[TextBlock]) -> tuple[tuple[str, str], NDArray[np.bool_]]:
    """Return the classes found in a split and which rows are positive; a third label is an error at once."""
    spellings: dict[float, str] = {}
    labels = []
    for block in blocks:
        spellings = block.spellings | spellings
        if len(spellings) > 2:
            break
        labels.append(block.labels)
    classes = two_classes(spellings, str(block.path))
    return classes, np.concatenate(labels) == max(spellings)


def describe(summary: Summary) -> str:
    """Return in a few lines what was written and what to do next."""
    negative, positive = summary.classes
    lines = [f"{summary.path}: {summary.column_count} columns, {summary.elements} non-zeros"]
    for split, rows in summary.splits.items():
        share = summary.positive[split] / rows
        lines.append(f"  {split}: {rows} rows, {share:.1%} of class {positive}, {1 - share:.1%} of class {negative}")
    lines.append(f"  in {summary.seconds:.1f} s. Next: mpirun -n 9 python -m mpisgd --data {summary.path}")
    return "\n".join(lines)


@contextmanager
def progress(what: str, total_bytes: int) -> Iterator[Callable[[int], None]]:
    """Show on standard error how far reading is; call what is yielded with each count of further bytes.

    A terminal gets a bar; a file gets a line at the start, one about every five seconds, and one at the end.
    """
    if sys.stderr.isatty():
        with _bar(what, total_bytes) as advance:
            yield advance
        return
    done, shown = 0, time.monotonic()

    def count(count_bytes: int) -> None:
        nonlocal done, shown
        done += count_bytes
        if time.monotonic() - shown >= LINE_SECONDS:
            shown = time.monotonic()
            _tell(f"{what}: {done / 1e6:.1f} of {total_bytes / 1e6:.1f} MB read")

    _tell(f"{what}: {total_bytes / 1e6:.1f} MB to read")
    yield count
    _tell(f"{what}: done")


@contextmanager
def _bar(what: str, total_bytes: int) -> Iterator[Callable[[int], None]]:
    """Show a bar; call what is yielded with each count of further bytes."""
    from rich.console import Console  # noqa: PLC0415 - slow to import, and only terminals need it
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn  # noqa: PLC0415

    columns = ("{task.description}", BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total_bytes)
        yield lambda count_bytes: bar.update(task, advance=count_bytes)


def _tell(line: str) -> None:
    """Write a line of progress at once."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
