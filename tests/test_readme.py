"""The README says of the settings what their declaration says."""

from __future__ import annotations

import runpy
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent


def test_the_table_of_settings_is_up_to_date():
    with_table = runpy.run_path(str(REPOSITORY / "docs/settings_table.py"))["with_table"]
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert with_table(readme) == readme, "run: make readme"
