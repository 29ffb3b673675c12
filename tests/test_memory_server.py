"""When the server counts turns that are merged in memory."""

from __future__ import annotations

from unittest.mock import Mock, call

import pytest

from mpisgd.memory_server import MemoryServer


@pytest.mark.parametrize(("much", "stops"), [(False, False), (True, False), (False, True)])
def test_turns_are_counted_where_there_are_many_or_what_they_learnt_is_measured(much: bool, stops: bool) -> None:
    """Each look tells the monitor how many rows are merged, counted or not, and looks for a reason to stop."""
    of = Mock()
    of.shared.much_to_count, of.shared.rows = much, 70
    of.monitor.stop_reason = "passes" if stops else None
    of.monitor.look.return_value = of.crew.send_samples.return_value = False
    of.crew.look.return_value = None
    server = MemoryServer(Mock(workers=range(1, 3)), of.shared, of.monitor, of.crew)
    assert not server._work()
    names = [name for name, *_ in of.mock_calls]
    counted = ["shared.count", "monitor.count_turns"] * much
    stopped = ["shared.stop", "crew.tell"] * stops
    assert names == ["crew.look", *counted, "monitor.check_limits", *stopped, "crew.send_samples", "monitor.look"]
    of.shared.snapshot.return_value = turns, weights = Mock(), Mock()
    measure, rows = of.monitor.look.call_args.args
    assert rows == 70
    assert measure() is weights
    assert of.monitor.count_turns.call_args == call(turns)
