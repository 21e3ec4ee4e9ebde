"""Injected into real scenes, each kind changes what the field knows it by, and stays within what is physical."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling

from imagery.inject import KINDS, CannotInject, Light, apply, inject, inject_scene, lay
from tests.imagery.inject.grounds import TEN, index

FOUR = ("B02", "B03", "B04", "B08")
CITIES = ("aguasclaras", "beihai", "bordeaux", "cupertino", "hongkong", "pisa", "rennes")
SIDE = 64
Scene = tuple[np.ndarray, np.ndarray]


def city(root: Path, name: str) -> Scene:
    """The second date of a city: (C, H, W) reflectance at the top of the atmosphere, all valid."""
    folder = sorted(path for path in (root / name).iterdir() if path.is_dir())[1]
    with rasterio.open(folder / "B02.tif") as dataset:
        shape = dataset.shape
    values = np.empty((len(TEN), *shape), np.float32)
    for number, band in enumerate(TEN):
        with rasterio.open(folder / f"{band}.tif") as dataset:
            values[number] = dataset.read(1, out_shape=shape, resampling=Resampling.bilinear)
    return values / 1e4, np.ones(shape, bool)


def forest(root: Path, day: str) -> Scene:
    """A date of the forest: (C, H, W) reflectance at the surface, and where the classification sees ground."""
    with rasterio.open(root / f"{day}.tif") as dataset:
        stored = dataset.read()
    valid = np.isin(stored[4], (2, 4, 5, 6, 7, 11)) & (stored[:4] > 0).all(axis=0)
    return np.where(valid, stored[:4] / 1e4, np.nan).astype(np.float32), valid


def tiles(values: np.ndarray, valid: np.ndarray) -> list[Scene]:
    height, width = valid.shape
    return [
        (values[:, row : row + SIDE, col : col + SIDE], valid[row : row + SIDE, col : col + SIDE])
        for row in range(0, height - SIDE + 1, 2 * SIDE)
        for col in range(0, width - SIDE + 1, 2 * SIDE)
    ]


@pytest.mark.parametrize("name", CITIES)
def test_every_kind_that_a_city_has_room_for_shows_as_it_should(shared: Callable[[str], Path], name: str) -> None:
    values, valid = city(shared("oscd"), name)
    light = Light.of(values, valid, TEN)
    donor = values[:, -SIDE:, -SIDE:]
    falls = {"burn": ("nir", "swir22"), "vegetation_loss": ("nir", "red"), "vegetation_thinning": ("nir", "red")}
    rises = {"flood": ("green", "nir"), "snow_remnant": ("green", "swir16")}
    shown = set()
    for number, (tile, good) in enumerate(tiles(values, valid)):
        for kind in KINDS:
            try:
                found = inject(tile, good, TEN, kind, number, donor=donor, light=light)
            except CannotInject:
                continue
            shown.add(kind)
            assert found.mask.any()
            assert (found.values[:, ~found.mask] == tile[:, ~found.mask]).all()
            assert found.values.min() >= 0
            assert found.values.max() < max(1.0, 2 * tile.max())
            if kind in falls | rises:
                names = (falls | rises)[kind]
                moved = (index(found.values, *names) - index(tile, *names))[found.mask]
                assert np.mean(moved < 0 if kind in falls else moved > 0) > 0.97, kind
    assert shown >= set(KINDS) - {"slick", "burn", "vegetation_loss", "vegetation_thinning"}
    if name in ("beihai", "hongkong", "pisa", "rennes"):
        assert shown >= {"burn", "vegetation_loss", "vegetation_thinning"}
    if name == "hongkong":
        assert "slick" in shown


@pytest.mark.parametrize("name", CITIES)
def test_haze_over_a_city_raises_blue_more_than_short_wave_infrared(shared: Callable[[str], Path], name: str) -> None:
    values, valid = city(shared("oscd"), name)
    (found, before) = inject(values, valid, TEN, "haze", 0), values
    rise = (found.values - before).mean(axis=(1, 2))
    assert rise[0] > 0.03
    assert rise[-1] < 0.15 * rise[0]


@pytest.mark.parametrize("name", ["beihai", "hongkong", "pisa", "rennes"])
@pytest.mark.parametrize("kind", ["vegetation_loss", "bare_soil"])
@pytest.mark.parametrize("share", [0.05, 0.2, 0.35])
def test_a_share_of_a_city_is_turned(shared: Callable[[str], Path], name: str, kind: str, share: float) -> None:
    values, valid = city(shared("oscd"), name)
    found = inject_scene(values, valid, TEN, kind, 0, share)
    assert (found.footprint.amount >= 0.5).mean() == pytest.approx(share, abs=0.01)
    change = np.abs(found.values - values).mean(axis=0)
    assert np.median(change[found.footprint.amount >= 0.5]) > 0.02


def test_a_desert_has_no_vegetation_to_lose(shared: Callable[[str], Path]) -> None:
    values, valid = city(shared("oscd"), "abudhabi")
    with pytest.raises(CannotInject, match="pixels of green ground"):
        inject_scene(values, valid, TEN, "vegetation_loss", 0, 0.2)


def test_what_was_cut_in_summer_is_seen_on_every_clear_date_after_and_shows_snow_in_winter(
    shared: Callable[[str], Path],
) -> None:
    root = shared("romania_s2")
    summer, clear = forest(root, _clearest(root, "2018-08"))
    footprint = lay("vegetation_loss", summer, clear, FOUR, 0, share=0.03, strength=1.0)
    days = [path.stem for path in sorted(root.glob("20*.tif")) if path.stem > "2018-08-31"]
    seen = []
    for day in days:
        values, valid = forest(root, day)
        if (valid & footprint.mask).sum() < 200:
            continue
        found = apply(footprint, values, valid, FOUR)
        if not found.mask.any():
            continue  # under snow
        ndvi = [index(image, "nir", "red", FOUR)[found.mask].mean() for image in (values, found.values)]
        around = np.linalg.norm(found.values - values, axis=0)[found.mask].mean()
        seen.append((ndvi[1] - ndvi[0] < -0.05, around, found.values[:3, found.mask].mean()))
    assert len(seen) > 20
    assert np.mean([fell for fell, _, _ in seen]) > 0.9
    assert np.median([around for _, around, _ in seen]) > 0.05
    visible = np.array([bright for _, _, bright in seen])
    assert visible.max() > 1.5 * np.median(visible)  # once the ground there is white


def _clearest(root: Path, month: str) -> str:
    return max((path.stem for path in root.glob(f"{month}-*.tif")), key=lambda day: forest(root, day)[1].sum())
