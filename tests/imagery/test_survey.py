"""What a survey says of a scene is what numpy finds in its valid pixels, however it is stored and read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.schema import MaskSettings
from imagery import survey as survey_module
from imagery.errors import SceneUnreadable
from imagery.grid import Grid
from imagery.sources import Scene
from imagery.survey import Survey, survey
from tests.rasters import NORTH, UTM, WEST, ground, open_scene, read_scene, scene_of, source_settings, write_raster

BANDS = ("B02", "B08")
SOURCE = source_settings(BANDS, scale=1e-4, offset=-0.05)
MASKS = MaskSettings(class_band="SCL")
LAYOUTS: list[dict[str, Any]] = [
    {},
    {"block": 16, "compress": "zstd"},
    {"block": 48, "interleave": "pixel"},
    {"blockysize": 1, "interleave": "pixel", "compress": "deflate"},
    {"blockysize": 7, "interleave": "band", "compress": "lzw"},
]


def cloudy_scene(folder: Path, height: int = 40, width: int = 50, seed: int = 0, **layout: Any) -> Path:
    """Random ground under random clouds; the tile at the upper left is all cloud, that below it all nodata."""
    draw = np.random.default_rng(seed)
    classes = draw.choice([4, 5, 8, 9, 11], (height, width), p=[0.4, 0.2, 0.1, 0.2, 0.1])
    classes[:16, :16] = 9
    missing = draw.random((height, width)) < 0.1
    missing[16:32, :16] = True
    numbers = ground(height, width, BANDS, seed)
    return write_raster(
        folder / f"scene-{seed}.tif", numbers, nodata="declared", missing=missing, classes=classes, **layout
    )


def surveyed(
    scene: Scene | Path,
    tile_size: int = 16,
    stride: int | None = None,
    threads: int | None = None,
    at_once: int = survey_module.PIXELS_AT_ONCE,
    **keywords: Any,
) -> Survey:
    with pytest.MonkeyPatch.context() as patch:  # small scenes would otherwise be read at once
        patch.setattr(survey_module, "PIXELS_AT_ONCE", at_once)
        return survey(lambda: open_scene(scene, SOURCE, MASKS, **keywords), BANDS, tile_size, stride, threads)


def same(one: Survey, other: Survey) -> bool:
    """Whether two surveys are the same, to the last bit."""
    return (
        one.tiles.equals(other.tiles)
        and {band: one.stats[band].to_record() for band in BANDS}
        == {band: other.stats[band].to_record() for band in BANDS}
        and (one.valid_fraction, one.data_fraction, one.cloud_fraction, one.masked)
        == (other.valid_fraction, other.data_fraction, other.cloud_fraction, other.masked)
    )


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(5, 50), st.integers(5, 50)),
    tiling=st.sampled_from([(8, None), (16, None), (32, None), (16, 8), (16, 12), (32, 4)]),
    seed=st.integers(0, 999),
)
def test_a_survey_says_of_every_tile_what_numpy_finds_in_it(
    tmp_path_factory: pytest.TempPathFactory, size: tuple[int, int], tiling: Any, seed: int
) -> None:
    path = cloudy_scene(tmp_path_factory.mktemp("survey"), *size, seed)
    with open_scene(path, SOURCE, MASKS) as reader:
        grid = reader.grid

    found = surveyed(path, *tiling, at_once=600)

    pixels = read_scene(path, SOURCE, MASKS)
    assert len(found.tiles) == len(grid.tiles(*tiling))
    for row, tile in zip(found.tiles.itertuples(), grid.tiles(*tiling), strict=True):
        assert row.tile_id == tile.tile_id("here")
        assert (row.row_off, row.col_off) == (tile.row_off, tile.col_off)
        assert (row.height, row.width) == (tile.height, tile.width)
        window = np.s_[tile.row_off : tile.row_off + tile.height, tile.col_off : tile.col_off + tile.width]
        valid = pixels.valid[window]
        assert row.valid_fraction == pytest.approx(valid.mean())
        assert row.cloud_fraction == pytest.approx(pixels.cloud[window].mean())
        for values, band in zip(pixels.values, BANDS, strict=True):
            good = np.sort(values[window][valid].astype(np.float64))
            described = [getattr(row, f"{band}_{name}") for name in ("mean", "std", "p02", "p98")]
            if not good.size:
                assert np.isnan(described).all()
                continue
            np.testing.assert_allclose(described[:2], [good.mean(), good.std()], rtol=1e-5, atol=1e-6)
            exact = [good[percent * (good.size - 1) // 100] for percent in (2, 98)]
            np.testing.assert_allclose(described[2:], exact, rtol=0.00501)


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(5, 50), st.integers(5, 50)),
    stride=st.sampled_from([None, 16, 12, 8, 4]),
    seed=st.integers(0, 999),
)
def test_a_survey_says_of_the_scene_what_numpy_finds_in_it_however_tiles_overlap(
    tmp_path_factory: pytest.TempPathFactory, size: tuple[int, int], stride: int | None, seed: int
) -> None:
    path = cloudy_scene(tmp_path_factory.mktemp("survey"), *size, seed)

    found = surveyed(path, 16, stride, at_once=600)

    pixels = read_scene(path, SOURCE, MASKS)
    assert found.valid_fraction == pytest.approx(pixels.valid.mean())
    assert found.data_fraction == pytest.approx(pixels.data.mean())
    assert found.cloud_fraction == pytest.approx(pixels.cloud.sum() / max(pixels.data.sum(), 1))
    for values, band in zip(pixels.values, BANDS, strict=True):
        good = values[pixels.valid].astype(np.float64)
        stats = found.stats[band]
        assert stats.count == good.size == stats.sketch.sum()
        if good.size:
            np.testing.assert_allclose([stats.mean, stats.std], [good.mean(), good.std()], rtol=1e-6, atol=1e-9)
            np.testing.assert_allclose([stats.minimum, stats.maximum], [good.min(), good.max()], rtol=1e-6)


@pytest.mark.parametrize("stride", [None, 12])
def test_a_survey_does_not_depend_on_the_number_of_threads(tmp_path: Path, stride: int | None) -> None:
    path = cloudy_scene(tmp_path, 130, 90)

    one = surveyed(path, 16, stride, threads=1)

    for threads in (2, 3, 16):
        assert same(one, surveyed(path, 16, stride, threads=threads))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_a_survey_does_not_depend_on_how_a_scene_is_stored(tmp_path: Path, layout: dict) -> None:
    plain, other = cloudy_scene(tmp_path / "plain", 130, 90), cloudy_scene(tmp_path / "other", 130, 90, **layout)

    assert same(surveyed(plain), surveyed(other, at_once=2000))
    # Where tiles overlap, sums are rounded in another order.
    one, another = surveyed(plain, 16, 8), surveyed(other, 16, 8, at_once=2000)
    assert one.tiles.equals(another.tiles)
    assert one.masked == another.masked
    for band in BANDS:
        ours, theirs = one.stats[band], another.stats[band]
        assert (ours.sketch == theirs.sketch).all()
        assert (ours.count, ours.minimum, ours.maximum) == (theirs.count, theirs.minimum, theirs.maximum)
        np.testing.assert_allclose([ours.mean, ours.m2], [theirs.mean, theirs.m2], rtol=1e-12)


def test_scene_statistics_do_not_depend_on_how_tiles_overlap(tmp_path: Path) -> None:
    path = cloudy_scene(tmp_path, 130, 90)

    one = surveyed(path)

    for stride in (16, 12, 8, 4):
        other = surveyed(path, 16, stride, at_once=2000)
        assert (one.masked, one.valid_fraction) == (other.masked, other.valid_fraction)
        for band in BANDS:
            ours, theirs = one.stats[band], other.stats[band]
            assert (ours.sketch == theirs.sketch).all()
            assert (ours.count, ours.minimum, ours.maximum) == (theirs.count, theirs.minimum, theirs.maximum)
            np.testing.assert_allclose([ours.mean, ours.m2], [theirs.mean, theirs.m2], rtol=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from([("none", "uint16"), ("mask", "uint16"), ("alpha", "uint16"), ("mask", "float32")]),
    warped=st.booleans(),
    seed=st.integers(0, 999),
)
def test_numbers_under_a_mask_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, kind: tuple[Any, str], warped: bool, seed: int
) -> None:
    """Neither under a cloud nor where there is no data; nor of a warped scene, whose pixels are mixed."""
    nodata, dtype = kind
    folder, draw = tmp_path_factory.mktemp("masked"), np.random.default_rng(seed)
    classes = np.where(draw.random((40, 50)) < 0.3, 9, 4)
    missing = draw.random((40, 50)) < 0.2
    hidden = (missing & (nodata != "none")) | ((classes == 9) & (not warped))
    numbers = ground(40, 50, BANDS, seed)
    changed = {
        band: np.where(hidden, draw.integers(0, 65536, hidden.shape), values) for band, values in numbers.items()
    }
    grid = Grid(UTM, (10, 0, WEST + (4 if warped else 0), 0, -10, NORTH), 50, 40)

    one, other = (
        surveyed(
            write_raster(folder / name, bands, dtype=dtype, classes=classes, missing=missing, nodata=nodata),
            location_grid=grid,
        )
        for name, bands in (("one.tif", numbers), ("other.tif", changed))
    )

    assert same(one, other)


def test_a_warped_scene_is_described_as_it_is_read(tmp_path: Path) -> None:
    path = cloudy_scene(tmp_path, 130, 90)
    grid = Grid(UTM, (15, 0, WEST + 53, 0, -15, NORTH + 8), 48, 64)

    found = surveyed(path, 16, at_once=600, location_grid=grid)

    pixels = read_scene(path, SOURCE, MASKS, location_grid=grid)
    assert 0.2 < found.valid_fraction == pytest.approx(pixels.valid.mean())
    for values, band in zip(pixels.values, BANDS, strict=True):
        assert found.stats[band].mean == pytest.approx(values[pixels.valid].astype(np.float64).mean(), rel=1e-6)
    assert same(found, surveyed(path, 16, threads=3, location_grid=grid))


def test_a_damaged_scene_is_refused_in_the_same_words_by_any_number_of_threads(tmp_path: Path) -> None:
    path = cloudy_scene(tmp_path, 400, 90, blockysize=4, compress="deflate", interleave="pixel")
    os.truncate(path, path.stat().st_size // 2)
    said = set()

    for threads in (1, 2, 4, 4, 4):
        with pytest.raises(SceneUnreadable) as caught:
            surveyed(path, threads=threads)
        said.add(str(caught.value))

    assert len(said) == 1
    assert "cannot be read" in said.pop()


def test_a_scene_of_which_nothing_counts_is_described_without_numbers(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", ground(40, 50, BANDS), classes=np.full((40, 50), 9))

    found = surveyed(scene_of(path))

    assert (found.valid_fraction, found.data_fraction, found.cloud_fraction) == (0, 1, 1)
    assert found.masked == {"cloud": 1}
    assert found.stats["B02"].count == 0
    assert found.tiles[[f"B02_{name}" for name in ("mean", "std", "p02", "p98")]].isna().all(axis=None)
