"""The run directory, and what happened: one JSON line an event, one JSON line a measurement."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mpisgd.errors import RunError, UsageError

MODEL, CONFIG, METRICS, EVENTS = "model.h5", "config.toml", "metrics.jsonl", "events.jsonl"


def make_run_directory(named: str | None, *, force: bool) -> Path:
    """Return a directory to leave the run in: the named one, or a new runs/<UTC date and time>.

    Raises:
        UsageError: an earlier run is in it and `force` is not set.
        RunError: it cannot be made or written to.

    """
    path = Path(named) if named is not None else _new_name(Path("runs"))
    try:
        path.mkdir(parents=True, exist_ok=True)
        earlier = [name for name in (MODEL, METRICS, CONFIG, EVENTS) if (path / name).exists()]
        if earlier and not force:
            raise UsageError(
                f"run directory {path}: found {earlier[0]} of an earlier run, expected an empty directory;"
                " pass --force to overwrite it"
            )
        trial = path / ".writable"
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise RunError(f"run directory {path}: cannot write to it: {error.strerror}") from error
    return path


def _new_name(parent: Path) -> Path:
    name = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    candidates = (parent / (f"{name}-{n}" if n else name) for n in range(1_000_000))
    return next(path for path in candidates if not path.exists())


class RunLog:
    """Writes metrics.jsonl and events.jsonl, each line at once, so that a killed run leaves what it knew.

    What is not a finite number becomes null, as JSON has no other word for it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for name in (METRICS, EVENTS):
            self._write(name, "w", "")

    def event(self, name: str, **facts: Any) -> None:
        """Log that something happened, with the time it did (UTC)."""
        line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": name, **facts}
        self._write(EVENTS, "a", _json(line) + "\n")

    def metrics(self, facts: dict[str, Any]) -> None:
        """Log a measurement."""
        self._write(METRICS, "a", _json(facts) + "\n")

    def _write(self, name: str, mode: str, text: str) -> None:
        path = self.directory / name
        try:
            with path.open(mode, encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise RunError(f"{path}: cannot write: {error.strerror}") from error


def _json(facts: dict[str, Any]) -> str:
    return json.dumps(_finite(facts), allow_nan=False)


def _finite(fact: Any) -> Any:
    if isinstance(fact, dict):
        return {name: _finite(part) for name, part in fact.items()}
    if isinstance(fact, list | tuple):
        return [_finite(part) for part in fact]
    return None if isinstance(fact, float) and not math.isfinite(fact) else fact
