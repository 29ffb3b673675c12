"""The RCV1 collection as Lewis, Yang, Rose and Li (2004) published it: vectors and topics of documents.

    lyrl2004_vectors_train.dat       `<document>  <term>:<weight> <term>:<weight> ...`
    lyrl2004_vectors_test_pt*.dat    the same, in four parts
    rcv1-v2.topics.qrels             `<topic> <document> 1`, a line for each topic of each document

Each may be compressed, with ".gz" after its name. One topic is chosen as the positive class.
"""

from __future__ import annotations

import difflib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpisgd.data.text_rows import TextBlock, read_blocks, read_lines
from mpisgd.errors import DataError

SOURCE = "http://www.ai.mit.edu/projects/jmlr/papers/volume5/lewis04a/"
VECTORS = {"train": "lyrl2004_vectors_train.dat", "test": "lyrl2004_vectors_test_pt*.dat"}
TOPICS = "rcv1-v2.topics.qrels"


@dataclass(frozen=True, slots=True)
class Topic:
    """The documents that have some topic at all, and which of them have the chosen one.

    documents  (documents,) int64, increasing
    positive   (documents,) bool
    path       the file that says so
    """

    documents: NDArray[np.int64]
    positive: NDArray[np.bool_]
    path: Path


def find_vectors(directory: Path, split: str) -> list[Path]:
    """Return the files of a split, "train" or "test", in order.

    Raises:
        DataError: there are none; the message says what was looked for and where it can be fetched.

    """
    return _find(directory, VECTORS[split])


def read_topic(directory: Path, topic: str) -> Topic:
    """Read which documents have a topic.

    Raises:
        DataError: the file is missing or malformed, or knows no such topic: then it names those like it.

    """
    path = _find(directory, TOPICS)[0]
    documents, chosen = array("q"), array("q")
    topics: set[bytes] = set()
    wanted = topic.encode()
    for line, content in enumerate(read_lines(path), 1):
        try:
            name, document, _ = content.split()
            documents.append(int(document))
        except (ValueError, OverflowError):
            shown = ascii(content[:40].decode("latin-1"))
            raise DataError(f"{path}: line {line}: found {shown}, expected 'topic document 1'") from None
        topics.add(name)
        if name == wanted:
            chosen.append(documents[-1])
    if wanted not in topics:
        names = sorted(name.decode("latin-1") for name in topics)
        near = difflib.get_close_matches(topic.upper(), names, n=5, cutoff=0.4) or names[:5]
        raise DataError(f"{path}: found no topic {topic!r}, expected one such as {', '.join(near) or 'CCAT'}")
    known = np.unique(np.array(documents, np.int64))
    return Topic(known, np.isin(known, np.array(chosen, np.int64)), path)


def read_split(paths: list[Path], topic: Topic) -> Iterator[TextBlock]:
    """Read rows with the label 1 for documents of the topic and -1 for all others.

    Raises:
        DataError: a file is missing or malformed, or a document is not in the file of topics.

    """
    for path in paths:
        for block in read_blocks(path):
            labels = _labels(block, topic)
            present = {label: f"{label:.0f}" for label in np.unique(labels).tolist()}
            yield replace(block, labels=labels, spellings=present)


def _labels(block: TextBlock, topic: Topic) -> NDArray[np.float64]:
    """Return +1 or -1 for every row of a block whose labels are documents."""
    places = np.searchsorted(topic.documents, block.labels)
    places = np.minimum(places, len(topic.documents) - 1)
    unknown = topic.documents[places] != block.labels
    if unknown.any():
        row = int(np.argmax(unknown))
        raise DataError(
            f"{block.path}: line {block.lines[row]}: found document {block.labels[row]:.15g},"
            f" expected one that has a topic in {topic.path}: that file may be of another collection"
        )
    return np.where(topic.positive[places], 1.0, -1.0)


def _find(directory: Path, pattern: str) -> list[Path]:
    """Return the files of a name pattern; of a plain and a compressed one of the same name, the plain one."""
    found = {path.name: path for path in sorted(directory.glob(pattern))}
    for path in sorted(directory.glob(f"{pattern}.gz")):
        found.setdefault(path.stem, path)
    if not found:
        raise DataError(
            f"{directory}: found no {pattern} and no {pattern}.gz, expected the files"
            f" {', '.join([*VECTORS.values(), TOPICS])} (each may end in .gz), to be fetched from"
            f" {SOURCE}a13-vector-files/ and {SOURCE}a08-topic-qrels/"
        )
    return [found[name] for name in sorted(found)]
