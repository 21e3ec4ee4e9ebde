"""References, registration and radiometric alignment on real scenes: ten cities on two dates, years of a forest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from scipy.ndimage import shift as resampled

from configs import Settings, Workspace
from configs.schema import AlignmentSettings
from imagery.alignment import Alignment, align
from imagery.catalog import Catalog, SceneRecord
from imagery.grid import Grid
from imagery.reference import Reference
from imagery.registration import ChipPair, Registration, chip_windows, register
from tasks.ingest import open_scene
from tasks.reference import SceneAlignment, align_scene, reference_for
from tests.rasters import UTM, whole
from tests.real.conftest import ingested, preset

TEN = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
CITIES = (
    "abudhabi", "aguasclaras", "beihai", "bercy", "bordeaux", "cupertino", "hongkong", "paris", "pisa", "rennes",
)  # fmt: skip
Watch = tuple[Settings, Workspace]
Pair = tuple[np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def cities(shared: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Watch:
    """Both dates of all cities in the catalog; the first is years older than the second."""
    bands = f"source.bands=[{','.join(TEN)}]"
    settings = preset("oscd", shared("oscd"), bands, "reference.max_age=2000", "reference.seasonal=0")
    workspace = Workspace(tmp_path_factory.mktemp("oscd"))
    _, quarantined = ingested(settings, workspace)
    assert quarantined == {}
    return settings, workspace


@pytest.fixture(scope="module")
def forest(shared: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Watch:
    settings = preset("romania", shared("romania_s2"))
    workspace = Workspace(tmp_path_factory.mktemp("romania"))
    ingested(settings, workspace)
    return settings, workspace


def pixels(
    record: SceneRecord, reference: Reference, watch: Watch, correction: tuple[float, float] = (0.0, 0.0)
) -> Pair:
    """(C, H, W) of the reference and of the scene, and (H, W) where both are valid."""
    with reference.open() as before, open_scene(record.scene, *watch, correction) as after:
        old, count = before.read(whole(reference.grid))
        new = after.read(whole(reference.grid))
    return old, new.values, (count > 0) & new.valid


def of_city(city: str, watch: Watch) -> tuple[SceneRecord, Reference, SceneAlignment]:
    record = Catalog(watch[1]).scenes([city])[-1]
    reference = reference_for(city, record.day, *watch)
    assert reference is not None
    return record, reference, align_scene(record, reference, *watch)


def registered(reference: np.ndarray, scene: np.ndarray) -> Registration:
    valid = np.ones(scene.shape[1:], bool)

    def chips() -> Iterator[ChipPair]:
        for window in chip_windows(Grid(UTM, (10.0, 0.0, 0.0, 0.0, -10.0, 0.0), scene.shape[2], scene.shape[1])):
            rows, cols = window.toslices()
            yield ChipPair(reference[:, rows, cols], scene[:, rows, cols], valid[rows, cols], valid[rows, cols])

    return register(chips(), AlignmentSettings())


@pytest.mark.parametrize(("rows", "cols"), [(1, 0), (-2, 3), (0.5, 0.25), (-1.3, 2.4), (0.05, -0.75)])
def test_a_known_shift_of_a_real_scene_is_found_to_a_tenth_of_a_pixel(
    shared: Callable[[str], Path], rows: float, cols: float
) -> None:
    images = []
    for band in ("B04", "B8A"):
        (path,) = shared("s2_l2a_60m").glob(f"*_{band}_*.jp2")
        with rasterio.open(path) as dataset:
            images.append(dataset.read(1, window=((600, 1010), (600, 1010))).astype(np.float32))
    moved = [resampled(image, (-rows, -cols), order=1)[5:-5, 5:-5] for image in images]
    assert min(image.min() for image in moved) > 0

    found = registered(np.stack([image[5:-5, 5:-5] for image in images]), np.stack(moved))

    assert found.reason is None
    assert (found.rows, found.cols) == pytest.approx((rows, cols), abs=0.1)


def test_scenes_of_different_towns_are_neither_registered_nor_aligned(cities: Watch) -> None:
    old, _, _ = pixels(*of_city("bordeaux", cities)[:2], cities)
    _, new, _ = pixels(*of_city("rennes", cities)[:2], cities)
    height, width = min(old.shape[1], new.shape[1]), min(old.shape[2], new.shape[2])
    old, new = old[:, :height, :width], new[:, :height, :width]
    valid = np.isfinite(old).all(axis=0) & np.isfinite(new).all(axis=0)

    shift = registered(np.nan_to_num(old), np.nan_to_num(new))
    map_ = align(old, new, valid, valid, TEN, AlignmentSettings())

    assert shift.correction == (0.0, 0.0)
    assert "do not agree" in str(shift.reason)
    assert "little in common" in str(map_.reason)


@pytest.mark.slow
@pytest.mark.parametrize("city", CITIES)
def test_a_city_is_registered_and_aligned_years_later(cities: Watch, shared: Callable[[str], Path], city: str) -> None:
    record, reference, found = of_city(city, cities)
    shift, map_ = found.registration, found.alignment

    assert (shift.reason, map_.reason) == (None, None)
    assert shift.rows is not None
    assert shift.cols is not None
    assert max(abs(shift.rows), abs(shift.cols)) < 1.5
    assert ((map_.gain > 0.3) & (map_.gain < 1.6)).all()
    assert (np.abs(map_.offset) < 0.2).all()
    assert (map_.residual < map_.unaligned).all()

    old, new, valid = pixels(record, reference, cities)
    old_again, moved, valid_again = pixels(record, reference, cities, shift.correction)
    left = registered(np.nan_to_num(old_again), np.nan_to_num(moved))
    assert max(abs(left.rows or 0), abs(left.cols or 0)) <= 0.6  # only whole pixels are corrected
    with rasterio.open(shared("oscd") / city / "change.tif") as dataset:
        unchanged = valid & valid_again & (dataset.read(1) == 0)
    before = np.abs(new - old)[:, unchanged].mean()
    after = np.abs(moved - map_.apply(old))[:, unchanged].mean()
    assert after < 0.95 * before


@pytest.mark.parametrize(("city", "other"), [("rennes", "pisa"), ("cupertino", "abudhabi"), ("hongkong", "beihai")])
def test_a_third_of_a_real_scene_may_have_become_another_place(cities: Watch, city: str, other: str) -> None:
    old, new, valid = pixels(*of_city(city, cities)[:2], cities)
    _, elsewhere, _ = pixels(*of_city(other, cities)[:2], cities)
    rows = round(0.3 * valid.shape[0])
    patch = np.tile(elsewhere[:, :200, :200], (1, 6, 6))[:, :rows, : valid.shape[1]]
    event = new.copy()
    event[:, :rows] = patch
    there = valid & np.isfinite(event).all(axis=0)

    def fitted(scene: np.ndarray, where: np.ndarray) -> Alignment:
        return align(old, scene, where, where, TEN, AlignmentSettings())

    plain = fitted(new, valid & (np.arange(valid.shape[0]) >= rows)[:, None])
    with_event = fitted(event, there)
    moved = np.abs(with_event.apply(old) - plain.apply(old))[:, rows:][:, valid[rows:]]

    assert (plain.reason, with_event.reason) == (None, None)
    assert (moved.mean(axis=1) < 0.3 * plain.residual).all()
    x, y = old[:, there].astype(float), event[:, there].astype(float)
    design = np.vstack([x, np.ones(x.shape[1])])
    least_squares = np.linalg.lstsq(design.T, y.T, rcond=None)[0].T @ design
    astray = np.abs(least_squares - plain.apply(old)[:, there]).mean(axis=1)
    assert (astray / plain.residual).max() > 1


@pytest.mark.slow
def test_clear_scenes_of_a_forest_are_brought_to_their_season_and_events_stand_out(forest: Watch) -> None:
    settings, workspace = forest
    records = [one for one in Catalog(workspace).scenes() if one.day.year >= 2018 and one.valid_fraction > 0.9]
    draw = np.random.default_rng(0)
    trusted, before, after, ranks = 0, [], [], []
    for record in records[::2]:
        reference = reference_for("romania", record.day, settings, workspace)
        assert reference is not None
        assert len(reference.members) <= 11
        assert all(member.scene_id < record.scene_id for member in reference.members)
        found = align_scene(record, reference, settings, workspace)
        assert found.registration.reason is None
        trusted += found.alignment.reason is None
        old, new, valid = pixels(record, reference, forest, found.registration.correction)
        before.append(np.abs(new - old)[:, valid].mean())
        after.append(np.abs(new - found.alignment.apply(old))[:, valid].mean())

        event = np.zeros(valid.shape, bool)
        for row, col in draw.integers(0, 88, (6, 2)):
            event[row : row + 12, col : col + 12] = True
        felled = np.where(event, new * np.array([1.1, 1.05, 1.3, 0.7], np.float32)[:, None, None], new)
        refitted = align(old, felled, valid, valid, settings.source.bands, settings.alignment)
        ranks.append([rank_of(felled - image, event, valid) for image in (old, refitted.apply(old))])

    assert trusted == len(before) >= 20
    assert np.mean(after) < 0.6 * np.mean(before)
    plain, aligned = np.mean(ranks, axis=0)
    assert aligned > plain + 0.05


def rank_of(difference: np.ndarray, event: np.ndarray, valid: np.ndarray) -> float:
    """How often a pixel of an event differs more than one outside (AUROC)."""
    scale = 1.4826 * np.median(np.abs(difference[:, valid]), axis=1)
    score = np.square(difference / scale[:, None, None]).mean(axis=0)
    order = np.argsort(np.argsort(score[valid]))
    inside = event[valid]
    return float((order[inside].mean() - (inside.sum() - 1) / 2) / (~inside).sum())
