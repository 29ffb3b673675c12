"""The leader of the workers in lock step: the one of them that speaks with the server.

All workers have, or share, the same weights, and measure them together (`held_out_part`). The leader adds up what they
found, lets the server know, and goes by the same rule as the server whether to go on. In between it listens for the
word to measure, or to stop, which the next round carries to the others. It waits for nothing but that the server has
taken the last report: so where passes, patience or a target met after a pass end a run, the same seed on the same ranks
gives the same run every time, however busy the server is.
"""

from __future__ import annotations

import math
import operator
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mpisgd.channel import Channel
from mpisgd.compiled_loops import Float
from mpisgd.evaluation import Measurement
from mpisgd.job import Job
from mpisgd.merging import MergeCounts, RoundFacts
from mpisgd.messages import Occasion, Order, ReportHeader, pack_report
from mpisgd.rounds import Rounds
from mpisgd.schedule import StopRule
from mpisgd.svm import Judged, ScaledVector
from mpisgd.turn_statistics import RECENT_TURNS


class Account(NamedTuple):
    """What has been done since the last one; see `messages.pack_report`."""

    header: ReportHeader
    round_trips: Float
    spent: Float


class Measuring(NamedTuple):
    """Weights that are being measured: the next round brings what all workers found."""

    account: Account  # until these weights
    penalty: float
    weights: Float | None  # a copy, if they may be the ones to keep


class Leader:
    """Keeps account of the rounds, reports, and hears orders.

    wants_measuring  whether the weights are to be measured after the next round
    wants_stop       whether the next round is to be the last
    """

    def __init__(self, channel: Channel, job: Job, rounds: Rounds) -> None:
        self._channel, self._job, self._rounds = channel, job, rounds
        self._rule = StopRule(job.config)
        workers = len(channel.workers)
        self._round_trips: deque[Sequence[float]] = deque(maxlen=-(-RECENT_TURNS // workers))
        self._reported = rounds.counts
        self._computing = self._waiting = [0.0] * workers  # s, since the last report
        self._rounds_done = 0  # since then
        self._measuring: Measuring | None = None
        self._best: Float | None = None  # of the weights after a pass, if they are to be kept
        self._least = math.inf  # objective, after a pass
        self._orders_heard = 0
        self.wants_measuring = self.wants_stop = False

    def begin(self, at: float) -> None:
        """Take note of when the clock of training started, by this rank's; before the first round."""
        self._began = self._merged_at = at

    def after_round(self, facts: RoundFacts, occasion: Occasion | None) -> None:
        """Take the round just merged into account; the `occasion` is why the weights it left are measured, if so."""
        self._merged_at = self._channel.now()
        if self._measuring is not None:
            self._report_measured(self._measuring, facts.judged)
            self._measuring = None
        if all(facts.round_trips):  # before the first round there was none
            self._round_trips.append(facts.round_trips)
        self._computing = list(map(operator.add, self._computing, facts.computing))
        self._waiting = list(map(operator.add, self._waiting, facts.round_trips))  # round trips are waiting alone
        self._rounds_done += 1
        self._listen()
        if occasion is not None:
            self._begin_measuring(occasion)

    def finish(self) -> None:
        """Report the end, when the last round is over, with the weights and the best after a pass that are wanted."""
        best = [] if self._best is None else [self._best]
        self._send(self._close_account(Occasion.END), [self._rounds.measured(), *best])

    def drain(self, orders: int) -> None:
        """Hear out the server, which has sent so many orders, so that nothing sent is left unreceived."""
        self._channel.wait_until(lambda: self._orders_heard == orders, self._listen)

    def _listen(self) -> bool:
        """Hear what the server has said; tell whether it was anything."""
        order = self._channel.leader_poll_order()
        self.wants_measuring = self.wants_measuring or order is Order.MEASURE
        self.wants_stop = self.wants_stop or order is Order.STOP
        self._orders_heard += order is not None
        return order is not None

    def _begin_measuring(self, occasion: Occasion) -> None:
        weights, at_pass_end = self._rounds.measured(), occasion is Occasion.PASS
        penalty = self._job.objective.penalty(ScaledVector(weights))
        kept = weights.copy() if at_pass_end and self._job.keeps_best else None
        self._measuring = Measuring(self._close_account(occasion), penalty, kept)
        self.wants_measuring = False  # whatever the occasion, the server has what it asked for

    def _report_measured(self, measuring: Measuring, judged: Judged) -> None:
        measured = Measurement.of(judged, self._job.held_out_rows, measuring.penalty)
        header = measuring.account.header
        at_pass_end = header.occasion == Occasion.PASS
        if at_pass_end and measured.objective < self._least:
            self._least, self._best = measured.objective, measuring.weights
        passes = self._job.passes(header.rows)
        if self._rule.after_measurement(measured.accuracy, measured.objective, passes, at_pass_end=at_pass_end):
            self.wants_stop = True
        header = header._replace(accuracy=measured.accuracy, objective=measured.objective)
        self._send(measuring.account._replace(header=header), [])

    def _send(self, account: Account, weights: list[Float]) -> None:
        self._channel.leader_report(pack_report(*account, weights), self._listen)

    def _close_account(self, occasion: Occasion) -> Account:
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
        self._round_trips.clear()
        self._reported, self._rounds_done = counts, 0
        self._computing = self._waiting = [0.0] * workers
        return Account(header, round_trips, spent)
