"""`tilewatch report`: where a night's page is, in the browser, and its flags for QGIS."""

from __future__ import annotations

import stat
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import geopandas as gpd
import pytest

from configs import Workspace
from imagery.catalog import Catalog
from imagery.outputs import write_flags
from tests.commands import DONE, FAILED, WRONG, in_words, result, run_tilewatch
from tests.imagery.test_flags import reviewed
from tests.scored import HERE

Tilewatch = Callable[..., subprocess.CompletedProcess[str]]
FIRST, SECOND = "2020-06-01", "2020-06-02"


@pytest.fixture
def tilewatch(tmp_path: Path) -> Tilewatch:
    """The command, with two nights that have a page: one finished, and one that a run was stopped at."""
    workspace = Workspace(tmp_path / "workspace")
    Catalog(workspace).settle_grid("here", HERE)
    for night in (FIRST, SECOND):
        folder = workspace.reports / night
        write_flags(folder, reviewed({3, 4}, {20}), {"here": HERE})
        (folder / "report.html").write_text("<!DOCTYPE html><title>night</title>")
    (workspace.reports / FIRST / "night.json").write_text("{}")
    (workspace.reports / "notes").mkdir()
    (workspace.reports / "notes" / "report.html").write_text("mine")
    return partial(run_tilewatch, tmp_path, tmp_path / "prefect")


def test_it_says_where_the_page_of_the_newest_night_is_and_of_any_other(tilewatch: Tilewatch, tmp_path: Path) -> None:
    newest, first = tilewatch("report"), tilewatch("report", "--night", FIRST, "--json")

    assert (newest.returncode, first.returncode) == (DONE, DONE)
    assert newest.stdout.startswith(f"workspace/reports/{SECOND}/report.html")
    assert "not finished" in newest.stdout
    page = f"workspace/reports/{FIRST}/report.html"
    assert result(first) == {"night": FIRST, "report": page, "finished": True, "geopackage": None}
    assert (tmp_path / page).exists()


def test_a_night_without_a_page_is_said_in_words(tilewatch: Tilewatch) -> None:
    other = tilewatch("report", "--night", "2020-07-01", "--json")
    nowhere = tilewatch("report", "-w", "nowhere")
    no_date = tilewatch("report", "--night", "yesterday")

    assert (other.returncode, nowhere.returncode, no_date.returncode) == (FAILED, FAILED, WRONG)
    assert f"there are 2, from {FIRST} to {SECOND}" in result(other)["error"]
    assert "tilewatch nightly" in nowhere.stderr
    assert all(in_words(ran) for ran in (other, nowhere, no_date))


def test_it_opens_the_page_in_the_browser_and_says_when_there_is_none(tilewatch: Tilewatch, tmp_path: Path) -> None:
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path / "opened"}\n')
    browser.chmod(browser.stat().st_mode | stat.S_IXUSR)

    opened = tilewatch("report", "--open", BROWSER=f"{browser} %s")

    assert opened.returncode == DONE, opened.stderr
    assert (tmp_path / "opened").read_text().strip() == (tmp_path / f"workspace/reports/{SECOND}/report.html").as_uri()
    none = tilewatch("report", "--open", BROWSER="", PATH="", DISPLAY=None)
    assert none.returncode == FAILED
    assert "no browser" in none.stderr
    assert in_words(none)


def test_it_writes_the_flags_as_a_geopackage_when_asked(tilewatch: Tilewatch, tmp_path: Path) -> None:
    ran = tilewatch("report", "--geopackage", "--json")

    assert ran.returncode == DONE, ran.stderr
    package = tmp_path / result(ran)["geopackage"]
    assert package == tmp_path / f"workspace/reports/{SECOND}/flags.gpkg"
    assert [len(gpd.read_file(package, layer=layer)) for layer in ("flags", "areas", "suppressed")] == [2, 1, 1]
    assert result(tilewatch("report", "--json"))["geopackage"].endswith("flags.gpkg")
    written = package.read_bytes()
    write_flags(package.parent, reviewed({3, 4}, {20}), {"here": HERE}, geopackage=True)
    assert package.read_bytes() == written  # as the night itself would have written it


def test_without_flags_beside_the_page_there_is_no_geopackage(tilewatch: Tilewatch, tmp_path: Path) -> None:
    (tmp_path / f"workspace/reports/{SECOND}/flags.parquet").unlink()

    ran = tilewatch("report", "--geopackage")

    assert ran.returncode == FAILED
    assert "no flags.parquet" in ran.stderr
    assert in_words(ran)
