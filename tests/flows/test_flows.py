"""The flows on real scenes, with Prefect and MLflow as they are used."""

from __future__ import annotations

import hashlib
import json
import shutil
from datetime import timedelta
from pathlib import Path

import geopandas as gpd
import mlflow
import numpy as np
import pytest
import rasterio
import yaml
from prefect import flow, task

from configs import Settings, SettingsError
from configs.schema import ComputeSettings, SplitSettings
from flows.calibrate import CalibrateRequest, calibrate
from flows.drift import drift
from flows.latents import latents
from flows.nightly import nightly
from flows.parameters import NightRequest, TrainRequest, Watch
from flows.train import TrainSummary, train
from flows.validate import validate
from tasks import registry, steps, tracking
from tasks.dataset import NothingToTrain
from tasks.nights import read_night
from tasks.score import score_files
from tasks.suspects import suspects
from tasks.train import usable_scenes
from tests.commands import ROOT
from tests.flows.conftest import CALIBRATE_END, DATES, GAIN_FROM, SETTINGS
from vae.detector import Detector
from vae.errors import CalibrationError, DetectorError

pytestmark = pytest.mark.slow
CONTRACT = {
    *("tile_id", "location", "scene_id", "acquired", "row_off", "col_off", "height", "width", "geometry"),
    *("valid_fraction", "kind", "raw", "score", "p_value", "threshold", "flagged", "basis", "reason"),
    *("detector_version", "calibration_id", "score_change", "score_novelty", "score_reconstruction"),
    *("part_texture", "part_bands", "off_0", "off_1", "off_2", "off_3"),
}


def digests(workspace: str, *folders: str) -> dict[str, str]:
    root = Path(workspace)
    paths = [path for folder in folders for path in (root / folder).rglob("*") if path.is_file()]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def test_training_makes_a_champion_that_tells_what_it_was_made_of(trained: tuple[Watch, TrainSummary]) -> None:
    watch, summary = trained
    settings, workspace = watch.open()

    folder, version = registry.champion(settings, workspace)
    detector = Detector.load(folder)

    assert (summary.detector_version, version) == ("v1", "v1")
    assert detector.metadata["training_dates"][-1] <= str(DATES[19]) < detector.metadata["calibration_dates"][0]
    assert not set(detector.metadata["validation_dates"]) & set(detector.metadata["training_dates"])
    assert summary.calibration_basis == "held_out"
    assert set(detector.calibrations) == {"change", "novelty"}
    for made in detector.calibrations.values():
        assert set(made.levels.names) == {
            f"meadow-r{row:05d}-c{col:05d}" for row in range(0, 64, 16) for col in range(0, 64, 16)
        }
    assert detector.metadata["misses"] == []
    # A latent file for every scene of the split, with one row a tile.
    files = sorted((workspace.latents / "v1" / "meadow").glob("*.parquet"))
    assert len(files) == 28
    assert len(gpd.pd.read_parquet(files[0])["latent"].iloc[0]) == detector.latent_size


def test_mlflow_has_settings_metrics_figures_data_and_model(trained: tuple[Watch, TrainSummary]) -> None:
    watch, summary = trained
    settings, workspace = watch.open()
    tracking.connect(settings, workspace)
    client = mlflow.MlflowClient()

    run = client.get_run(summary.run_id)
    artifacts = {
        artifact.path
        for folder in ("", "figures", "validation", "diagnosis/final")
        for artifact in client.list_artifacts(summary.run_id, folder)
    }

    assert run.data.params["grid.tile_size"] == "16"
    assert len(client.get_metric_history(summary.run_id, "elbo_held_out")) == summary.epochs
    assert run.inputs.dataset_inputs
    assert {"settings.json", "injected.json", "figures/loss.png", "figures/expected.png"} <= artifacts
    assert {"figures/scores-change.png", "figures/scores-novelty.png", "figures/injected.png"} <= artifacts
    assert {"diagnosis/final/samples.png", "diagnosis/final/diagnosis.json"} <= artifacts
    assert run.data.metrics["diagnosis/importance_bound"] > run.data.metrics["diagnosis/importance_bound_elbo"]
    assert run.data.metrics["injected_recall/flood"] > 0.9
    assert {"validation/validation.json", "validation/validation.html"} <= artifacts
    assert client.get_model_version_by_alias("meadow", "champion").tags["reason"] == "first"


def test_the_registered_model_scores_through_mlflow_and_holds_no_pickle(trained: tuple[Watch, TrainSummary]) -> None:
    watch, _ = trained
    settings, workspace = watch.open()
    folder, _ = registry.champion(settings, workspace)
    detector = Detector.load(folder)
    model = mlflow.artifacts.download_artifacts("models:/meadow@champion")
    assert not [path for path in Path(model).rglob("*") if path.suffix in {".pkl", ".pickle", ".pt", ".pth", ".bin"}]

    tiles = np.full((3, 4, 16, 16), 0.2, np.float32)
    tiles[1, :, :4] = np.nan
    given = mlflow.pyfunc.load_model("models:/meadow@champion").predict(tiles)

    found = detector.score(tiles, np.isfinite(tiles).all(axis=1))
    assert set(found.kind) == {"novelty"}  # they come without a past
    np.testing.assert_array_equal(given["score"], detector.judge(found.kind, found.score).score)


def test_a_model_whose_files_were_changed_is_not_used(fresh_watch: Watch) -> None:
    settings, workspace = fresh_watch.open()
    folder, _ = registry.champion(settings, workspace)
    description = folder / "detector.json"
    description.write_text(description.read_text().replace('"seed": 0', '"seed": 1'))

    # The copy in the workspace is made anew from the registry.
    again, _ = registry.champion(settings, workspace)
    assert Detector.load(again).seed == 0

    version = mlflow.MlflowClient().get_model_version_by_alias("meadow", "champion")
    mlflow.MlflowClient().set_model_version_tag("meadow", version.version, registry.DIGEST_TAG, "0" * 64)
    with pytest.raises(DetectorError, match="somebody changed them"):
        registry.champion(settings, workspace)


def test_a_night_gives_scores_heatmap_report_and_run(fresh_watch: Watch) -> None:
    night = DATES[29]  # the flood
    done = nightly(fresh_watch, NightRequest(night=night))
    _, workspace = fresh_watch.open()

    (record,) = done.nights
    scores = gpd.read_parquet(workspace.scores / "v1" / "meadow" / f"{night}.parquet")
    assert set(scores.columns) == CONTRACT
    assert scores.crs == "EPSG:4326"
    assert len(scores) == record.tiles == 16
    assert record.flags == scores["flagged"].sum() >= 1
    assert (scores["flagged"] == (scores["score"] > scores["threshold"])).all()
    assert (scores["flagged"] == (scores["p_value"] <= 0.05)).all()
    with rasterio.open(workspace.scores / "v1" / "meadow" / f"{night}_anomaly.tif") as heatmap:
        assert heatmap.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert heatmap.tags()["detector_version"] == "v1"
        heat = heatmap.read(1)
    flagged = scores[scores["flagged"]].iloc[0]
    window = heat[flagged.row_off : flagged.row_off + 16, flagged.col_off : flagged.col_off + 16]
    assert np.nanquantile(window, 0.9) == pytest.approx(flagged.score, rel=1e-4)
    page = (workspace.root / record.report).read_text()
    assert flagged.tile_id in page
    assert page.count("data:image/") >= 3
    run = mlflow.MlflowClient().get_run(record.run_id)
    assert run.data.metrics["flags"] == record.flags
    assert read_night(workspace, night) == record


def test_all_due_nights_are_caught_up_oldest_first_and_only_once(fresh_watch: Watch) -> None:
    done = nightly(fresh_watch, NightRequest(until=DATES[30]))
    assert [record.night for record in done.nights] == list(DATES[28:31])
    assert min(DATES[28:31]) > CALIBRATE_END

    # The history of the detector has one step a night.
    settings, workspace = fresh_watch.open()
    client, experiment = mlflow.MlflowClient(), tracking.connect(settings, workspace)
    (history,) = client.search_runs([experiment], "tags.`tilewatch.kind` = 'history'")
    for metric in ("flags", "drift/psi_B02", "drift/ks_B08", "drift/wasserstein_B04", "drift/score_shift"):
        steps_seen = [point.step for point in client.get_metric_history(history.info.run_id, metric)]
        assert steps_seen == [tracking.night_step(night) for night in DATES[28:31]]

    before = digests(fresh_watch.workspace, "scores", "reports", "catalog", "latents", "mlartifacts")
    again = nightly(fresh_watch, NightRequest(until=DATES[30]))
    assert again.nights == []
    assert digests(fresh_watch.workspace, "scores", "reports", "catalog", "latents", "mlartifacts") == before


def test_two_workspaces_and_two_orders_give_the_same_bytes(
    fresh_watch: Watch, trained: tuple[Watch, TrainSummary]
) -> None:
    nightly(fresh_watch, NightRequest(until=DATES[29]))
    other = Watch(config=fresh_watch.config, workspace=fresh_watch.workspace + "-2", overrides=["compute.workers=1"])
    Path(other.workspace).mkdir()
    train(other, TrainRequest(reason="first"))
    for night in (DATES[29], DATES[28]):
        nightly(other, NightRequest(night=night))

    one, two = (digests(watch.workspace, "scores") for watch in (fresh_watch, other))
    assert one == two
    assert len(one) == 10


def test_a_night_cut_off_after_scoring_is_finished_with_the_same_bytes(fresh_watch: Watch) -> None:
    night = DATES[29]
    nightly(fresh_watch, NightRequest(night=night))
    _, workspace = fresh_watch.open()
    before = digests(fresh_watch.workspace, "scores", "latents")
    (workspace.reports / str(night) / "night.json").unlink()
    (workspace.scores / "v1" / "meadow" / f"{night}_profile.json").unlink()

    (record,) = nightly(fresh_watch, NightRequest(night=night)).nights

    assert record.night == night
    assert digests(fresh_watch.workspace, "scores", "latents") == before
    settings, _ = fresh_watch.open()
    experiment = tracking.connect(settings, workspace)
    runs = mlflow.MlflowClient().search_runs([experiment], f"tags.night = '{night}'")
    assert len(runs) == 1


def test_a_lasting_gain_is_noticed_and_leads_to_a_retrain(fresh_watch: Watch) -> None:
    quick = ["drift.retrain=nightly", "drift.retrain_after=3", "calibration.min_tiles=10", "drift.window=2"]
    watch = fresh_watch.model_copy(update={"overrides": quick})
    done = nightly(watch, NightRequest())

    noticed = [record for record in done.nights if record.drift_began]
    assert noticed, [record.statistics for record in done.nights]
    assert noticed[0].night >= GAIN_FROM
    assert noticed[0].night <= GAIN_FROM + timedelta(days=24)
    assert done.trainings
    assert done.trainings[0].detector_version == "v2"
    assert done.trainings[0].promoted, done.trainings[0].verdict
    assert [record.detector_version for record in done.nights] == sorted(
        record.detector_version for record in done.nights
    )
    assert {"v1", "v2"} <= {record.detector_version for record in done.nights}
    again = train(watch, TrainRequest(drift=f"v1/{noticed[0].drift_began}"), return_state=True)
    assert again.is_completed()
    assert "was trained for: v2" in str(again.message)


def test_calibrating_again_changes_the_threshold_and_nothing_else(fresh_watch: Watch) -> None:
    settings, workspace = fresh_watch.open()
    before = Detector.load(registry.champion(settings, workspace)[0])

    summary = calibrate(fresh_watch, CalibrateRequest(false_alarm_rate=0.1, reason="more flags"))

    after = Detector.load(registry.champion(settings, workspace)[0])
    assert summary.detector_version != "v1"
    artifacts = {artifact.path for artifact in mlflow.MlflowClient().list_artifacts(summary.run_id, "figures")}
    assert artifacts == {"figures/scores-change.png", "figures/scores-novelty.png", "figures/injected.png"}
    assert after.required_calibration.false_alarm_rate == 0.1
    assert after.required_calibration.threshold < before.required_calibration.threshold
    for name, made in after.calibrations.items():
        assert made.levels.names == before.calibrations[name].levels.names
        np.testing.assert_array_equal(made.levels.levels, before.calibrations[name].levels.levels)
    assert after.scoring_identity == before.scoring_identity


def test_latents_of_the_nights_and_drift_again(fresh_watch: Watch) -> None:
    nightly(fresh_watch, NightRequest(until=DATES[29]))
    written = latents(fresh_watch, NightRequest(since=DATES[0]))
    assert written.written == 0  # training and the nights have written them all
    forced = latents(fresh_watch, NightRequest(since=DATES[29], until=DATES[29], force=True))
    assert forced.written == 1

    judged = drift(fresh_watch)
    assert [one.night for one in judged] == [DATES[28], DATES[29]]
    strict = fresh_watch.model_copy(update={"overrides": ["drift.min_tiles=17"]})
    assert all(one.alarmed is None for one in drift(strict))


def test_every_scene_of_the_catalog_is_checked_on_request(fresh_watch: Watch) -> None:
    found = validate(fresh_watch.model_copy(update={"overrides": ["validation.max_value=0.01"]}))
    assert found.scenes == 28
    assert len(found.quarantined) == 28
    assert "B08_p98" in next(iter(found.quarantined.values()))
    _, workspace = fresh_watch.open()
    record = json.loads(next(iter((workspace.quarantine / "meadow").glob("*.json"))).read_text())
    assert record["step"] == "validate"


def test_a_scene_that_changed_is_scored_anew_and_its_night_reported_again(fresh_watch: Watch, tmp_path: Path) -> None:
    night = DATES[28]
    settings, _ = fresh_watch.open()
    moved = tmp_path / "moved"
    shutil.copytree(settings.source.root, moved)  # an archive that was moved is the same archive
    watch = fresh_watch.model_copy(update={"overrides": [f"source.root={moved}"]})
    first = nightly(watch, NightRequest(night=night))
    assert first.ingested.ingested == 29
    before = digests(watch.workspace, "scores", "latents")

    shutil.copy(moved / "meadow" / f"{DATES[29]}.tif", moved / "meadow" / f"{night}.tif")
    again = nightly(watch, NightRequest(night=night))

    assert [record.night for record in again.nights] == [night]
    after = digests(watch.workspace, "scores", "latents")
    changed = {name for name in after if after[name] != before.get(name)}
    assert {Path(name).name for name in changed} == {
        f"{night}.parquet",
        f"{night}.stac.json",
        f"{night}_anomaly.tif",
        f"{night}_profile.json",
    }
    assert latents(watch, NightRequest(night=night)).written == 0


def test_tiles_that_were_flagged_are_not_learned_from(fresh_watch: Watch) -> None:
    nightly(fresh_watch, NightRequest(until=DATES[30]))
    settings, workspace = fresh_watch.open()
    records = [record for record in usable_scenes(settings, workspace) if record.day > CALIBRATE_END]
    found = suspects(records, settings, workspace)
    scores = {record.scene_id: gpd.read_parquet(score_files(workspace, "v1", record).scores) for record in records}
    assert found == {
        (scene, tile) for scene, table in scores.items() for tile in table.loc[table["flagged"], "tile_id"]
    }
    assert found

    request = CalibrateRequest(start=DATES[28], end=DATES[30])
    scored = sum(table["score"].notna().sum() for table in scores.values())
    assert calibrate(fresh_watch, request).tiles == scored - len(found)
    everything = fresh_watch.model_copy(update={"overrides": ["split.exclude_flagged=false"]})
    assert calibrate(everything, request).tiles == scored
    # A scene that is flagged all over differs as a whole: it is learned from.
    assert not suspects(records, settings.model_copy(update={"split": SplitSettings(max_flagged=0)}), workspace)


def test_without_a_network_a_watch_is_trained_and_its_nights_reported_to_the_same_bytes(
    fresh_watch: Watch, tmp_path: Path
) -> None:
    preset = yaml.safe_load((ROOT / "configs/fast.yaml").read_text())
    config = Path(fresh_watch.config).with_name("fast.yaml")
    config.write_text(yaml.safe_dump({**SETTINGS, **preset, "injections": {"kinds": ["flood"], "tiles": 5}}))
    kept = Path(fresh_watch.workspace)
    one, two = (Watch(config=str(config), workspace=str(tmp_path / place)) for place in ("one", "two"))
    for folder in ("catalog", "reference"):  # what is there is not read again
        shutil.copytree(kept / folder, tmp_path / "one" / folder)
    summary = train(one)
    shutil.copytree(one.workspace, two.workspace)
    for watch, workers in ((one, 1), (two, 4)):
        watch = watch.model_copy(update={"overrides": [f"compute.workers={workers}"]})
        (record,) = nightly(watch, NightRequest(night=DATES[29])).nights
        assert record.flags >= 1
        assert record.alarmed is not None
    assert latents(two, NightRequest(night=DATES[29], force=True)).written == 1  # empty, as there is no network

    assert (summary.epochs, summary.elbo_held_out) == (0, None)
    settings, workspace = two.open()
    detector = Detector.load(registry.champion(settings, workspace)[0])
    assert detector.networks == ()
    scores = gpd.read_parquet(workspace.scores / "v1" / "meadow" / f"{DATES[29]}.parquet")
    assert {name for name in scores if name.startswith("score_")} == {"score_aligned_difference", "score_rx"}
    assert set(scores["kind"]) == {"aligned_difference"}
    assert detector.latent_size == 0
    first, second = (digests(watch.workspace, "scores", "latents", "reports") for watch in (one, two))
    assert set(first) == set(second)
    names_its_run = f"reports/{DATES[29]}/night.json"
    assert {name for name in first if first[name] != second[name]} == {names_its_run}


def test_a_step_that_fails_for_one_scene_stops_no_other(prefect_database: None) -> None:
    @task(persist_result=False)
    def halve(number: int) -> int:
        if number == 3:
            raise RuntimeError("nobody foresaw this")
        if number < 0:
            raise OSError("the disk is full")
        return number // 2

    @flow(persist_result=False)
    def all_of(numbers: list[int]) -> list[object]:
        settings = Settings(compute=ComputeSettings(retries=0))
        parameters = [{"number": number} for number in numbers]
        return steps.for_each(halve, parameters, settings, lambda one, failure: f"{one['number']}: {failure}")

    assert all_of([2, 3, 8]) == [1, "3: nobody foresaw this", 4]
    with pytest.raises(OSError, match="the disk is full"):
        all_of([2, -1, 8])


@pytest.mark.parametrize(
    ("override", "error", "told"),
    [
        ("score.name=reconstrution", SettingsError, "Did you mean 'reconstruction'"),
        ("injections.kinds=[meteor]", SettingsError, r"unknown kind\(s\) meteor"),
        ("calibration.false_alarm_rate=0.0001", CalibrationError, "9999 are needed"),
        ("split.train={end: 2019-01-01}", NothingToTrain, "the catalog has 28 scenes"),
    ],
)
def test_a_training_that_cannot_work_is_refused_before_any_work(
    fresh_watch: Watch, override: str, error: type[Exception], told: str
) -> None:
    watch = fresh_watch.model_copy(update={"overrides": [override, "train.epochs=100000"]})
    with pytest.raises(error, match=told):
        train(watch)
    settings, workspace = fresh_watch.open()
    assert registry.champion(settings, workspace)[1] == "v1"
    assert not list(workspace.latents.glob("staging*"))
