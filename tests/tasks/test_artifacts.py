"""What Prefect's pages are given: readable, and nothing in it is markup that somebody else wrote."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import geopandas as gpd
import pytest

from tasks.artifacts import _Pages, _words, plain
from tasks.nights import NightRecord

RECORD = NightRecord(
    night=date(2025, 7, 1), detector_version="v1", calibration_id="c", scenes={"meadow/2025-07-01": "f"}, unknown=(),
    quarantined={}, tiles=16, scored=15, flags=1, alarmed=False, drift_reasons=(), drift_began=None, statistics={},
    report="reports/2025-07-01/report.html",
)  # fmt: skip
NOTHING = gpd.GeoDataFrame({"tile_id": [], "location": [], "score": [], "p_value": []})


def flags(location: str) -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame(
        {"tile_id": [f"{location}-r0-c16"], "location": [location], "score": [3.14159], "p_value": [0.0021]}
    )


def test_flags_are_a_table_with_links_to_the_report():
    words = _words(RECORD, flags("meadow"), _Pages("http://127.0.0.1:5000", "3", "abc"))

    assert words.splitlines()[0] == "## 2025-07-01: 1 flags among 15 scored tiles"
    report = "http://127.0.0.1:5000/#/experiments/3/runs/abc/artifacts/report.html"
    assert words.splitlines()[-1] == f"| [meadow\\-r0\\-c16]({report}) | meadow | 3.14 | 0.0021 |"


def test_without_an_mlflow_server_there_are_no_links():
    assert "](" not in _words(RECORD, flags("meadow"), None)
    assert _Pages.of("abc") is None  # MLflow is a database here


def test_a_night_without_flags_has_no_table():
    assert "|" not in _words(RECORD, NOTHING, None)


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", "[click](javascript:alert(1))", "a | b", "![](http://spy)", "two\n# lines"]
)
def test_a_hostile_name_is_only_a_name(name: str):
    bad = replace(RECORD, quarantined={name: name}, drift_reasons=(name,))

    words = _words(bad, flags(name), None)

    assert "<script" not in words
    assert "](" not in words
    assert "\n# lines" not in words
    table = words.splitlines()[-1]
    assert table.replace("\\|", "").count("|") == 5  # four columns, whatever the name


def test_what_is_no_markup_stays_readable():
    assert plain("Black Forest, 3.5 % of the tiles") == "Black Forest, 3.5 % of the tiles"
