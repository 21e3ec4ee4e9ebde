"""What the stored numbers of a band mean: as the settings say, else the source, else the file, else by default."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.schema import MaskSettings, SourceSettings
from imagery.errors import SceneMismatch
from imagery.sources import Scene, SceneFile
from tests.rasters import DAY, ground, open_scene, read_scene, scene_of, source_settings, write_raster

NUMBERS = ground(8, 8, ("B02",))["B02"]


def settings_with(**values: Any) -> SourceSettings:
    return SourceSettings(location="here", bands=("B02",), **values)


@pytest.mark.parametrize(
    ("settings", "source", "file", "expected"),
    [
        ({}, {}, {}, (1e-4, 0.0)),
        ({}, {}, {"scale": 0.01}, (0.01, 0.0)),
        ({}, {}, {"offset": -5.0}, (1.0, -5.0)),
        ({}, {}, {"scale": 2e-5, "offset": -0.1}, (2e-5, -0.1)),
        ({}, {"scale": 1e-4, "offset": -0.1}, {"scale": 0.01, "offset": 7.0}, (1e-4, -0.1)),
        ({}, {"offset": -0.1}, {}, (1e-4, -0.1)),
        ({"scale": 3.0}, {"scale": 1e-4, "offset": -0.1}, {"scale": 0.01}, (3.0, -0.1)),
        ({"scale": 3.0, "offset": 0.0}, {"scale": 1e-4, "offset": -0.1}, {}, (3.0, 0.0)),
    ],
)
def test_the_scale_and_the_offset_are_those_of_who_knows_best(
    tmp_path: Path, settings: dict, source: dict, file: dict, expected: tuple[float, float]
) -> None:
    path = write_raster(tmp_path / "a.tif", {"B02": NUMBERS}, **file)
    scene = Scene("here", DAY, (SceneFile("B02", str(path), **source),))

    with open_scene(scene, settings_with(**settings)) as reader:
        assert reader.scaling("B02") == expected
    values = read_scene(scene, settings_with(**settings)).values[0]
    np.testing.assert_allclose(values, NUMBERS * expected[0] + expected[1], rtol=1e-6)


@pytest.mark.parametrize(
    ("scale", "offset"), [(0.0, 1.0), (-1e-4, 0.0), (np.nan, 0.0), (np.inf, 0.0), (1e-4, np.nan), (1e-4, -np.inf)]
)
def test_a_scaling_that_no_number_survives_is_refused(tmp_path: Path, scale: float, offset: float) -> None:
    declared = write_raster(tmp_path / "a.tif", {"B02": NUMBERS}, scale=scale, offset=offset)
    told = SceneFile("B02", str(write_raster(tmp_path / "b.tif", {"B02": NUMBERS})), scale=scale, offset=offset)

    for scene in (scene_of(declared), Scene("here", DAY, (told,))):
        with pytest.raises(SceneMismatch, match=r"says that B02 is .* source\.scale"):
            read_scene(scene, settings_with())
    assert read_scene(declared, settings_with(scale=1.0, offset=0.0)).valid.all()


@pytest.mark.parametrize("declared", [None, 600, 700])
def test_the_nodata_of_the_source_counts_beside_that_of_the_file(tmp_path: Path, declared: int | None) -> None:
    numbers = NUMBERS.copy()
    numbers[0, :2] = 600, 700
    kind: Any = "none" if declared is None else "declared"
    path = write_raster(tmp_path / "a.tif", {"B02": numbers}, nodata=kind, nodata_value=declared or 0)
    file = SceneFile("B02", str(path), nodata=600)

    missing = np.argwhere(~read_scene(Scene("here", DAY, (file,)), settings_with()).valid).tolist()

    assert missing == ([[0, 0], [0, 1]] if declared == 700 else [[0, 0]])
    assert (not read_scene(Scene("here", DAY, (replace(file, nodata=None),)), settings_with()).valid.all()) == (
        declared is not None
    )


def test_the_nodata_of_the_settings_counts_beside_those_of_the_source_and_the_file(tmp_path: Path) -> None:
    numbers = NUMBERS.copy()
    numbers[0, :3] = 600, 700, 800
    path = write_raster(tmp_path / "a.tif", {"B02": numbers}, nodata="declared", nodata_value=700)
    scene = Scene("here", DAY, (SceneFile("B02", str(path), nodata=600),))

    missing = ~read_scene(scene, settings_with(), MaskSettings(nodata=800)).valid

    assert np.argwhere(missing).tolist() == [[0, 0], [0, 1], [0, 2]]


def test_a_band_of_a_file_with_several_is_chosen_by_its_number(tmp_path: Path) -> None:
    numbers = ground(8, 8, ("red", "blue"))
    path = str(write_raster(tmp_path / "a.tif", numbers, described=False))
    source = SourceSettings(location="here", bands=("B02", "B04"), scale=1.0)
    files = SceneFile("B04", path, number=1), SceneFile("B02", path, number=2)

    values = read_scene(Scene("here", DAY, files), source).values

    np.testing.assert_array_equal(values, [numbers["blue"], numbers["red"]])
    with pytest.raises(SceneMismatch, match="has 2 bands, B02 should be number 3"):
        read_scene(Scene("here", DAY, (files[0], replace(files[1], number=3))), source)


def test_descriptions_are_given_our_names(tmp_path: Path) -> None:
    """A name of ours hides the same name of theirs."""
    numbers = ground(8, 8, ("blue", "red", "B04"))
    path = write_raster(tmp_path / "a.tif", numbers)
    source = SourceSettings(location="here", bands=("blue", "B04"), names={"B04": "red"}, scale=1.0)

    values = read_scene(path, source).values

    np.testing.assert_array_equal(values, [numbers["blue"], numbers["red"]])


def test_a_band_inside_a_file_and_in_one_of_its_own_is_refused_rather_than_one_of_them_chosen(tmp_path: Path) -> None:
    inside = SceneFile("", str(write_raster(tmp_path / "a.tif", ground(8, 8, ("B02", "B03")))))
    beside = SceneFile("B02", str(write_raster(tmp_path / "b.tif", ground(8, 8, ("B02",)))))

    for files in ((inside, beside), (beside, inside)):
        with pytest.raises(SceneMismatch, match="two files for band B02"):
            read_scene(Scene("here", DAY, files), settings_with())


@pytest.mark.parametrize(("dtype", "scale"), [("uint16", 1e-4), ("int16", 1e-4), ("float32", 1.0), ("float64", 1.0)])
def test_without_any_scale_whole_numbers_are_ten_thousandths_and_fractions_are_what_they_are(
    tmp_path: Path, dtype: str, scale: float
) -> None:
    path = write_raster(tmp_path / "a.tif", ground(8, 8), dtype=dtype)

    pixels = read_scene(path, source_settings(scale=None))

    np.testing.assert_allclose(pixels.values[0], ground(8, 8)["B02"] * scale, rtol=1e-6)
