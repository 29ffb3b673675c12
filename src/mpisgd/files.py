"""Files that are either the old one or the whole new one, never something in between."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from mpisgd.errors import RunError


def write_atomically(path: Path, content: bytes) -> None:
    """Write under a temporary name beside `path`, flush to disk, rename.

    Raises:
        RunError: the disk is full or the directory not writable; what was there before is untouched.

    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise RunError(f"{path}: cannot write: {error.strerror}; what was there before is unchanged") from error
