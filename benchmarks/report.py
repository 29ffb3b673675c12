"""What the parts found: claims against their targets, tables of medians, curves; as text, Markdown, JSON and a plot."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Claim:
    """A figure and the bound it is held to."""

    what: str
    found: float
    bound: float
    at_least: bool = False

    @property
    def holds(self) -> bool:
        """Tell whether the figure is within the bound; one that is no number is not."""
        return self.found >= self.bound if self.at_least else self.found <= self.bound

    def line(self) -> str:
        """Return the claim in one line."""
        sense = "at least" if self.at_least else "at most"
        verdict = "pass" if self.holds else "FAIL"
        return f"{verdict}  {self.what}: found {number(self.found)}, {sense} {number(self.bound)}"


@dataclass(frozen=True, slots=True)
class Curve:
    """Accuracy on the test rows over training time (s) and passes, of one run."""

    name: str
    seconds: list[float]
    passes: list[float]
    accuracy: list[float]


@dataclass(slots=True)
class Result:
    """What one part found.

    rows    of its table: what was run -> figure, with its unit -> one value a run, mostly one run a seed
    """

    part: str
    title: str
    claims: list[Claim] = field(default_factory=list)
    rows: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    curves: list[Curve] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def figure(self, row: str, name: str, value: float) -> None:
        """Add one run's value to a cell of the table."""
        self.rows.setdefault(row, {}).setdefault(name, []).append(value)

    def median(self, row: str, name: str) -> float:
        """Return the median of a cell; no number where there is none."""
        return middle(self.rows.get(row, {}).get(name, []))


def middle(values: list[float]) -> float:
    """Return the median, no number for no values."""
    return statistics.median(values) if values else math.nan


def number(value: float) -> str:
    """Return a number in four digits; an infinite time is "never", no number "none"."""
    if not math.isfinite(value):
        return "never" if value > 0 else "none"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def spread(values: list[float]) -> str:
    """Return the median, with the least and the most in brackets."""
    if not values:
        return ""
    if len(values) == 1:
        return number(values[0])
    return f"{number(middle(values))} ({number(min(values))} to {number(max(values))})"


def table(rows: dict[str, dict[str, list[float]]]) -> list[str]:
    """Return the lines of a table in Markdown."""
    names = list(dict.fromkeys(name for figures in rows.values() for name in figures))
    lines = [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for row, figures in rows.items():
        lines.append(f"| {row} | {' | '.join(spread(figures.get(name, [])) for name in names)} |")
    return lines


def section(result: Result) -> str:
    """Return one part's findings in Markdown."""
    claims = [f"- {claim.line()}" for claim in result.claims]
    parts = [[f"## {result.part}: {result.title}"], claims, table(result.rows) if result.rows else [], result.notes]
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def write(directory: Path, facts: dict[str, Any], results: list[Result]) -> None:
    """Write results.json, results.md and, where there are curves, accuracy.png."""
    findings = [
        {**asdict(result), "claims": [{**asdict(claim), "holds": claim.holds} for claim in result.claims]}
        for result in results
    ]
    (directory / "results.json").write_text(json.dumps(_finite({**facts, "parts": findings}), indent=1) + "\n")
    described = "\n".join(f"- {name}: {value}" for name, value in facts.items())
    note = "Medians, with the least and the most in brackets."
    sections = [section(result) for result in results]
    (directory / "results.md").write_text("\n\n".join(["# Benchmarks", described, note, *sections]) + "\n")
    curves = [curve for result in results for curve in result.curves]
    if curves:
        plot(directory / "accuracy.png", curves, str(facts["rows"]))


def _finite(found: Any) -> Any:
    """Return what was found with null for what JSON has no number for."""
    if isinstance(found, dict):
        return {name: _finite(value) for name, value in found.items()}
    if isinstance(found, list):
        return [_finite(value) for value in found]
    return None if isinstance(found, float) and not math.isfinite(found) else found


def plot(path: Path, curves: Iterable[Curve], rows: str) -> None:
    """Draw test accuracy over training time and over passes."""
    import matplotlib as mpl  # noqa: PLC0415 - slow to import, and only this needs it

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - the backend must be chosen before

    figure, (over_time, over_passes) = plt.subplots(1, 2, figsize=(12, 5), sharey=True, layout="constrained")
    for curve in curves:
        style = {"label": curve.name, "marker": None if curve.name.startswith("mpisgd") else "."}
        over_time.plot(curve.seconds, curve.accuracy, **style)
        over_passes.plot(curve.passes, curve.accuracy, **style)
    best = max(max(curve.accuracy) for curve in curves)
    over_time.set(xscale="log", xlabel="training time (s)", ylabel="test accuracy", ylim=(best - 0.03, best + 0.002))
    over_passes.set(xlabel="passes", xlim=(0, 3))
    over_time.legend(fontsize="small")
    figure.suptitle(f"Test accuracy: {rows}, one seed")
    figure.savefig(path, dpi=120)
    plt.close(figure)
