"""The page of settings is the one that the schema gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from configs.describe import page
from configs.load import keys

ROOT = Path(__file__).parents[2]


def test_the_page_in_docs_is_what_the_command_prints():
    printed = subprocess.run(
        [sys.executable, "-m", "configs.describe"], cwd=ROOT, check=True, capture_output=True, encoding="utf-8"
    ).stdout

    kept = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert kept == printed, "run `python -m configs.describe > docs/settings.md`"


def test_every_setting_has_a_row_of_four_cells():
    rows = [line.split(" | ") for line in page().splitlines() if line.startswith("| `")]
    named = [row[0].strip("|` ") for row in rows]

    assert all(len(row) == 4 for row in rows)
    assert len(named) == len(set(named))
    everything = set(keys())
    sections = {key for key in everything if any(other.startswith(f"{key}.") for other in everything)}
    dates = {"split.train.start", "split.train.end"}  # a span of dates is one row
    assert set(named) == everything - sections - dates | {"split.train"}


def test_a_row_tells_kind_limits_and_default():
    rows = page().splitlines()

    assert "| `model.depth` | integer, ≥ 1, ≤ 5 | `3` |" in "\n".join(rows)
    assert any(row.startswith('| `grid.on_mismatch` | `warp` or `refuse` | `"warp"` |') for row in rows)
    assert any(row.startswith("| `model.skips` | true or false | `false` |") for row in rows)
    assert any(row.startswith("| `split.calibrate` | `{start: date, end: date}` or null | `null` |") for row in rows)
