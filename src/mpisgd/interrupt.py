"""Ctrl-C and SIGTERM on rank 0: before training they end the program, during it they end the training."""

from __future__ import annotations

import signal
from types import FrameType

from mpisgd.errors import MpisgdError

SIGNALS = (signal.SIGINT, signal.SIGTERM)


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


def leave_signals_to_the_server() -> None:
    """On a worker: ignore the signals that a launcher sends to every rank; the server says when to stop."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
