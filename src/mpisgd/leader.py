"""The leader of the workers in lock step: the one of them that speaks with the server.

All workers have, or share, the same weights, so the server needs them only to measure. The leader sends them after
every pass, and when the server asks; in between it listens for the word to stop, which the next round carries to the
others. It does not wait for a measurement, but by half a pass later the server must have said whether to go on: so
where passes or patience end a run, the same seed on the same ranks gives the same run every time.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from mpisgd.averaging import made_for
from mpisgd.channel import Channel
from mpisgd.compiled_loops import Float
from mpisgd.job import Job
from mpisgd.messages import Occasion, Order, ReportHeader, pack_report
from mpisgd.rounds import Rounds
from mpisgd.svm import ScaledVector
from mpisgd.turn_statistics import RECENT_TURNS

VERDICT_AFTER = 0.5  # passes


class Leader:
    """Keeps account of the rounds, reports, and hears orders.

    wants_stop  whether the next round is to be the last
    """

    def __init__(self, channel: Channel, job: Job, rounds: Rounds) -> None:
        self._channel, self._job = channel, job
        self._exchange, self._in_memory = rounds.exchange, rounds.in_memory
        self._weights = ScaledVector(rounds.weights)
        self._average = made_for(job, np.zeros(job.column_count, np.float32))
        self._next_pass = 1
        self._verdict_due = math.inf  # in passes; infinite while none is awaited
        self._verdict: Order | None = None
        self._asked = False
        workers = len(channel.workers)
        self._round_trips: deque[Float] = deque(maxlen=-(-RECENT_TURNS // workers))
        self._spent = np.zeros((workers, 2), np.float32)  # s, computing and waiting
        self._turns = self._changes_sent = self._changes = self._bytes = self._rows = 0
        self._orders_heard = 0
        self.wants_stop = False

    def after_round(self) -> None:
        """Take the round just merged into account, and do what is due."""
        rows, changes_sent, changes, round_trips, computing = self._exchange.turns.astype(np.float64).T
        self._rows += int(rows.sum())
        self._turns += len(rows)
        self._changes_sent += int(changes_sent.sum())
        self._changes += int(changes.sum())
        self._bytes += len(rows) * self._exchange.mine.nbytes
        if self._rows > int(rows.sum()):  # before the first round there was none
            self._round_trips.append(round_trips.astype(np.float32))
        self._spent += np.stack([computing, round_trips], axis=1, dtype=np.float32)
        passes = self._job.passes(self._rows)
        self._average.look(self._weights, self._rows)
        self._listen()
        if passes >= min(self._verdict_due, self._next_pass):
            self._await_verdict()
        if passes >= self._next_pass and not self._job.is_done(self._rows):
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
        header = ReportHeader(
            occasion=occasion,
            rows=self._rows,
            turns=self._turns,
            changes_sent=self._changes_sent,
            changes=self._changes,
            merge_weight=self._exchange.merge_weight,
            bytes_each_way=self._bytes,
            rounds=len(self._round_trips),
            workers=len(self._spent),
            in_memory=self._in_memory,
        )
        round_trips = np.array(self._round_trips, np.float32)
        measured = self._average.weights(self._weights).vector
        self._channel.leader_report(pack_report(header, round_trips, self._spent, measured))
        self._round_trips.clear()
        self._spent[:] = 0
        self._asked = self._asked and occasion is not Occasion.TIME
        self._turns = self._changes_sent = self._changes = self._bytes = 0
