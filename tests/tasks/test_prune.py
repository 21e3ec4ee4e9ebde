"""What is deleted when it is no longer wanted, and what stays whatever the settings say."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import DatabaseError

from configs import Settings, Workspace
from configs.schema import RetentionSettings
from imagery.quarantine import QuarantineRecord
from imagery.sources.scene import place_and_day
from tasks import prune, tracking
from tasks.nights import NightRecord, night_folder, write_night
from tasks.prune import Removal, carry_out, plan
from tasks.reference import flagged_as_whole, usual_of
from tasks.suspects import suspects
from tests.places import Watched
from tests.scored import write_scored

NIGHTS = tuple(date(2020, 6, 1) + timedelta(days=10 * number) for number in range(5))
TODAY = NIGHTS[-1]
CHAMPION = "v2"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Five nights of two detectors, the later of which is the champion; the last night is not finished."""
    workspace = Workspace(tmp_path_factory.mktemp("made"))
    settings = Settings(name="watch")
    experiment = tracking.connect(settings, workspace)
    client = mlflow.MlflowClient()
    client.create_registered_model("watch")
    for _ in range(2):
        version = client.create_model_version("watch", source=str(workspace.mlflow_artifacts))
    client.set_registered_model_alias("watch", "champion", version.version)
    for number, night in enumerate(NIGHTS):
        for version in ("v1", CHAMPION):
            scene = write_scored(workspace, {number}, day=night.isoformat(), version=version)
            beside = scene.scores.with_name(f"{night}_anomaly.qml"), scene.scores.with_name(f"{night}_profile.json")
            for path in beside:
                path.write_text("{}")
            assets = {"heatmap": f"{night}_anomaly.tif", "scores": f"{night}.parquet", "latents": "elsewhere.parquet"}
            item = {"id": str(night), "assets": {name: {"href": f"./{file}"} for name, file in assets.items()}}
            scene.scores.with_name(f"{night}.stac.json").write_text(json.dumps(item))
            latents = workspace.latents / version / "here" / f"{night}.parquet"
            latents.parent.mkdir(parents=True, exist_ok=True)
            latents.write_bytes(b"latents")
        night_folder(workspace, night).mkdir(parents=True)
        (night_folder(workspace, night) / "report.html").write_text("page")
        (night_folder(workspace, night) / "flags.geojson").write_text("{}")
        run = client.create_run(experiment, tags={"tilewatch.kind": "nightly", "night": night.isoformat()})
        client.log_text(run.info.run_id, "page", "report.html")
        client.set_terminated(run.info.run_id)
        if night != NIGHTS[-1]:
            write_night(workspace, record(night, CHAMPION if number else "v1"))
    return workspace


def record(night: date, version: str) -> NightRecord:
    return NightRecord(night, version, "abc", {}, (), {}, 24, 23, 1, False, (), None, {}, "report.html")


@pytest.fixture
def workspace(made: Workspace, tmp_path: Path) -> Iterator[Workspace]:
    copy = Workspace(tmp_path / "workspace")
    shutil.copytree(made.root, copy.root)
    yield copy
    mlflow.set_tracking_uri(None)


def kept(**retention: int | None) -> Settings:
    return Settings.model_validate({"name": "watch", "retention": retention})


def files(workspace: Workspace) -> set[str]:
    found = (path for path in workspace.root.rglob("*") if path.is_file())
    return {path.relative_to(workspace.root).as_posix() for path in found if "mlflow" not in path.name}


def pruned(settings: Settings, workspace: Workspace) -> set[str]:
    """The files that went."""
    before = files(workspace)
    carry_out(plan(settings, workspace, TODAY), settings, workspace)
    assert plan(settings, workspace, TODAY) == []
    return before - files(workspace)


def test_unless_it_is_asked_for_nothing_goes(workspace: Workspace) -> None:
    assert plan(Settings(name="watch"), workspace, date(2100, 1, 1)) == []


def test_heatmaps_go_when_they_are_older_than_wanted_and_their_scores_stay(workspace: Workspace) -> None:
    settings = kept(heatmaps=20)

    gone = pruned(settings, workspace)

    old = NIGHTS[:2]
    assert gone == {
        f"scores/{version}/here/{night}_anomaly.{end}"
        for version in ("v1", "v2")
        for night in old
        for end in ("tif", "qml")
    }
    items = {night: workspace.scores / "v1/here" / f"{night}.stac.json" for night in NIGHTS}
    assert set(json.loads(items[NIGHTS[0]].read_text())["assets"]) == {"scores", "latents"}
    assert set(json.loads(items[NIGHTS[2]].read_text())["assets"]) == {"heatmap", "scores", "latents"}


def test_what_is_planned_is_what_is_freed(workspace: Workspace) -> None:
    settings = kept(heatmaps=5, latents=5, reports=5)
    before = {path: (workspace.root / path).stat().st_size for path in files(workspace)}
    planned = plan(settings, workspace, TODAY)
    assert files(workspace) == before.keys(), "a plan changes nothing"

    gone = pruned(settings, workspace)

    assert sum(one.size for one in planned) == sum(before[path] for path in gone) > 0
    assert {path.relative_to(workspace.root).as_posix() for one in planned for path in one.files} == gone


def test_pages_go_and_the_records_and_flags_of_their_nights_stay(workspace: Workspace) -> None:
    assert pruned(kept(reports=20), workspace) == {f"reports/{night}/report.html" for night in NIGHTS[:2]}


def test_references_go_when_their_last_scene_is_old_and_are_built_again(place: Watched) -> None:
    record = place.records[-1]
    usual = usual_of(record, place.settings, place.workspace)
    assert usual is not None
    path, content = usual.reference.path, usual.reference.path.read_bytes()
    last = max(place_and_day(member.scene_id)[1] for member in usual.reference.members)
    settings = place.settings.model_copy(update={"retention": RetentionSettings(references=10)})

    assert not [one for one in plan(settings, place.workspace, last + timedelta(days=10)) if path in one.files]
    removals = [one for one in plan(settings, place.workspace, last + timedelta(days=11)) if path in one.files]
    carry_out(removals, settings, place.workspace)

    assert [one.kind for one in removals] == ["reference"]
    assert not path.exists()
    again = usual_of(record, place.settings, place.workspace)
    assert again is not None
    assert again.reference.path.read_bytes() == content


def test_nothing_of_a_night_that_is_not_finished_goes(workspace: Workspace) -> None:
    settings = kept(heatmaps=1, scores=1, latents=1, reports=1, runs=1, versions=1)

    removals = plan(settings, workspace, date(2100, 1, 1))

    assert {one.night for one in removals} == set(NIGHTS[:-1])


def test_nothing_of_a_night_that_is_due_again_goes(workspace: Workspace) -> None:
    """A scene of it was set aside since it was reported."""
    late = QuarantineRecord(
        f"here/{NIGHTS[0]}_2", "here", f"{NIGHTS[0]}T00:00:00+00:00", "ingest", "cut off", "", "", ""
    )
    path = workspace.quarantine / "here" / f"{NIGHTS[0]}_2.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(late.__dict__))

    assert {one.night for one in plan(kept(heatmaps=1), workspace, TODAY)} == set(NIGHTS[1:-1])


def test_nothing_of_a_night_that_mlflow_has_not_been_told_of_goes(workspace: Workspace) -> None:
    workspace.pending.mkdir()
    (workspace.pending / f"{NIGHTS[1]}.json").write_text("{}")

    assert NIGHTS[1] not in {one.night for one in plan(kept(heatmaps=1), workspace, TODAY)}


def test_scores_that_the_next_night_looks_back_at_stay_whatever_their_age(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = kept(scores=1)
    planned = {(one.kind, one.what) for one in plan(settings, workspace, date(2100, 1, 1))}
    assert planned == {("scores", f"scores/v1/here/{night}") for night in NIGHTS[:-1]}

    monkeypatch.setattr(prune, "LOOKED_BACK_AT", 2)
    later = {one.what for one in plan(settings, workspace, date(2100, 1, 1))}
    assert later == {what for _, what in planned} | {f"scores/v2/here/{night}" for night in NIGHTS[:2]}


def test_scores_of_detectors_before_the_latest_go_and_the_champion_is_none_of_them(workspace: Workspace) -> None:
    shutil.copytree(workspace.scores / "v1", workspace.scores / "v3")
    shutil.copytree(workspace.scores / "v1", workspace.scores / "v10")

    removals = plan(kept(versions=1), workspace, TODAY)

    assert {one.what.split("/")[1] for one in removals} == {"v1", "v3"}, "v10 is the latest, v2 scores tonight"


def test_a_training_at_work_keeps_its_latents(workspace: Workspace) -> None:
    staging = workspace.latents / "staging-abc/here" / f"{NIGHTS[0]}.parquet"
    staging.parent.mkdir(parents=True)
    staging.write_bytes(b"latents")

    gone = pruned(kept(latents=5), workspace)

    assert gone == {f"latents/{version}/here/{night}.parquet" for version in ("v1", "v2") for night in NIGHTS[:-1]}


def test_what_was_flagged_is_remembered_when_the_scores_are_gone(place: Watched, made: Workspace) -> None:
    """Else a training, or a reference, would take an event for normal as soon as its scores are pruned."""
    settings = place.settings.model_copy(update={"retention": kept(scores=1).retention})
    workspace, first, second = place.workspace, *place.records[:2]
    shutil.copy(made.root / "mlflow.db", workspace.root)  # or it would be made anew, which takes long
    write_scored(workspace, {3, 4}, day=first.day.isoformat(), version="v1")
    write_scored(workspace, {1}, day=first.day.isoformat(), version="v2")
    write_scored(workspace, set(range(20)), day=second.day.isoformat(), version="v2")
    for one in (first, second):
        write_night(workspace, replace(record(one.day, "v2"), scenes={one.scene_id: one.fingerprint}))
    before = suspects(place.records, settings, workspace)
    assert len(before) == 1
    assert [flagged_as_whole(one, settings, workspace) for one in (first, second)] == [False, True]

    gone = pruned(settings, workspace)

    assert len([path for path in gone if path.endswith(".parquet")]) == 3
    assert suspects(place.records, settings, workspace) == before
    assert [flagged_as_whole(one, settings, workspace) for one in (first, second)] == [False, True]


def test_runs_of_old_nights_are_deleted_and_others_stay(workspace: Workspace) -> None:
    settings = kept(runs=20)
    planned = plan(settings, workspace, TODAY)
    assert all(one.size == len("page") for one in planned)

    pruned(settings, workspace)

    client = mlflow.MlflowClient(workspace.mlflow_uri)
    left = client.search_runs([tracking.connect(settings, workspace)])
    assert {run.data.tags["night"] for run in left} == {night.isoformat() for night in NIGHTS[2:]}


def test_without_the_registry_nothing_is_planned_since_nobody_knows_the_champion(workspace: Workspace) -> None:
    (workspace.root / "mlflow.db").write_bytes(b"no database any more, whatever it was before" * 100)

    with pytest.raises((MlflowException, DatabaseError)):
        plan(kept(scores=1), Workspace(shutil.copytree(workspace.root, workspace.root.parent / "elsewhere")), TODAY)


@pytest.mark.parametrize("link", ["scores/v1/here", "scores/v1", "scores", "reports/2020-06-01", "file"])
def test_nothing_behind_a_symbolic_link_goes(workspace: Workspace, tmp_path: Path, link: str) -> None:
    path = workspace.root / ("scores/v1/here/2020-06-01_anomaly.tif" if link == "file" else link)
    outside = path.rename(tmp_path / "outside")
    path.symlink_to(outside)
    content = {one: one.read_bytes() for one in (outside, *outside.rglob("*")) if one.is_file()}

    gone = pruned(kept(heatmaps=1, scores=1, reports=1, versions=1), workspace)

    assert gone, "the rest of the workspace is pruned as ever"
    assert {one: one.read_bytes() for one in content} == content
    assert path.is_symlink()


def test_a_folder_that_became_a_link_after_the_plan_is_left_alone(workspace: Workspace, tmp_path: Path) -> None:
    settings = kept(heatmaps=1)
    planned = plan(settings, workspace, TODAY)
    outside = (workspace.scores / "v1/here").rename(tmp_path / "outside")
    (workspace.scores / "v1/here").symlink_to(outside)
    names = set(os.listdir(outside))

    done = carry_out(planned, settings, workspace)

    assert {one.what.split("/")[1] for one in done} == {"v2"}
    assert set(os.listdir(outside)) == names


@pytest.mark.parametrize("cut_off", [0, 7, 16, 27])
def test_cut_off_anywhere_it_goes_on_to_the_same_end(
    workspace: Workspace, tmp_path: Path, cut_off: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = kept(heatmaps=1, scores=1, versions=1)
    shutil.copytree(workspace.scores / "v1", workspace.scores / "v3")
    other = Workspace(shutil.copytree(workspace.root, tmp_path / "other"))
    pruned(settings, workspace)
    undisturbed, unlinked, unlink = files(workspace), 0, Path.unlink

    class Killed(BaseException):
        pass

    def until_killed(path: Path, missing_ok: bool = False) -> None:
        nonlocal unlinked
        if path.is_relative_to(other.root) and ".part" not in path.name:
            if unlinked == cut_off:
                raise Killed
            unlinked += 1
        unlink(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", until_killed)
        with pytest.raises(Killed):
            carry_out(plan(settings, other, TODAY), settings, other)

    pruned(settings, other)
    assert files(other) == undisturbed


def test_removals_are_told_one_by_one_and_oldest_first(workspace: Workspace) -> None:
    settings, told = kept(heatmaps=1), list[Removal]()

    done = carry_out(plan(settings, workspace, TODAY), settings, workspace, told.append)

    assert told == done
    assert [one.night for one in done] == sorted(one.night for one in done)
