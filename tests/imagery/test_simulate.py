"""The simulated archive: real files with known contents."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st

from imagery.simulate import Event, Location, Plan, Truth, demo_plan, simulate
from imagery.simulate.clouds import cover_on, sky, sun
from imagery.simulate.noise import fractal, stream
from imagery.simulate.scenes import World, build_world, render
from imagery.simulate.seasons import BANDS, COVERS

PLAIN = Location("plain", "river", 32634, west=463_200, north=5_218_600, size=96)
COAST = Location("coast", "coast", 32630, west=589_700, north=5_154_900, size=96)
DATES = tuple(date(2025, 6, 1) + timedelta(days=5 * n) for n in range(8))
CLEAR = tuple((name, day) for name in ("plain", "coast") for day in DATES[:5])
PLAN = Plan(
    seed=3,
    locations=(PLAIN, COAST),
    dates=DATES,
    train_end=DATES[0],
    calibrate_end=DATES[0],
    events=(
        Event("new_buildings", "plain", DATES[1], None, radius=12),
        Event("flood", "plain", DATES[1], DATES[3], radius=14),
        Event("slick", "coast", DATES[2], DATES[2], radius=14),
        Event("stripes", "coast", DATES[3], DATES[3], radius=48, strength=0.8),
    ),
    cloudy_nights=(DATES[6],),
    clear_scenes=CLEAR,
    gain_from=DATES[5],
    gain=1.2,
    corrupt=("coast", DATES[4]),
)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Truth]:
    folder = tmp_path_factory.mktemp("archive")
    return folder, simulate(folder, PLAN)


@pytest.fixture(scope="module")
def plain() -> World:
    return build_world(PLAN, PLAIN)


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def read(folder: Path, location: str, day: date) -> np.ndarray:
    with rasterio.open(folder / location / f"{day}.tif") as source:
        return source.read()


def test_the_same_plan_gives_the_same_bytes(archive: tuple[Path, Truth], tmp_path: Path) -> None:
    simulate(tmp_path, PLAN)

    assert digests(tmp_path) == digests(archive[0])


def test_another_seed_gives_another_landscape(plain: World) -> None:
    other = replace(PLAN, seed=4)

    assert (
        render(PLAN, plain, DATES[0]).bands != render(other, build_world(other, PLAIN), DATES[0]).bands
    ).mean() > 0.9


@pytest.mark.parametrize("location", PLAN.locations, ids=lambda location: location.name)
def test_a_scene_is_a_georeferenced_file_with_named_bands(archive: tuple[Path, Truth], location: Location) -> None:
    with rasterio.open(archive[0] / location.name / f"{DATES[0]}.tif") as source:
        assert source.descriptions == ("B02", "B03", "B04", "B08", "B11", "SCL")
        assert source.crs.to_epsg() == location.epsg
        assert set(source.dtypes) == {"uint16"}
        assert source.nodata == 0
        assert source.shape == (96, 96)
        assert source.res == (10.0, 10.0)
        assert (source.bounds.left, source.bounds.top) == (location.west, location.north)
        assert source.profile["tiled"]
        assert source.compression.name == "deflate"


def test_only_whole_scenes_lie_in_the_archive(archive: tuple[Path, Truth]) -> None:
    found = {str(path.relative_to(archive[0])) for path in archive[0].glob("*/*")} - {"truth/plain", "truth/coast"}

    assert found == {f"{location.name}/{day}.tif" for location, day in PLAN.scenes()}
    assert not list(archive[0].rglob("*.part"))


@pytest.mark.parametrize(
    ("location", "day", "kinds"),
    [("plain", DATES[1], {1, 2}), ("coast", DATES[2], {3}), ("coast", DATES[3], {4})],
    ids=["buildings and flood", "slick", "stripes"],
)
def test_the_mask_marks_the_pixels_that_an_event_changes(
    archive: tuple[Path, Truth], location: str, day: date, kinds: set[int]
) -> None:
    calm = replace(PLAN, events=())
    place = next(place for place in PLAN.locations if place.name == location)
    without = render(calm, build_world(calm, place), day).bands.astype(float)
    mask = archive[1].mask(location, day)
    assert mask is not None
    assert set(np.unique(mask)) == {0} | kinds

    # more than noise in at least one band
    changed = (abs(np.log(read(archive[0], location, day)[:5] / without)) > 0.12).any(axis=0)

    assert changed[mask > 0].mean() > 0.9
    assert (mask > 0)[changed].mean() > 0.75  # the rest: mixed pixels on the edge


def test_scenes_without_events_do_not_change_with_the_events(plain: World) -> None:
    calm = replace(PLAN, events=())

    np.testing.assert_array_equal(
        render(PLAN, plain, DATES[0]).bands, render(calm, build_world(calm, PLAIN), DATES[0]).bands
    )


def test_events_have_the_colours_of_what_they_are(plain: World) -> None:
    before, after = (render(PLAN, plain, day) for day in DATES[:2])
    buildings, flood = after.marks == 1, after.marks == 2

    assert np.median(after.bands[:3, buildings]) > 1.3 * np.median(before.bands[:3, buildings])
    assert np.median(after.bands[3, flood]) < 0.4 * np.median(before.bands[3, flood])  # water swallows the infrared
    assert np.median(after.bands[4, flood]) < 0.3 * np.median(before.bands[4, flood])


@pytest.mark.parametrize("kind", ["burn", "clear_cut"])
def test_forest_that_is_gone_is_darker_in_the_infrared(kind: str) -> None:
    forest = Location("forest", "forest", 32632, west=441_500, north=5_309_400, size=96)
    event = Event(kind, "forest", DATES[1], None, radius=12)
    plan = replace(PLAN, locations=(forest,), events=(event,), corrupt=None, clear_scenes=(("forest", DATES[1]),))
    scene = render(plan, build_world(plan, forest), DATES[1])
    calm = replace(plan, events=())
    without = render(calm, build_world(calm, forest), DATES[1])
    there = scene.marks == 1

    assert there.sum() > 150
    assert np.median(scene.bands[3, there]) < 0.75 * np.median(without.bands[3, there])
    assert np.median(scene.bands[4, there]) > 1.05 * np.median(without.bands[4, there])
    assert not np.isin(scene.classes[there], (0, 3, 8, 9, 10)).any()


def test_the_classification_covers_the_clouds_and_no_clear_ground(plain: World) -> None:
    many = replace(
        PLAN, dates=tuple(date(2024, 5, 1) + timedelta(days=5 * n) for n in range(40)), events=(), corrupt=None
    )
    partly = [day for day in many.dates if 0.1 < cover_on(many, "plain", day)[0] < 0.5]
    assert partly
    for day in partly:
        above = sky(many, "plain", day, PLAIN.size, plain.latitude)
        assert above is not None
        scene = render(many, plain, day)
        seen = scene.classes != 0
        clouded, clear = above.cloud > 0.5, (above.cloud == 0) & (above.shadow < 0.01) & (above.cirrus < 0.05)
        masked = np.isin(scene.classes, (3, 8, 9, 10))
        assert masked[clouded & seen].mean() > 0.97
        assert masked[clear & seen].mean() < 0.35
        assert np.median(scene.bands[0, clouded & seen]) > 2 * np.median(scene.bands[0, clear & seen])


def test_a_cloudy_night_shows_no_ground_and_no_event(archive: tuple[Path, Truth]) -> None:
    for location in PLAN.locations:
        scene = read(archive[0], location.name, DATES[6])
        masked = np.isin(scene[5], (0, 3, 8, 9, 10))
        assert masked.mean() > 0.9
    assert archive[1].event_fraction("plain", DATES[6], 0, 0, 96, 96)[0] < 0.01


def test_the_gain_shift_is_a_ratio_of_medians(plain: World) -> None:
    day = DATES[5]
    shifted, level = render(PLAN, plain, day), render(replace(PLAN, gain_from=None), plain, day)
    seen = level.classes != 0

    for band in range(len(BANDS)):
        ratio = np.median(shifted.bands[band, seen]) / np.median(level.bands[band, seen])
        assert ratio == pytest.approx(1.2, abs=0.005)
    np.testing.assert_array_equal(
        render(PLAN, plain, DATES[4]).bands, render(replace(PLAN, gain_from=None), plain, DATES[4]).bands
    )


def test_the_corrupt_file_opens_but_cannot_be_read_and_has_no_truth(archive: tuple[Path, Truth]) -> None:
    folder, truth = archive
    broken = folder / "coast" / f"{DATES[4]}.tif"
    whole = folder / "coast" / f"{DATES[3]}.tif"

    assert 0 < broken.stat().st_size < 0.8 * whole.stat().st_size
    with pytest.raises(rasterio.errors.RasterioIOError), rasterio.open(broken) as source:
        source.read()
    assert truth.mask("coast", DATES[4]) is None


def test_a_second_call_rewrites_nothing(archive: tuple[Path, Truth]) -> None:
    folder, truth = archive
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    told: list[Path] = []

    again = simulate(folder, PLAN, told.append)

    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before
    assert told == []
    pd.testing.assert_frame_equal(again.events, truth.events)


def test_an_interrupted_simulation_is_continued_to_the_same_bytes(archive: tuple[Path, Truth], tmp_path: Path) -> None:
    class StoppedError(Exception):
        pass

    def stop(path: Path) -> None:
        if path.name == f"{DATES[2]}.tif":
            raise StoppedError

    with pytest.raises(StoppedError):
        simulate(tmp_path, PLAN, stop)
    first = tmp_path / "plain" / f"{DATES[0]}.tif"
    written = first.stat().st_mtime_ns
    told: list[Path] = []
    simulate(tmp_path, PLAN, told.append)

    assert first.stat().st_mtime_ns == written
    assert [str(path.relative_to(tmp_path)) for path in told] == [
        f"{place.name}/{day}.tif" for place, day in PLAN.scenes()
    ]
    assert digests(tmp_path) == digests(archive[0])


def test_a_folder_of_another_plan_is_refused(archive: tuple[Path, Truth]) -> None:
    with pytest.raises(FileExistsError, match="delete that folder"):
        simulate(archive[0], replace(PLAN, seed=99))


def test_truth_counts_the_events_pixels_in_a_tile(archive: tuple[Path, Truth]) -> None:
    loaded = Truth.load(archive[0])
    mask = loaded.mask("coast", DATES[2])
    assert mask is not None
    rows, columns = np.nonzero(mask)
    top, left = int(rows.min()), int(columns.min())
    tile = mask[top : top + 16, left : left + 16]

    assert loaded.event_fraction("coast", DATES[2], top, left, 16, 16) == ((tile > 0).mean(), "slick")
    assert loaded.event_fraction("coast", DATES[0], 0, 0, 96, 96) == (0.0, None)
    row = loaded.events.query("kind == 'slick'").iloc[0]
    assert row["acquired"] == pd.Timestamp(DATES[2], tz="UTC")
    assert row["pixels"] == (mask == 3).sum()
    assert row["visible_fraction"] == 1.0


def test_truth_of_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"truth\.parquet"):
        Truth.load(tmp_path)


def test_an_event_without_its_ground_is_refused() -> None:
    dry = replace(PLAN, events=(Event("slick", "plain", DATES[1], None, radius=8),))

    with pytest.raises(ValueError, match="a slick cannot happen at plain"):
        build_world(dry, PLAIN)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"events": (Event("burn", "moon", DATES[0], None, radius=8),)}, "moon"),
        ({"events": (Event("burn", "plain", DATES[1], DATES[0], radius=8),)}, "before it starts"),
        ({"corrupt": ("plain", date(1999, 1, 1))}, "none of the plan's scenes"),
        ({"dates": DATES[::-1]}, "not in order"),
    ],
)
def test_a_plan_that_does_not_fit_together_is_refused(change: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        replace(PLAN, **change)


def test_the_demo_has_a_year_to_train_on_and_twenty_nights_with_events() -> None:
    plan = demo_plan()

    assert len(plan.nights) == 20
    assert (plan.train_end - plan.dates[0]).days >= 360
    assert (plan.dates[-1] - plan.dates[0]).days > 500
    assert len({location.epsg for location in plan.locations}) == 3
    assert len(list(plan.scenes())) <= 250
    assert {event.kind for event in plan.events} == {"burn", "flood", "new_buildings", "clear_cut", "slick", "stripes"}
    assert all(event.start in plan.nights for event in plan.events)
    assert plan.gain_from is not None
    assert any(event.start < plan.gain_from for event in plan.events)
    assert any(event.start >= plan.gain_from for event in plan.events)
    assert plan.corrupt is not None
    assert plan.corrupt[1] in plan.nights


@pytest.mark.parametrize("cover", COVERS.values(), ids=COVERS.keys())
def test_every_cover_is_made_of_its_surfaces_to_the_full(cover: object) -> None:
    weights = np.array(list(cover.mixture.values()))  # type: ignore[attr-defined]

    assert list(cover.days) == sorted(cover.days)  # type: ignore[attr-defined]
    np.testing.assert_allclose(weights.sum(axis=0), 1, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(day=st.dates(date(2024, 1, 1), date(2026, 12, 31)), latitude=st.floats(30, 60))
def test_the_sun_stands_in_the_south_east_and_never_above_its_noon(day: date, latitude: float) -> None:
    elevation, azimuth = sun(day, latitude)

    assert np.radians(90) < azimuth < np.radians(180)
    assert 0 < np.degrees(elevation) <= 90 - latitude + 23.45


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), largest=st.floats(4, 200), slope=st.floats(0.8, 3.0))
def test_fractal_noise_is_standardised_and_repeats_with_its_seed(seed: int, largest: float, slope: float) -> None:
    field = fractal(stream(seed, "a"), (48, 64), largest, slope)

    assert field.mean() == pytest.approx(0, abs=1e-4)
    assert field.std() == pytest.approx(1, abs=1e-4)
    np.testing.assert_array_equal(field, fractal(stream(seed, "a"), (48, 64), largest, slope))
    assert not np.array_equal(field, fractal(stream(seed, "b"), (48, 64), largest, slope))
