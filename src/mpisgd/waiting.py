"""Waiting that leaves the core to those who work: polls that back off."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

Work = Callable[[], bool]

# Polls that only yield the core before the waiting rank sleeps. A collective has stages that each wait for a poll:
# with nine ranks on two cores, sleep after 200 polls made it five times slower. For messages ranks that yield for long
# keep those with work from the core: 2,000 polls made nine ranks' turns half as fast, 20 one worker's a fifth as fast.
YIELDS_FOR_COLLECTIVE = 20_000
YIELDS_FOR_MESSAGE = 300
SHORTEST_SLEEP, LONGEST_SLEEP = 2e-5, 4e-3  # s
LONGEST_SLEEP_TIMED = 3e-4  # s, where others wait for this rank
LONGEST_SLEEP_PATIENT = 1.6e-2  # s, where nobody does for long, and a look takes a core for 50 us
# Who has waited for very long sleeps such a part of that: 2,500 looks in 10 s took up to 0.45 s of a core.
PART_OF_LONG, LONGEST_OF_ALL = 1 / 256, 5e-2  # s
PATIENT_SLEEP = 4e-3  # s, where nobody does: twice as long as a beginning takes
# One sleep of each length left a message that came after 6 ms unseen for 2 ms more, and half the replies too late.
SLEEPS_OF_A_LENGTH = 4
# A server of two workers with turns of 10 ms spent a tenth of a core on polling, and with these a thirtieth.
LONG = 2e-3  # s
PART = 1 / 8


class Backoff:
    """How a poll that found nothing passes the time: yield at first, then sleep, after a few times twice as long.

    Who waited for long the last time sleeps at once, and a PART of that time: what comes every few milliseconds is not
    there sooner for being asked after every few microseconds, and the core is left to those who learn.
    """

    def __init__(
        self, yields: int, *, shortest_sleep: float = SHORTEST_SLEEP, longest_sleep: float = LONGEST_SLEEP
    ) -> None:
        self._most_yields, self._shortest_sleep, self._longest_sleep = yields, shortest_sleep, longest_sleep
        self._began: float | None = None  # s
        self._yields, self._sleeps, self._sleep = yields, 0, shortest_sleep  # left, done, the next: s

    def reset(self) -> None:
        """Start over: there was work."""
        if self._began is not None:
            self._start(time.perf_counter() - self._began)

    def pause(self) -> None:
        """Pass some time."""
        if self._began is None:
            self._began = time.perf_counter()
        if self._yields > 0:
            self._yields -= 1
            os.sched_yield()
            return
        time.sleep(self._sleep)
        self._sleeps += 1
        if self._sleeps % SLEEPS_OF_A_LENGTH == 0:
            of_long = min((time.perf_counter() - self._began) * PART_OF_LONG, LONGEST_OF_ALL)
            self._sleep = min(2 * self._sleep, max(self._longest_sleep, of_long))

    def _start(self, waited: float) -> None:
        self._began, self._sleeps = None, 0
        self._yields = self._most_yields if waited < LONG else 0
        self._sleep = min(max(waited * PART, self._shortest_sleep), self._longest_sleep)


def poll(done: Work, meanwhile: Work | None, backoff: Backoff) -> None:
    """Call `done` until it is true, `meanwhile` and pauses in between; `meanwhile` tells whether it found work.

    A backoff that is used again knows from before how long waiting takes.
    """
    while not done():
        if meanwhile is not None and meanwhile():
            backoff.reset()
        else:
            backoff.pause()
    backoff.reset()
