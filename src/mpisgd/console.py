"""What rank 0 says while it trains: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from mpisgd.terminal import watched_columns

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.live import Live


class Console:
    """Writes to standard output; a context manager that ends the live display.

    Rich is slow to import, and only terminals need it.
    """

    def __init__(self) -> None:
        columns = watched_columns()
        self._live: Live | None = None
        self._rich: RichConsole | None = None
        if columns is not None:
            from rich.console import Console as RichConsole  # noqa: PLC0415 - as said

            self._rich = RichConsole(file=sys.stdout, highlight=False, force_terminal=True, width=columns)

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *exception: object) -> None:
        self._end_live()

    def say(self, line: str) -> None:
        """Write a line."""
        if self._rich is not None:
            self._rich.print(line, markup=False)
        else:
            print(line, flush=True)  # noqa: T201 - the plain way out

    def progress(self, metrics: dict[str, Any]) -> None:
        """Show where training is: the latest measurement."""
        if self._rich is None:
            self.say(progress_line(metrics))
            return
        from rich.live import Live  # noqa: PLC0415 - as said
        from rich.text import Text  # noqa: PLC0415

        if self._live is None:
            self._live = Live(console=self._rich, auto_refresh=False)
            self._live.start()
        self._live.update(Text(progress_line(metrics), no_wrap=True, overflow="ellipsis"), refresh=True)

    def summary(self, title: str, facts: dict[str, str]) -> None:
        """Write a small table of names and values."""
        self._end_live()
        if self._rich is None:
            width = max(map(len, facts))
            self.say("\n".join([title, *(f"  {name:<{width}}  {value}" for name, value in facts.items())]))
            return
        from rich.table import Table  # noqa: PLC0415 - as said
        from rich.text import Text  # noqa: PLC0415

        table = Table(title=title, show_header=False, title_justify="left")
        for name, value in facts.items():
            table.add_row(name, Text(value))
        self._rich.print(table)

    def _end_live(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def progress_line(metrics: dict[str, Any]) -> str:
    """Return one line of what matters to somebody who waits."""
    return (
        f"{metrics['seconds']:7.2f} s {metrics['passes']:7.2f} passes {metrics['rows_per_second']:9,.0f} rows/s"
        f"  accuracy {metrics['accuracy']:.4f}  round trip {1e3 * metrics['round_trip_p50']:.2f} ms"
    )
