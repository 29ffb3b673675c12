"""When the server counts turns that are merged in memory."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mpisgd.memory_server import MemoryServer


class Stub(SimpleNamespace):
    """In the place of the weights in memory, of the monitor and of the crew: notes what is asked of it."""

    def __init__(self, **facts: Any) -> None:
        super().__init__(asked=[], rows=70, stop_reason=None, **facts)

    def note(self, name: str, returned: Any) -> Any:
        def method(*_: Any, **__: Any) -> Any:
            self.asked.append(name)
            return returned

        return method


@pytest.mark.parametrize(("much", "stops"), [(False, False), (True, False), (False, True)])
def test_turns_are_counted_where_there_are_many_or_what_they_learnt_is_measured(much: bool, stops: bool) -> None:
    """Each look tells the monitor how many rows are merged, counted or not, and looks for a reason to stop."""
    stub = Stub(much_to_count=much)
    for name, returned in {"count": [], "stop": None, "tell": None, "check_limits": stops, "count_turns": None}.items():
        setattr(stub, name, stub.note(name, returned))
    stub.stop_reason = "passes" if stops else None
    monitored = []
    monitor = SimpleNamespace(**vars(stub), look=lambda _, rows: monitored.append(rows))
    crew = SimpleNamespace(look=lambda **_: None, send_samples=lambda: False, tell=stub.tell)
    channel: Any = SimpleNamespace(workers=range(1, 3))
    MemoryServer(channel, stub, monitor, crew)._work()  # type: ignore[arg-type]
    assert monitored == [70]
    assert stub.asked == ["count", "count_turns"] * much + ["check_limits"] + ["stop", "tell"] * stops
