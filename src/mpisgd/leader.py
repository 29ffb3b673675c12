"""The leader of the workers in lock step: the one of them that speaks with the server.

All workers have, or share, the same weights, so the server needs them only to measure. The leader sends them after
every pass, and when the server asks; in between it listens for the word to stop, which the next round carries to the
others. It does not wait for a measurement, but by half a pass later the server must have said whether to go on: so
where passes or patience end a run, the same seed on the same ranks gives the same run every time.
"""

from __future__ import annotations

import math
import operator
from collections import deque
from collections.abc import Sequence

import numpy as np

from mpisgd.channel import Channel
from mpisgd.job import Job
from mpisgd.merging import MergeCounts, RoundFacts
from mpisgd.messages import Occasion, Order, ReportHeader, pack_report
from mpisgd.rounds import Rounds
from mpisgd.turn_statistics import RECENT_TURNS

VERDICT_AFTER = 0.5  # passes


class Leader:
    """Keeps account of the rounds, reports, and hears orders.

    wants_stop  whether the next round is to be the last
    """

    def __init__(self, channel: Channel, job: Job, rounds: Rounds) -> None:
        self._channel, self._job, self._rounds = channel, job, rounds
        self._next_pass = 1
        self._verdict_due = math.inf  # in passes; infinite while none is awaited
        self._verdict: Order | None = None
        self._asked = False
        workers = len(channel.workers)
        self._round_trips: deque[Sequence[float]] = deque(maxlen=-(-RECENT_TURNS // workers))
        self._reported = rounds.counts
        self._computing = self._waiting = [0.0] * workers  # s, since the last report
        self._rounds_done = 0  # since then
        self._orders_heard = 0
        self.wants_stop = False

    def begin(self, at: float) -> None:
        """Take note of when the clock of training started, by this rank's; before the first round."""
        self._began = self._merged_at = at

    def after_round(self, facts: RoundFacts) -> None:
        """Take the round just merged into account, and do what is due."""
        self._merged_at = self._channel.now()
        if all(facts.round_trips):  # before the first round there was none
            self._round_trips.append(facts.round_trips)
        self._computing = list(map(operator.add, self._computing, facts.computing))
        self._waiting = list(map(operator.add, self._waiting, facts.round_trips))  # round trips are waiting alone
        self._rounds_done += 1
        passes = self._job.passes(self._rounds.rows)
        self._listen()
        if passes >= min(self._verdict_due, self._next_pass):
            self._await_verdict()
        if passes >= self._next_pass and not self._job.is_done(self._rounds.rows):
            self._next_pass, self._verdict_due = int(passes) + 1, passes + VERDICT_AFTER
            self._report(Occasion.PASS)
        elif self._asked:
            self._report(Occasion.TIME)

    def finish(self) -> None:
        """Report the end, when the last round is over."""
        self._report(Occasion.END)

    def drain(self, orders: int) -> None:
        """Hear out the server, which has sent so many orders, so that nothing sent is left unreceived."""
        self._channel.wait_until(lambda: self._orders_heard == orders, self._listen)

    def _listen(self) -> bool:
        """Hear what the server has said; tell whether it was anything."""
        order = self._channel.leader_poll_order()
        if order is Order.REPORT:
            self._asked = True
        elif order is Order.STOP_NOW:
            self.wants_stop = True
        elif order is not None:
            self._verdict = order
        self._orders_heard += order is not None
        return order is not None

    def _await_verdict(self) -> None:
        """Wait for the word on the last pass reported, if one is due, and take it."""
        if self._verdict_due == math.inf:
            return
        self._channel.wait_until(lambda: self._verdict is not None or self.wants_stop, self._listen)
        self.wants_stop = self.wants_stop or self._verdict is Order.STOP
        self._verdict, self._verdict_due = None, math.inf

    def _report(self, occasion: Occasion) -> None:
        rounds, workers = self._rounds, len(self._computing)
        counts, turns = rounds.counts, self._rounds_done * workers
        merged = MergeCounts(*map(operator.sub, counts, self._reported))
        header = ReportHeader(
            occasion=occasion,
            rows=rounds.rows,
            seconds=self._merged_at - self._began,
            turns=turns,
            changes_sent=int(merged.changes_sent),
            changes=int(merged.changes),
            merge_weight=merged.gains / max(1, merged.columns),
            bytes_each_way=turns * rounds.bytes_each_way,
            rounds=len(self._round_trips),
            workers=workers,
            in_memory=rounds.in_memory,
        )
        round_trips = np.array(self._round_trips, np.float32)
        spent = np.array([self._computing, self._waiting], np.float32).T.copy()
        self._channel.leader_report(pack_report(header, round_trips, spent, rounds.measured()))
        self._round_trips.clear()
        self._reported, self._rounds_done = counts, 0
        self._computing = self._waiting = [0.0] * workers
        self._asked = self._asked and occasion is not Occasion.TIME
