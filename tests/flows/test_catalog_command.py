"""`tilewatch catalog` as a person meets it: what is there, what is not, and why. A process of its own each time."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from configs import Workspace
from imagery.catalog import Catalog
from imagery.quarantine import Quarantine
from imagery.sources import Scene
from tests.catalogs import enter, grid_at
from tests.commands import DONE, FAILED, ROOT, WRONG, in_words, result, run_tilewatch, state
from tests.rasters import WEST

Tilewatch = Callable[..., subprocess.CompletedProcess[str]]
CUT = "/scenes/meadow/2020-06-04.tif cannot be opened as GTiff: [tile 3] ends too soon: fetch the file again"


@pytest.fixture
def tilewatch(tmp_path: Path) -> Tilewatch:
    return partial(run_tilewatch, tmp_path, tmp_path / "prefect")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three scenes of a meadow, one of a wood that lies 100 km east; one more of each could not be used."""
    root = tmp_path_factory.mktemp("kept") / "workspace"
    catalog, quarantine = Catalog(Workspace(root)), Quarantine(Workspace(root))
    for day, valid, masked in (
        (1, 0.9, {"cloud": 0.1}),
        (2, 0.3, {"shadow": 0.25, "cloud": 0.45}),
        (3, 0.5, {"nodata": 0.5}),
    ):
        enter(
            catalog,
            "meadow",
            datetime(2020, 6, day, tzinfo=UTC),
            valid_fraction=valid,
            data_fraction=1 - masked.get("nodata", 0),
            cloud_fraction=masked.get("cloud", 0.0),
            masked=masked,
        )
    enter(catalog, "wood", datetime(2020, 6, 2, 10, 50, tzinfo=UTC), grid=grid_at(west=WEST + 1e5))
    for scene, reason in (
        (Scene("meadow", datetime(2020, 6, 4, tzinfo=UTC), ()), CUT),
        (Scene("[island]", datetime(2020, 6, 5, tzinfo=UTC), ()), "no band B08 (found: B02)"),
    ):
        quarantine.add(scene, "ingest", reason, (), "key")
    return root


def test_the_summary_names_each_place_with_its_scenes_and_grid_and_why_others_are_not_there(
    tilewatch: Tilewatch, workspace: Path
) -> None:
    before = state(workspace)

    ran = tilewatch("catalog", "--workspace", workspace)

    assert ran.returncode == DONE, ran.stderr
    lines = [line.split() for line in ran.stdout.splitlines()]
    assert ["meadow", "3", "2020-06-01", "2020-06-03", "50%", "10%", "1"] in lines
    assert ["wood", "1", "2020-06-02", "2020-06-02", "75%", "25%", "0"] in lines
    assert ["[island]", "0", "–", "–", "–", "–", "1"] in lines
    assert ["meadow", "48", "×", "48", "px", "10", "9", "of", "16", "px", "EPSG:32634"] in lines
    assert f"meadow/2020-06-04 (ingest): {CUT}" in ran.stdout
    assert "[island]/2020-06-05 (ingest): no band B08 (found: B02)" in ran.stdout
    assert "▒" not in ran.stdout
    assert state(workspace) == before, "looking changes nothing"


def test_the_dates_are_shown_with_what_is_masked_and_why(tilewatch: Tilewatch, workspace: Path) -> None:
    ran = tilewatch("catalog", "--workspace", workspace, "--dates", "--location", "meadow")

    assert ran.returncode == DONE, ran.stderr
    rows = [line for line in ran.stdout.splitlines() if line.startswith("meadow/2020-06-0") and "%" in line]
    assert [row.split(maxsplit=3)[:3] for row in rows] == [
        ["meadow/2020-06-01", "90%", "10%"],
        ["meadow/2020-06-02", "30%", "45%"],
        ["meadow/2020-06-03", "50%", "0%"],
    ]
    assert "█" * 18 + "▒" * 2 in rows[0]
    assert "cloud 45%, shadow 25%" in rows[1], "the greatest first"
    assert "█" * 10 + "·" * 10 in rows[2]
    assert "wood" not in ran.stdout


def test_as_json_it_is_one_object_for_programs(tilewatch: Tilewatch, workspace: Path) -> None:
    found = result(tilewatch("catalog", "--workspace", workspace, "--dates", "--json"))

    island, meadow, wood = found["locations"]
    assert (island["location"], island["scenes"], island["grid"], island["valid"]) == ("[island]", 0, None, None)
    assert meadow["masked"] == pytest.approx({"cloud": 0.55 / 3, "nodata": 0.5 / 3, "shadow": 0.25 / 3})
    assert list(meadow["masked"]) == ["cloud", "nodata", "shadow"]
    assert (meadow["grid"]["crs"], meadow["grid"]["width"], meadow["tiles"]) == ("EPSG:32634", 48, 9)
    assert (wood["first"], wood["last"], wood["quarantined"]) == ("2020-06-02", "2020-06-02", 0)
    assert [scene["scene_id"] for scene in found["scenes"]] == [
        "meadow/2020-06-01",
        "meadow/2020-06-02",
        "meadow/2020-06-03",
        "wood/2020-06-02T105000Z",
    ]
    assert found["scenes"][1]["masked"] == {"cloud": 0.45, "shadow": 0.25}
    assert [bad["reason"] for bad in found["quarantined"]] == [CUT, "no band B08 (found: B02)"]
    assert found["quarantined"][0]["step"] == "ingest"
    assert result(tilewatch("catalog", "--workspace", workspace, "--json"))["scenes"] == []


@pytest.mark.parametrize(
    ("filters", "scenes", "quarantined"),
    [
        (("--location", "wood"), ["wood/2020-06-02T105000Z"], 0),
        (("--location", "wood", "--location", "[island]"), ["wood/2020-06-02T105000Z"], 1),
        (("--since", "2020-06-03"), ["meadow/2020-06-03"], 2),
        (("--until", "2020-06-01"), ["meadow/2020-06-01"], 0),
        (("--since", "2020-06-02", "--until", "2020-06-02"), ["meadow/2020-06-02", "wood/2020-06-02T105000Z"], 0),
        (("--bbox", "22,46,23,47"), ["wood/2020-06-02T105000Z"], 0),
        (("--bbox", "-10,-40,-9,-39"), [], 0),
        (("--since", "2021-01-01"), [], 0),
    ],
)
def test_filters_choose_by_place_and_time(
    tilewatch: Tilewatch, workspace: Path, filters: tuple[str, ...], scenes: list[str], quarantined: int
) -> None:
    ran = tilewatch("catalog", "--workspace", workspace, "--dates", "--json", *filters)

    assert ran.returncode == DONE, ran.stderr
    found = result(ran)
    assert [scene["scene_id"] for scene in found["scenes"]] == scenes
    assert len(found["quarantined"]) == quarantined
    assert sum(place["scenes"] for place in found["locations"]) == len(scenes)


def test_where_nothing_is_this_is_said(tilewatch: Tilewatch, workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "workspace").mkdir()

    for arguments in ((), ("--workspace", workspace, "--since", "2021-01-01")):
        ran = tilewatch("catalog", *arguments)
        assert ran.returncode == DONE, ran.stderr
        assert "No scene was found" in ran.stdout


def test_of_many_quarantined_scenes_the_latest_are_shown_unless_all_are_asked_for(
    tilewatch: Tilewatch, tmp_path: Path
) -> None:
    quarantine = Quarantine(Workspace(tmp_path / "workspace"))
    for day in range(1, 15):
        quarantine.add(Scene("here", datetime(2020, 6, day, tzinfo=UTC), ()), "ingest", "cannot be opened", (), "key")

    some, everything = tilewatch("catalog").stdout, tilewatch("catalog", "--quarantined").stdout

    assert "14 scenes are quarantined" in some
    assert some.count("cannot be opened") == 10
    assert "here/2020-06-14" in some
    assert "here/2020-06-04" not in some
    assert "4 earlier ones: add --quarantined" in some
    assert everything.count("cannot be opened") == 14


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (("--location", "medow"), WRONG, "unknown location 'medow': did you mean meadow?"),
        (("--location", "xyz"), WRONG, "unknown location 'xyz': there are [island], meadow, wood"),
        (("--since", "yesterday"), WRONG, "yesterday"),
        (("--since", "2020-02-01", "--until", "2020-01-01"), WRONG, "2020-02-01"),
        (("--bbox", "1,2,3"), WRONG, "'1,2,3' is not a box WEST,SOUTH,EAST,NORTH"),
        (("--bbox", "1,2,3,north"), WRONG, "'1,2,3,north' is not a box"),
        (("--bbox", "1,2,3,91"), WRONG, "the box 1, 2, 3, 91 is not"),
        (("--workspace", "nowhere"), FAILED, "there is no workspace nowhere: `tilewatch ingest` makes one"),
    ],
)
def test_what_cannot_be_is_said_in_words_and_as_json(
    tilewatch: Tilewatch, workspace: Path, tmp_path: Path, arguments: tuple[str, ...], status: int, told: str
) -> None:
    ran = tilewatch("catalog", "--workspace", workspace, *arguments, "--json")

    assert ran.returncode == status
    assert in_words(ran)
    assert told in ran.stderr
    assert told in result(ran)["error"]
    assert list(tmp_path.iterdir()) == [], "looking makes nothing"


def test_it_needs_no_library_that_takes_seconds_to_start(tilewatch: Tilewatch, workspace: Path, tmp_path: Path) -> None:
    for name in ("prefect", "torch", "mlflow", "great_expectations", "matplotlib"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('slow')")

    ran = tilewatch("catalog", "--workspace", workspace, PYTHONPATH=f"{tmp_path}:{ROOT}")

    assert ran.returncode == DONE, ran.stderr
    assert "meadow" in ran.stdout


def test_scenes_of_another_version_are_spoken_of(tilewatch: Tilewatch, tmp_path: Path) -> None:
    enter(Catalog(Workspace(tmp_path / "workspace")))
    (tmp_path / "workspace/catalog/here/2020-06-01.json").write_text('{"scene_id": "here/2020-06-01"}')

    ran = tilewatch("catalog")

    assert ran.returncode == DONE
    assert "No scene was found" in ran.stdout
    assert "written by another version of tilewatch" in ran.stderr
