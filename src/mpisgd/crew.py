"""The server's account of its workers: who was told to stop, who has gone, who wants rows."""

from __future__ import annotations

from collections.abc import Callable

from mpisgd.channel import Channel, Letter
from mpisgd.messages import Tag
from mpisgd.monitor import Monitor
from mpisgd.rank0_rows import SampleSender


class Crew:
    """Hears the workers, and sees to what is not the exchange."""

    def __init__(self, channel: Channel, monitor: Monitor, samples: SampleSender | None) -> None:
        self._channel, self._monitor, self._samples = channel, monitor, samples
        self._here, self._told = set(channel.workers), set[int]()

    def look(self, before_goodbye: Callable[[], None] = lambda: None) -> Letter | None:
        """Open the next letter, if one has come; see to it here unless it belongs to the exchange.

        `before_goodbye` is called before a worker is noted to have gone.
        """
        letter = self._channel.server_poll()
        if letter is None:
            return None
        if letter.tag is Tag.GONE:
            before_goodbye()
            self._here.remove(letter.worker)
            self._monitor.event("worker_gone", worker=letter.worker)
        if self._samples is not None and letter.tag is Tag.NEXT_SHARD:
            self._samples.begin(letter.worker)
        elif self._samples is not None and letter.tag is Tag.GONE:
            self._samples.end(letter.worker)
        return letter

    def send_samples(self) -> bool:
        """Send blocks of the next samples where there is room; tell whether any was sent."""
        return self._samples is not None and self._samples.advance()

    def tell(self, *workers: int) -> None:
        """Note that workers are being told to stop, unless that is noted already."""
        for worker in workers:
            if worker not in self._told:
                self._told.add(worker)
                self._monitor.event("worker_told", worker=worker)

    def all_gone(self) -> bool:
        """Tell whether every worker has said goodbye."""
        return not self._here

    def finish(self) -> None:
        """Send the workers that have gone the last they wait for."""
        if self._samples is not None:
            self._samples.finish()
        self._channel.wait_until_sent()
