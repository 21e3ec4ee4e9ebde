"""A scored scene leaves files that fit together, with overlapping tiles as well."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pystac
import pytest
import rasterio

from configs import Settings, Workspace
from configs.schema import CalibrationSettings
from imagery.catalog import Catalog, SceneRecord
from imagery.outputs.blending import blend_window
from tasks.dataset import gathered
from tasks.ingest import ingest_scene, plan_ingest, reading_key, settle_grids
from tasks.observe import observe, opened
from tasks.reference import usual_of
from tasks.score import read_nights, read_profile, score_files, score_scene
from tasks.validate import validate_scenes
from tests.places import SIDE, Watched, day, write_scene
from tests.rasters import BANDS, ground, watch_settings, write_raster
from vae.detector import Detector
from vae.networks import build
from vae.normalisation import Normalisation

STRIDES = [None, 16, 12, 4]
WRITTEN = ["scores", "heatmap", "latents", "style", "item", "profile"]
ALONE = {"name": "reconstruction", "without_past": "reconstruction", "also": ("kl",)}


def scored_watch(folder: Path, stride: int | None) -> tuple[SceneRecord, Detector, Settings, Workspace]:
    """A scene of 40 x 52 pixels with a masked corner, and an untrained detector that is calibrated."""
    missing = np.zeros((40, 52), bool)
    missing[:20, :14] = True
    write_raster(folder / "scenes/here/2020-06-01.tif", ground(40, 52), missing=missing, nodata="declared")
    settings = watch_settings(folder / "scenes", grid={"tile_size": 16, "stride": stride}, score=ALONE)
    workspace = Workspace(folder / "workspace")
    (scene,) = plan_ingest(settings, workspace).scenes
    settle_grids([scene], settings, workspace)
    assert ingest_scene(scene, settings, workspace).reason is None
    (record,) = Catalog(workspace).scenes()
    network = build(len(BANDS), settings.model, 0)
    network.sigma.fill_(0.3)
    limits = Normalisation.from_limits(dict.fromkeys(BANDS, (0.03, 0.4)), log=True, clip=3.0)
    about = {"reading_key": reading_key(settings)}
    detector = Detector((network,), limits, settings.model, settings.score, settings.grid.tile_size, metadata=about)
    usual = np.random.default_rng(0).normal(5, 0.2, 200)
    dates = [f"2020-05-{number % 4 + 1:02}" for number in range(200)]
    places = [f"here-{number // 4}" for number in range(200)]
    rate = CalibrationSettings(false_alarm_rate=0.05)
    detector = detector.with_calibration("reconstruction", usual, dates, dates, places, rate, "held_out")
    return record, detector, settings, workspace


@pytest.mark.parametrize("stride", STRIDES)
def test_the_files_of_a_scene_fit_together(tmp_path: Path, stride: int | None) -> None:
    record, detector, settings, workspace = scored_watch(tmp_path, stride)

    files = score_scene(record, detector, "v1", settings, workspace)

    assert files.complete
    scores, tiles = gpd.read_parquet(files.scores), Catalog(workspace).tiles(record)
    columns = ["tile_id", "row_off", "col_off", "height", "width", "geometry"]
    assert scores[columns].equals(tiles[columns])
    np.testing.assert_allclose(scores["valid_fraction"], tiles["valid_fraction"])
    item = pystac.Item.from_file(files.item)
    assert item.properties["tilewatch:tiles"] == len(tiles) == record.tiles
    assert item.properties["tilewatch:flags"] == scores["flagged"].sum()
    assert np.isnan(scores["threshold"][0])  # as its score
    assert item.properties["tilewatch:threshold"] == detector.required_calibration.threshold
    assert item.properties["tilewatch:valid_fraction"] == pytest.approx(record.valid_fraction, abs=1e-6)
    for asset in item.assets.values():
        assert Path(asset.get_absolute_href()).is_file()
    assert files.style.with_suffix(".tif") == files.heatmap
    assert f"{detector.required_calibration.threshold!r}" in files.style.read_text()


@pytest.mark.parametrize("stride", STRIDES)
def test_the_heatmap_is_what_its_tiles_say_weighed_by_how_far_inside_a_pixel_lies(
    tmp_path: Path, stride: int | None
) -> None:
    record, detector, settings, workspace = scored_watch(tmp_path, stride)
    window = np.ones((16, 16)) if stride in (None, 16) else blend_window(16)
    sums, weights = np.zeros((2, 40, 52))

    files = score_scene(record, detector, "v1", settings, workspace)

    scores = gpd.read_parquet(files.scores)
    judged = detector.judge(scores["kind"].to_numpy(object), scores["raw"].to_numpy(), scores["tile_id"].tolist())
    with opened(record, detector, None, settings, workspace) as scene:
        maps = [heat for _, found in observe(detector, scene, stride) for heat in found.heatmap]
    for index, (tile, raw) in enumerate(zip(scores.itertuples(), maps, strict=True)):
        values = judged.relative(raw, index).astype(float)
        part = np.s_[: tile.height, : tile.width]
        place = np.s_[tile.row_off : tile.row_off + tile.height, tile.col_off : tile.col_off + tile.width]
        known = np.isfinite(values[part])
        sums[place] += np.where(known, values[part], 0) * window[part]
        weights[place] += known * window[part]
    with rasterio.open(files.heatmap) as dataset:
        heat = dataset.read(1)
    np.testing.assert_array_equal(np.isfinite(heat), weights > 0)
    np.testing.assert_allclose(heat[weights > 0], (sums / np.maximum(weights, 1e-300))[weights > 0], rtol=1e-6)


@pytest.mark.parametrize("stride", STRIDES)
def test_overlapping_tiles_pass_the_checks_and_can_be_learned_from(tmp_path: Path, stride: int | None) -> None:
    record, _, settings, workspace = scored_watch(tmp_path, stride)

    validation = validate_scenes([record], settings, workspace)

    assert validation.critical(record.scene_id) == []
    tiles = Catalog(workspace).tiles(record)
    with gathered((record,), settings, workspace, None) as arrays:
        assert len(arrays) == (tiles["valid_fraction"] >= settings.train.min_valid).sum()
    assert {record.stride} == {stride or 16}


@pytest.mark.parametrize("lost", WRITTEN)
def test_a_scene_that_lost_a_file_is_scored_again_to_the_same_bytes(tmp_path: Path, lost: str) -> None:
    record, detector, settings, workspace = scored_watch(tmp_path, 12)
    files = score_scene(record, detector, "v1", settings, workspace)
    path = getattr(files, lost)
    before = path.read_bytes()
    path.unlink()
    assert not score_files(workspace, "v1", record).complete

    score_scene(record, detector, "v1", settings, workspace)

    assert path.read_bytes() == before


# With a past.


EVENT = np.zeros((SIDE, SIDE), bool)
EVENT[32:64, 32:64] = True
TURNED = ["here-r00032-c00032", "here-r00032-c00048", "here-r00048-c00032", "here-r00048-c00048"]


def scored(place: Watched, record: SceneRecord, detector: Detector | None = None) -> gpd.GeoDataFrame:
    """The scores of a scene beside its past, by tile."""
    usual = usual_of(record, place.settings, place.workspace)
    files = score_scene(record, detector or place.detector, "v1", place.settings, place.workspace, usual)
    return gpd.read_parquet(files.scores).set_index("tile_id")


def lasting_event(place: Watched) -> SceneRecord:
    """An event that is there on the last two dates."""
    write_scene(Path(place.settings.source.root), day(14), event=EVENT)
    return place.on_night(event=EVENT, gain=1.1)


def test_an_event_that_lasts_is_flagged_where_it_is_and_the_scores_say_what_drove_it(place: Watched) -> None:
    scores = scored(place, lasting_event(place))

    assert scores.loc[TURNED, "flagged"].all()
    assert scores["score"].nlargest(4).index.isin(TURNED).all()
    assert set(scores["kind"]) == {"aligned_difference"}
    assert set(scores["basis"]) == {"calibrated"}
    np.testing.assert_array_equal(scores["raw"], scores["score_aligned_difference"])
    assert scores["score_rx"].notna().all()
    shares = scores.loc[TURNED, ["off_0", "off_1", "off_2", "off_3"]]
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert (scores["part_aligned_difference"] == 1).all()


def test_a_scene_without_a_past_is_judged_by_its_own_score_beside_one_with_a_past(place: Watched) -> None:
    first, last = scored(place, place.records[0]), scored(place, place.on_night())

    assert (set(first["kind"]), set(last["kind"])) == ({"rx"}, {"aligned_difference"})
    assert first["score_aligned_difference"].isna().all()
    np.testing.assert_array_equal(first["raw"], first["score_rx"])
    for scores in (first, last):
        assert scores["score"].median() == pytest.approx(1, abs=0.1)
        (kind,) = set(scores["kind"])
        assert set(scores["threshold"]) == {place.detector.calibrations[kind].threshold}


def test_tiles_that_the_past_does_not_show_are_judged_alone_among_the_others(place: Watched) -> None:
    for number in range(11, 15):  # all that are compared with
        write_scene(Path(place.settings.source.root), day(number), clouded=20)

    scores = scored(place, place.on_night())

    assert set(scores.loc[scores["row_off"] == 0, "kind"]) == {"rx"}
    assert set(scores.loc[scores["row_off"] >= 32, "kind"]) == {"aligned_difference"}
    assert scores["score"].notna().all()
    assert not scores["flagged"].all()


def test_twice_the_same_bytes_with_a_past_and_nothing_is_left_in_the_cache(place: Watched) -> None:
    record = lasting_event(place)
    usual = usual_of(record, place.settings, place.workspace)

    def files() -> dict[str, bytes]:
        made = score_scene(record, place.detector, "v1", place.settings, place.workspace, usual)
        return {name: getattr(made, name).read_bytes() for name in WRITTEN}

    before = files()
    for name in WRITTEN:
        getattr(score_files(place.workspace, "v1", record), name).unlink()
    assert files() == before
    assert list(place.workspace.cache.iterdir()) == []


def test_a_scene_of_nothing_but_cloud_leaves_files_that_say_so(place: Watched) -> None:
    record = place.on_night(clouded=SIDE)
    scores = scored(place, record)

    assert scores["score"].isna().all()
    assert set(scores["reason"]) == {"nothing of the tile is usable"}
    files = score_files(place.workspace, "v1", record)
    assert files.complete
    assert read_nights(files.profile) == {}
    item = pystac.Item.from_file(files.item)
    assert item.properties["tilewatch:threshold"] is None
    assert item.properties["tilewatch:scored"] == 0


@pytest.mark.parametrize("flipped", [False, True])
def test_how_the_scene_was_judged_as_a_whole_is_kept_beside_what_drift_is_measured_on(
    place: Watched, flipped: bool
) -> None:
    rough = place.on_night(noise=10 if flipped else 200, flipped=flipped)
    scored(place, rough)

    profile = score_files(place.workspace, "v1", rough).profile
    ((name, night),) = read_nights(profile).items()
    assert name == ("rx" if flipped else "aligned_difference")
    assert (night.alarm is None) is flipped
    if not flipped:
        assert night.level > 1.2
        assert "all of the scene scores" in str(night.alarm)
    assert len(read_profile(profile).usable_dates(1)) == 1
