"""Make one HDF5 data set for mpisgd of RCV1 (or any svmlight files), or fetch the public RCV1 files.

python data/prepare_rcv1.py --libsvm rcv1_train.binary.bz2 --test rcv1_test.binary.bz2 --out rcv1.h5
python data/prepare_rcv1.py --lyrl2004 DIR --topic CCAT --out rcv1.h5
python data/prepare_rcv1.py --download libsvm --into DIR
"""

import argparse
import shutil
import sys
import urllib.request
from http.client import HTTPException
from pathlib import Path

from mpisgd.data.lyrl2004 import SOURCE
from mpisgd.data.prepare import describe, prepare, prepare_lyrl2004
from mpisgd.errors import MpisgdError, report
from mpisgd.interrupt import interruptible

PROGRAM = "prepare_rcv1"
TIMEOUT_SECONDS = 30.0
LIBSVM = "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/binary/"
VECTORS = SOURCE + "a13-vector-files/lyrl2004_vectors_"
FILES = {
    "libsvm": [LIBSVM + "rcv1_train.binary.bz2", LIBSVM + "rcv1_test.binary.bz2"],
    "lyrl2004": [
        *(f"{VECTORS}{part}.dat.gz" for part in ("train", "test_pt0", "test_pt1", "test_pt2", "test_pt3")),
        SOURCE + "a08-topic-qrels/rcv1-v2.topics.qrels.gz",
    ],
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code.

    It is 0, 1 for faulty data, 2 for usage, 130 for Ctrl-C or 143 for SIGTERM.
    """
    chosen = _parse(arguments)
    try:
        with interruptible():
            if chosen.download:
                return download(FILES[chosen.download], chosen.into)
            if chosen.libsvm:
                summary = prepare(chosen.libsvm, chosen.test, chosen.out, force=chosen.force)
            else:
                summary = prepare_lyrl2004(chosen.lyrl2004, chosen.topic, chosen.out, force=chosen.force)
        print(describe(summary))
    except MpisgdError as error:
        report(error, program=PROGRAM)
        return error.exit_code
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options; argparse ends the program with 2 where they do not go together."""
    parser = argparse.ArgumentParser(PROGRAM, description=(__doc__ or "").splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--libsvm", type=Path, metavar="TRAIN", help="svmlight text, also .bz2 or .gz")
    what.add_argument("--lyrl2004", type=Path, metavar="DIR", help="directory of the collection's own files")
    what.add_argument("--download", choices=FILES, help="fetch the public files and stop")
    parser.add_argument("--test", type=Path, help="held-out rows, with --libsvm")
    parser.add_argument("--topic", help="the positive class, with --lyrl2004 (default: CCAT)")
    parser.add_argument("--out", type=Path, metavar="FILE.h5", help="the file to write")
    parser.add_argument("--force", action="store_true", help="replace the file to write if it exists")
    parser.add_argument("--into", type=Path, metavar="DIR", help="where to put fetched files (default: .)")
    chosen = parser.parse_args(arguments)
    for option, wanted in (("test", "libsvm"), ("topic", "lyrl2004"), ("into", "download")):
        if getattr(chosen, option) is not None and not getattr(chosen, wanted):
            parser.error(f"--{option} goes with --{wanted}")
    if not chosen.download and not chosen.out:
        parser.error("--out FILE.h5 is missing")
    if chosen.download and (chosen.out or chosen.force):
        parser.error("--out and --force do not go with --download")
    chosen.topic, chosen.into = chosen.topic or "CCAT", chosen.into or Path()
    return chosen


def download(urls: list[str], into: Path) -> int:
    """Fetch files that are not there yet, or say which to fetch by hand; return the exit code."""
    missing = [url for url in urls if not (into / _name(url)).exists()]
    for url in missing:
        print(f"fetching {url}")
        try:
            into.mkdir(parents=True, exist_ok=True)
            fetch(url, into / _name(url))
        except (OSError, HTTPException) as error:
            print(f"{PROGRAM}: error: {url}: {getattr(error, 'reason', error)}", file=sys.stderr)
            print(f"Fetch these files by hand and put them into {into.resolve()}:", file=sys.stderr)
            for wanted in (url for url in missing if not (into / _name(url)).exists()):
                print(f"  {wanted}", file=sys.stderr)
            return 1
    print(f"in {into.resolve()}: {', '.join(map(_name, urls))}")
    return 0


def fetch(url: str, target: Path) -> None:
    """Fetch one file; `target` appears only when it is complete."""
    partial = target.with_name(f"{target.name}.partial")
    try:
        with (
            urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as reply,  # noqa: S310 - the addresses above
            partial.open("wb") as file,
        ):
            shutil.copyfileobj(reply, file)
        expected = reply.headers.get("Content-Length")
        if expected is not None and partial.stat().st_size != int(expected):
            raise OSError(f"found {partial.stat().st_size} bytes, expected {expected}")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _name(url: str) -> str:
    """Return the file name at the end of an address."""
    return url.rpartition("/")[2]


if __name__ == "__main__":
    sys.exit(main())
