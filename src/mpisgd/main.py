"""From the command line to a role to an exit code. The work is in the rooms below."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mpisgd.command_line import split_command, training_parser
from mpisgd.errors import MpisgdError, RunError, UsageError, report
from mpisgd.interrupt import Interrupt, leave_signals_to_the_server

if TYPE_CHECKING:
    from mpisgd.channel import Channel

# What launchers tell a process about itself before MPI starts: (rank, number of ranks).
LAUNCHER_VARIABLES = (
    ("PMI_RANK", "PMI_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
)


def entry_point() -> None:
    """Run the program and end the process with its exit code.

    The collector of cyclic garbage stays out of it: it would go through all that NumPy, HDF5 and MPI set up, again and
    again while they are imported and once more at the end, a tenth of a short run. Turns leave no cycles: memory stays
    as it is over 90,000 of them.
    """
    gc.disable()
    code = main(sys.argv[1:], os.environ)
    gc.freeze()
    sys.exit(code)


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Return the exit code: 0, 1 for data and run-time faults, 2 for usage, 128 + signal for an early interruption."""
    rank, ranks = _launched_as(environment)
    try:
        command, rest = split_command(arguments)
        if command == "train":
            return _train(rest, environment, rank)
        if ranks > 1:
            raise UsageError(f"command line: '{command}' on {ranks} ranks, expected one: leave out mpirun")
        from mpisgd.commands import COMMANDS  # noqa: PLC0415 - training starts faster without

        COMMANDS[command](rest)
    except MpisgdError as error:
        if rank == 0:
            report(error)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def _launched_as(environment: Mapping[str, str]) -> tuple[int, int]:
    """Return this process's rank and how many were launched, as far as the launcher said; else (0, 1)."""
    for rank, ranks in LAUNCHER_VARIABLES:
        if rank in environment:
            return int(environment[rank]), int(environment.get(ranks, "1"))
    return 0, 1


def _train(arguments: Sequence[str], environment: Mapping[str, str], rank: int) -> int:
    if {"-h", "--help", "--version"} & set(arguments):
        if rank == 0:
            training_parser().parse(arguments)
        return 0
    interrupt = Interrupt()  # from here on no signal ends one rank alone while the others wait for it
    try:
        import mpi4py  # noqa: PLC0415 - nothing but training may start MPI

        mpi4py.rc.threads = False
        # Open MPI's windows over UCX, which serve no window of one node, say so in a line of error on every rank.
        os.environ.setdefault("OMPI_MCA_osc", "^ucx")
        from mpi4py import MPI  # noqa: PLC0415
    except (ImportError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(f"cannot load an MPI library: {reason}; install one: pip install 'mpisgd[mpich]'") from error
    from mpisgd.channel import SERVER, Channel  # noqa: PLC0415

    channel = Channel(MPI.COMM_WORLD)
    try:
        if channel.rank == SERVER:
            _serve(channel, arguments, environment, interrupt)
        else:
            _work(channel)
    except MpisgdError as error:
        report(error, rank=channel.rank)
        return error.exit_code
    except BaseException:  # a defect, whatever it is: the other ranks must not wait for this one
        import traceback  # noqa: PLC0415 - most runs need it not

        try:
            traceback.print_exc()
            report(RunError("this rank failed; ending the job"), rank=channel.rank)
        finally:
            channel.abort(1)
    return 0


def _serve(channel: Channel, arguments: Sequence[str], environment: Mapping[str, str], interrupt: Interrupt) -> None:
    from mpisgd.training import train  # noqa: PLC0415 - rank 0 alone reads settings and files

    if not channel.workers:
        raise UsageError(
            "found one rank, expected at least two, a server and a worker: start it with"
            " mpirun -n 9 python -m mpisgd (or mpiexec, or srun with --mpi=pmi2 or pmix)"
        )
    train(channel, arguments, environment, interrupt)


def _work(channel: Channel) -> None:
    leave_signals_to_the_server()
    from mpisgd.rank_worker import work  # noqa: PLC0415 - as above

    work(channel)
