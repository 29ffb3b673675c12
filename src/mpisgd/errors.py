"""The error tree: what a user can be told, and the exit code each kind ends the program with.

MpisgdError            1
|-- UsageError         2   command line, config file, environment, number of ranks
|-- DataError          1   a file of rows or a model that is not what it should be
`-- RunError           1   something failed while running: disk, MPI, learning that diverged

The message of each is one line that names what, where, found and expected; `main` prints it after the
program's name and, under MPI, the rank's. Anything else that is raised is a defect and shows its traceback.
"""

import sys


class MpisgdError(Exception):
    """Base of everything the program says to its user instead of a traceback."""

    exit_code = 1


class UsageError(MpisgdError):
    """A setting, an option or the number of ranks is not usable."""

    exit_code = 2


class DataError(MpisgdError):
    """A data set or a model cannot be used as it is."""


class RunError(MpisgdError):
    """The run itself failed: a full disk, an unwritable directory, weights that are no longer finite."""


def report(error: BaseException, *, program: str = "mpisgd", rank: int | None = None) -> None:
    """Write the error as one line to standard error, under the program's and, on a worker, the rank's name."""
    where = f" rank {rank}:" if rank else ""
    line = str(error).replace("\n", "\\n").replace("\r", "\\r")  # file names may hold line breaks
    print(f"{program}:{where} error: {line}", file=sys.stderr, flush=True)  # noqa: T201 - the one place errors are said
