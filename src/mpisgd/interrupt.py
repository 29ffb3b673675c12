"""Ctrl-C and SIGTERM: on rank 0 they end the program before training and the training during it; they end commands."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from mpisgd.errors import MpisgdError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class InterruptedEarlyError(MpisgdError):
    """A signal came when there was nothing yet to save."""

    exit_code = 130


class Interrupt:
    """Remembers a signal. Until `defer` is called, a signal raises instead: there is nothing to save."""

    def __init__(self) -> None:
        self.received: str | None = None
        self._deferred = False
        for number in SIGNALS:
            signal.signal(number, self._handle)

    def defer(self) -> None:
        """From now on only remember: whoever trains looks at `received` and stops in good order."""
        self._deferred = True

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        if not self._deferred:
            raise InterruptedEarlyError(f"interrupted by {self.received} before training began; nothing was saved")


class InterruptedCommandError(MpisgdError):
    """A signal ended a command; the exit code is the one that shells know: 130 for SIGINT, 143 for SIGTERM."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}: no unfinished file is left")
        self.exit_code = 128 + number


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise InterruptedCommandError for a signal that comes within the block, so that it is left in good order."""

    def end(number: int, frame: FrameType | None) -> None:
        raise InterruptedCommandError(number)

    previous = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        for number in SIGNALS:
            signal.signal(number, end)
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def signals_wait() -> Iterator[None]:
    """Let signals that come within the block wait for its end, and have their usual effect there.

    For code that must not be left half-way: what a signal raises while HDF5 calls a file's `write` crashes the process.
    """
    if threading.current_thread() is not threading.main_thread():  # where signals never come
        yield
        return
    came: list[int] = []
    previous = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        for number in SIGNALS:
            signal.signal(number, lambda number, _: came.append(number))
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


def leave_signals_to_the_server() -> None:
    """On a worker: ignore the signals that a launcher sends to every rank; the server says when to stop."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
