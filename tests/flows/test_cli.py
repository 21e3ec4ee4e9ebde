"""The command line as a person meets it: exit status, words, and JSON. Each command is a process of its own."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import yaml

from imagery.simulate import Location, Plan, simulate
from tests.commands import DONE, FAILED, WRONG, in_words, result, run_tilewatch, state
from tests.rasters import ground, write_raster

Tilewatch = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def tilewatch(tmp_path: Path, prefect_server: str) -> Tilewatch:
    """Runs `tilewatch` in an empty folder."""
    return partial(run_tilewatch, tmp_path, prefect_server)


# Wrong usage and configuration: said at once, before anything is started or written.


@pytest.mark.parametrize("arguments", [("--help",), ("nightly", "--help"), ("train", "--help")])
def test_help_comes_at_once_and_starts_nothing(tilewatch: Tilewatch, tmp_path: Path, arguments: tuple[str]) -> None:
    started = time.monotonic()
    ran = tilewatch(*arguments)

    assert ran.returncode == DONE
    assert "Usage" in ran.stdout
    assert time.monotonic() - started < 5, "Prefect and torch take longer to import"
    assert list(tmp_path.iterdir()) == []


def test_help_lists_every_command(tilewatch: Tilewatch) -> None:
    ran = tilewatch("--help")

    daily = ("ingest", "validate", "train", "calibrate", "nightly", "drift", "latents", "evaluate", "tune")
    for command in (*daily, "catalog", "demo"):
        assert command in ran.stdout


@pytest.mark.parametrize("as_json", [False, True])
def test_an_unknown_setting_is_wrong_usage_with_a_guess_at_what_was_meant(
    tilewatch: Tilewatch, tmp_path: Path, as_json: bool
) -> None:
    ran = tilewatch("nightly", "--set", "train.epoch=5", *(["--json"] if as_json else []))

    assert ran.returncode == WRONG
    assert "unknown setting train.epoch: did you mean train.epochs?" in ran.stderr
    assert in_words(ran)
    assert list(tmp_path.iterdir()) == []
    if as_json:
        assert result(ran) == {"error": "unknown setting train.epoch: did you mean train.epochs?", "status": WRONG}
    else:
        assert ran.stdout == ""


def test_a_setting_of_the_environment_is_checked_as_well(tilewatch: Tilewatch) -> None:
    ran = tilewatch("nightly", TILEWATCH_TRAIN__EPOCHS="0")

    assert ran.returncode == WRONG
    assert "train.epochs = 0" in ran.stderr


def test_a_configuration_that_is_not_there_is_wrong_usage(tilewatch: Tilewatch) -> None:
    ran = tilewatch("train", "--config", "none.yaml", "--json")

    assert ran.returncode == WRONG
    assert "none.yaml" in ran.stderr
    assert "none.yaml" in result(ran)["error"]


@pytest.mark.parametrize("arguments", [("nightli",), ("nightly", "--sence", "2020-01-01"), ("train", "--set")])
def test_an_unknown_command_or_option_is_wrong_usage(tilewatch: Tilewatch, arguments: tuple[str, ...]) -> None:
    ran = tilewatch(*arguments)

    assert ran.returncode == WRONG
    assert in_words(ran)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("nightly", "--night", "2020-13-01"), "2020-13-01"),
        (("ingest", "--until", "yesterday"), "yesterday"),
        (("nightly", "--since", "2020-02-01", "--until", "2020-01-01"), "2020-02-01"),
        (("calibrate", "--false-alarm-rate", "5"), "less than 1"),
    ],
)
def test_an_option_that_cannot_be_is_wrong_usage_in_words_and_as_json(
    tilewatch: Tilewatch, tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    (tmp_path / "scenes").mkdir()

    ran = tilewatch(*arguments, "--set", "source.root=scenes", "--json")

    assert ran.returncode == WRONG, ran.stderr
    assert in_words(ran)
    assert told in ran.stderr
    assert told in result(ran)["error"]


def test_a_workspace_that_cannot_be_made_is_said_in_words(tilewatch: Tilewatch, tmp_path: Path) -> None:
    (tmp_path / "scenes").mkdir()
    (tmp_path / "file").write_text("not a folder")

    ran = tilewatch("ingest", "--workspace", "file/w", "--set", "source.root=scenes", "--json", PREFECT_API_URL=None)

    assert ran.returncode in (FAILED, WRONG)
    assert in_words(ran)
    assert "file/w" in result(ran)["error"]


# The work itself


@pytest.mark.slow
def test_a_night_without_a_champion_fails_with_what_to_do_first(tilewatch: Tilewatch, tmp_path: Path) -> None:
    (tmp_path / "scenes").mkdir()

    ran = tilewatch("nightly", "--set", "source.root=scenes", "--json")

    assert ran.returncode == FAILED
    assert "tilewatch train" in result(ran)["error"]
    assert "tilewatch train" in ran.stderr
    assert in_words(ran)


@pytest.mark.slow
def test_a_source_folder_that_is_not_there_fails_by_name(tilewatch: Tilewatch) -> None:
    ran = tilewatch("ingest", "--set", "source.root=nowhere", "--json")

    assert ran.returncode == FAILED
    assert "nowhere" in result(ran)["error"]
    assert in_words(ran)


@pytest.mark.slow
def test_training_on_nothing_fails_in_words(tilewatch: Tilewatch, tmp_path: Path) -> None:
    (tmp_path / "scenes").mkdir()

    ran = tilewatch("train", "--set", "source.root=scenes", "--json")

    assert ran.returncode == FAILED
    assert "the catalog is empty" in result(ran)["error"]
    assert in_words(ran)


# A small archive of two places, with every kind of bad scene in one of its nights.

BANDS = ("B02", "B03", "B04", "B08", "B11")
DATES = tuple(date(2025, 3, 3) + timedelta(days=5 * number) for number in range(16))
NIGHT = DATES[14]
PLACES = (
    Location("meadow", "river", 32634, west=463_200, north=5_218_600, size=64),
    Location("wood", "forest", 32632, west=441_500, north=5_309_400, size=64),
)


def archive(root: Path) -> None:
    """Good scenes of both places on every date; on one night seven more that are none."""
    plan = Plan(
        seed=3,
        locations=PLACES,
        dates=DATES,
        train_end=DATES[9],
        calibrate_end=DATES[13],
        clear_scenes=tuple((place.name, day) for place in PLACES for day in DATES),
    )
    simulate(root, plan)
    for place in PLACES:
        for day in DATES:
            (root / place.name / f"{day}.tif").rename(root / place.name / f"{day}_a.tif")
    good = root / "meadow" / f"{NIGHT}_a.tif"
    with rasterio.open(good) as dataset:
        pixels, profile = dataset.read(), dataset.profile

    def write(name: str, numbers: np.ndarray, names: tuple[str, ...], **changes: Any) -> Path:
        like = {"crs": profile["crs"], "transform": profile["transform"], "compress": "deflate"}
        known = {"nodata": "declared", "nodata_value": profile["nodata"]}
        bands = dict(zip(names, numbers, strict=True))
        return write_raster(root / f"{name}.tif", bands, **(like | known | changes))

    names = (*BANDS, "SCL")
    cut = write(f"meadow/{NIGHT}_b-cut", pixels, names)
    os.truncate(cut, cut.stat().st_size // 2)
    (root / f"meadow/{NIGHT}_c-text.tif").write_text("<html>503 Service unavailable</html>")
    write(f"meadow/{NIGHT}_d-band", np.delete(pixels, 3, axis=0), ("B02", "B03", "B04", "B11", "SCL"))
    elsewhere = profile["transform"] @ rasterio.Affine.translation(2000, 0)
    write(f"meadow/{NIGHT}_e-grid", pixels, names, transform=elsewhere)
    write(f"meadow/{NIGHT}_f-empty", np.zeros_like(pixels), names)
    write(f"island/{NIGHT}_a", pixels, names)


def settings_file(folder: Path) -> Path:
    path = folder / "watch.yaml"
    settings = {
        "name": "small",
        "source": {"root": "scenes", "pattern": "{location}/{date:%Y-%m-%d}_*.tif", "bands": list(BANDS)},
        "masks": {"class_band": "SCL"},
        "grid": {"tile_size": 16},
        "split": {"train": {"end": DATES[9]}, "calibrate": {"start": DATES[10], "end": DATES[13]}},
        "model": {"width": 8, "depth": 2, "latent_channels": 4},
        "train": {"epochs": 3, "device": "cpu"},
        "calibration": {"false_alarm_rate": 0.05, "min_tiles": 20},
        "reference": {"scenes": 3},
        "injections": {"enabled": False},
    }
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.mark.slow
def test_a_night_of_bad_scenes_is_finished_and_running_it_again_changes_no_file(
    tilewatch: Tilewatch, tmp_path: Path
) -> None:
    archive(tmp_path / "scenes")
    config = settings_file(tmp_path)

    trained = tilewatch("train", "--config", config, "--json")
    ran = tilewatch("nightly", "--config", config, "--json")

    # Training knows nothing of the nights to come.
    assert trained.returncode == DONE, trained.stderr
    assert result(trained)["detector_version"] == "v1"
    assert result(trained)["quarantined"] == {}
    assert result(trained)["calibration_basis"] == "held_out"

    # Each bad scene is set aside for its own reason, and no other one is.
    assert ran.returncode == DONE, ran.stderr
    assert "Traceback" not in ran.stderr
    summary = result(ran)
    reasons = {
        f"meadow/{NIGHT}/2": [f"{NIGHT}_b-cut.tif", "cannot be read"],
        f"meadow/{NIGHT}/3": [f"{NIGHT}_c-text.tif", "cannot be opened as GTiff"],
        f"meadow/{NIGHT}/4": ["no band B08", "found: B02, B03, B04, B11, SCL"],
        f"meadow/{NIGHT}/5": ["covers nothing of meadow"],
        f"meadow/{NIGHT}/6": ["has no data"],
    }
    assert set(summary["ingested"]["quarantined"]) == set(reasons)
    for scene, words in reasons.items():
        for word in words:
            assert word in summary["ingested"]["quarantined"][scene]
    assert [night["night"] for night in summary["nights"]] == [str(NIGHT), str(DATES[15])]
    night, after = summary["nights"]
    assert set(night["quarantined"]) == set(reasons)
    assert night["unknown"] == [f"island/{NIGHT}"]
    assert "no scene of island was in the training dates" in ran.stderr
    assert after["quarantined"] == {}
    assert after["unknown"] == []

    # All others are scored.
    workspace = tmp_path / "workspace"
    for place in PLACES:
        for day in (NIGHT, DATES[15]):
            scores = gpd.read_parquet(workspace / "scores/v1" / place.name / f"{day}.parquet")
            assert len(scores) == 16
            assert scores["score"].notna().any()
            assert (workspace / "scores/v1" / place.name / f"{day}_anomaly.tif").is_file()
    assert not (workspace / "scores/v1/island").exists()
    assert {path.name for path in (workspace / "quarantine/meadow").iterdir()} == {
        f"{NIGHT}_{number}.json" for number in range(2, 7)
    }
    assert (night["tiles"], night["scored"] > 0) == (32, True)
    for one in (night, after):
        assert (workspace / one["report"]).is_file()

    # Once more: nothing is due, and not one file changes.
    before = state(workspace)
    again = tilewatch("nightly", "--config", config, "--json")
    assert again.returncode == DONE, again.stderr
    assert result(again)["nights"] == []
    assert state(workspace) == before
    spoken = tilewatch("nightly", "--config", config)
    assert spoken.returncode == DONE
    assert "No night is due" in spoken.stdout
    assert state(workspace) == before

    # A scene that was repaired makes its night due again, and no other night.
    meadow = tmp_path / "scenes" / "meadow"
    (meadow / f"{NIGHT}_c-text.tif").write_bytes((meadow / f"{NIGHT}_a.tif").read_bytes())
    repaired = result(tilewatch("nightly", "--config", config, "--json"))
    assert [one["night"] for one in repaired["nights"]] == [str(NIGHT)]
    assert set(repaired["nights"][0]["quarantined"]) == set(reasons) - {f"meadow/{NIGHT}/3"}
    assert repaired["nights"][0]["tiles"] == 48


@pytest.mark.slow
def test_ingest_says_what_it_did_and_why_not_more(tilewatch: Tilewatch, tmp_path: Path) -> None:
    for number in (1, 2):
        write_raster(tmp_path / f"scenes/here/2020-06-0{number}.tif", ground(16, 16, seed=number))
    (tmp_path / "scenes/here/2020-06-03.tif").write_text("no raster")
    (tmp_path / "scenes/here/latest.tif").write_text("no date")
    arguments = ("ingest", "--set", "source.root=scenes", "--set", "grid.tile_size=16")

    ran = tilewatch(*arguments, "--json")
    spoken = tilewatch(*arguments)

    assert ran.returncode == spoken.returncode == DONE
    summary = result(ran)
    assert (summary["ingested"], summary["unchanged"], summary["tiles"]) == (2, 0, 2)
    assert list(summary["quarantined"]) == ["here/2020-06-03"]
    assert [Path(path).name for path in summary["skipped"]] == ["latest.tif"]
    assert "0 scenes ingested (0 tiles), 2 unchanged, 0 quarantined now, 1 before, 1 skipped" in spoken.stdout
    assert "latest.tif" in spoken.stdout
