"""Lock step: a worker's part of the held-out rows, by which all workers measure their common weights together.

Every worker judges the weights by its own part, after a pass or when the server has asked; the next round carries what
it found to the others. So measuring takes each worker the same time, the less the more workers there are.
"""

from __future__ import annotations

from mpisgd.job import Job
from mpisgd.merging import RoundFacts
from mpisgd.messages import Occasion
from mpisgd.rounds import Rounds
from mpisgd.shard import Shard
from mpisgd.svm import NOTHING_JUDGED, Judged, ScaledVector


class HeldOutPart:
    """Knows when the weights are measured, and judges them.

    occasion  why the weights that the last round left are measured, the same on every worker; None: they are not
    """

    def __init__(self, job: Job, rounds: Rounds, part: Shard) -> None:
        self._job, self._rounds, self._part = job, rounds, part
        self._next_pass = 1
        self.occasion: Occasion | None = None

    def after_round(self, facts: RoundFacts, *, last: bool) -> None:
        """See whether the weights are to be measured; those that the last round leaves are by the server."""
        passes, self.occasion = self._job.passes(self._rounds.rows), None
        if passes >= self._next_pass and not last:
            self._next_pass, self.occasion = int(passes) + 1, Occasion.PASS
        elif facts.measure and not last:
            self.occasion = Occasion.TIME

    def judged(self) -> Judged:
        """Judge the weights, if they are measured, before the next round changes them."""
        if self.occasion is None:
            return NOTHING_JUDGED
        rows, labels = self._part.rows, self._part.labels
        return self._job.objective.judge(ScaledVector(self._rounds.measured()), rows, labels, 0, len(rows))
