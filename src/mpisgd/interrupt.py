"""Ctrl-C and SIGTERM: on rank 0 they end the program before training and the training during it; they end commands."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from mpisgd.errors import MpisgdError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class SignalledError(MpisgdError):
    """A signal ended the program; the exit code is the one that shells know: 130 for SIGINT, 143 for SIGTERM."""

    def __init__(self, number: int, consequence: str) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}: {consequence}")
        self.exit_code = 128 + number


class Interrupt:
    """Remembers the signal that came, if one did: whoever trains looks at it and stops in good order."""

    def __init__(self) -> None:
        self._number: int | None = None
        self._immediate = False
        for number in SIGNALS:
            signal.signal(number, self._handle)

    @property
    def received(self) -> str | None:
        """The name of the signal that came."""
        return signal.Signals(self._number).name if self._number is not None else None

    @contextmanager
    def immediate(self) -> Iterator[None]:
        """Within the block let a signal raise SignalledError, one that has come before included."""
        self._immediate = True
        try:
            self._raise_if_received()
            yield
        finally:
            self._immediate = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._number = number
        if self._immediate:
            self._raise_if_received()

    def _raise_if_received(self) -> None:
        if self._number is not None:
            raise SignalledError(self._number, "training had not begun, nothing was saved")


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise SignalledError for a signal that comes within the block, so that it is left in good order."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SignalledError(number, "no unfinished file is left")

    with _handled_by(end):
        yield


@contextmanager
def signals_wait() -> Iterator[None]:
    """Let signals that come within the block wait for its end, and have their usual effect there.

    For code that must not be left half-way: what a signal raises while HDF5 calls a file's `write` crashes the process.
    """
    if threading.current_thread() is not threading.main_thread():  # where signals never come
        yield
        return
    came: list[int] = []
    try:
        with _handled_by(lambda number, _: came.append(number)):
            yield
    finally:
        if came:
            signal.raise_signal(came[0])


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Give the signals to `handler` within the block, and after it to whom they went before."""
    previous = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        for number in SIGNALS:
            signal.signal(number, handler)
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


def leave_signals_to_the_server() -> None:
    """On a worker: ignore the signals that a launcher sends to every rank; the server says when to stop."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
