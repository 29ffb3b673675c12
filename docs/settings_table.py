"""Writes the README's table of settings from their declaration; `make readme` runs it, a test compares."""

from __future__ import annotations

from pathlib import Path

from mpisgd.config import declarations

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- settings: made by docs/settings_table.py -->", "<!-- end of settings -->"


def table() -> str:
    """Return the table in Markdown."""
    lines = ["| option | default | value | meaning |", "|---|---|---|---|"]
    for declared in declarations().values():
        default = "none" if declared.default is None else str(declared.default).lower()
        unit = f" {declared.unit}" if declared.unit and declared.default is not None else ""
        option = declared.name.replace("_", "-")
        lines.append(f"| `--{option}` | {default}{unit} | {declared.expected} | {declared.meaning} |")
    return "\n".join(lines)


def with_table(readme: str) -> str:
    """Return the README's text with the table as it is now."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
