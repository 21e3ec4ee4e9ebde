"""What comes from outside, and is meant to do harm, through the real flows.

More is tested where it belongs: rasters that lead elsewhere (VRT, masks, tile indices) in `tests/imagery/test_traps.py`
and `tests/flows/test_traps.py`, damaged files in `tests/real/test_hostile.py`, altered detectors in
`tests/vae/test_storage.py`, pages in `tests/tasks/pages/test_pages_browser.py`, links in the workspace in
`tests/tasks/test_prune.py`, requests without a password in `test_containers.py`.
"""

from __future__ import annotations

import io
import json
import logging
import os
import pickle
import re
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
import pytest
import yaml

from configs import Workspace
from flows.ingest import ingest
from flows.nightly import NightlySummary, nightly
from flows.parameters import TrainRequest, Watch
from flows.train import train
from imagery.sources.archives import Archive
from imagery.sources.storage import Folder
from tasks import registry
from tests.places import CALIBRATE, NIGHT, SIDE, TRAIN, day, place_settings, write_scene
from vae.errors import DetectorError

NAMES = (
    "<script>alert(1)..%2F..%2Fetc\n\x1b[2J\u202e{{ 7 * 7 }}",
    "'; DROP TABLE runs; --" + "ß" * 80,
)
SECRET = "tw-5ecret-that-nobody-may-see"
HOLDERS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY", "AWS_SECRET_ACCESS_KEY", "POSTGRES_PASSWORD")


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (self.path, "w")


@dataclass(frozen=True)
class Ran:
    """A watch over places with hostile names, trained, and its first night."""

    watch: Watch
    workspace: Workspace
    folder: Path
    summary: NightlySummary
    log: str


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, prefect_server: str) -> Iterator[Ran]:
    folder = tmp_path_factory.mktemp("security")
    for number in range(TRAIN + CALIBRATE):
        light = np.random.default_rng(number)
        write_scene(folder / "scenes", day(number), gain=light.uniform(0.8, 1.2), offset=light.uniform(0, 200))
    event = np.zeros((SIDE, SIDE), bool)
    event[40:70, 40:70] = True
    write_scene(folder / "scenes", NIGHT, event=event)
    for name in NAMES:
        shutil.copytree(folder / "scenes/here", folder / "scenes" / name)
    shutil.rmtree(folder / "scenes/here")
    settings = place_settings(folder / "scenes", injections={"enabled": False})
    config = folder / "watch.yaml"
    config.write_text(yaml.safe_dump(settings.model_dump(mode="json")))
    watch = Watch(config=str(config), workspace=str(folder / "workspace"))
    with pytest.MonkeyPatch.context() as patch:
        said = io.StringIO()
        handler = logging.StreamHandler(said)
        for name in HOLDERS:
            patch.setenv(name, SECRET)
        patch.setattr(logging.getLogger(), "handlers", [*logging.getLogger().handlers, handler])
        train(watch, TrainRequest(reason=f"{NAMES[0]} and ' others"))
        summary = nightly(watch)
    yield Ran(watch, Workspace(folder / "workspace"), folder, summary, said.getvalue())
    mlflow.set_tracking_uri(None)


def test_a_place_may_have_any_name_and_all_of_it_stays_in_the_workspace(ran: Ran) -> None:
    (night,) = ran.summary.nights
    assert {scene.rsplit("/", 1)[0] for scene in night.scenes} == set(NAMES)
    assert night.flags >= len(NAMES)
    assert {path.name for path in ran.folder.iterdir()} == {"scenes", "watch.yaml", "workspace"}
    for path in ran.workspace.root.rglob("*"):
        relative = path.relative_to(ran.workspace.root).as_posix()
        assert relative.isascii()
        assert relative.isprintable()
        assert "<" not in relative
        assert path.resolve().is_relative_to(ran.workspace.root.resolve())


def test_on_the_page_a_name_is_only_a_name(ran: Ran) -> None:
    page = (ran.workspace.root / ran.summary.nights[0].report).read_text()

    scripts = re.findall(r"<script\b[^>]*>", page)
    assert scripts == ["<script>"], "its own"
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert" not in page
    assert "{{ 7 * 7 }}" in page


def test_in_the_files_for_maps_a_name_is_only_a_name(ran: Ran) -> None:
    folder = (ran.workspace.root / ran.summary.nights[0].report).parent

    for name in ("flags.geojson", "areas.geojson"):
        features = json.loads((folder / name).read_text())["features"]
        assert {feature["properties"]["location"] for feature in features} == set(NAMES)


def test_in_mlflow_names_and_reasons_are_only_text(ran: Ran) -> None:
    settings, workspace = ran.watch.open()
    version = mlflow.MlflowClient(workspace.mlflow_uri).get_model_version_by_alias(settings.name, "champion")

    assert version.tags["reason"] == f"{NAMES[0]} and ' others"
    run = mlflow.get_run(ran.summary.nights[0].run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["night"] == NIGHT.isoformat()


def test_no_secret_of_the_environment_is_in_the_workspace_or_in_a_log(ran: Ran) -> None:
    files = [path for path in ran.workspace.root.rglob("*") if path.is_file()]

    assert len(files) > 50
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
    assert SECRET not in ran.log


def test_a_link_to_a_system_file_is_set_aside_and_its_content_is_nowhere(ran: Ran, tmp_path: Path) -> None:
    secret = tmp_path / "passwd"
    secret.write_text(f"root:{SECRET}:0:0\n" * 50)
    link = tmp_path / "scenes/here/2020-01-01.tif"
    link.parent.mkdir(parents=True)
    link.symlink_to(secret)
    overrides = [f"source.root={tmp_path / 'scenes'}"]

    summary = ingest(Watch(config=ran.watch.config, workspace=str(tmp_path / "workspace"), overrides=overrides))

    assert summary.ingested == 0
    assert "cannot be opened as GTiff" in summary.quarantined["here/2020-01-01"]
    files = [path for path in (tmp_path / "workspace").rglob("*") if path.is_file()]
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_with_members_that_leave_it_shows_only_those_that_do_not(tmp_path: Path, kind: str) -> None:
    wanted = ("../outside.jp2", "/etc/outside.jp2", "a/../../outside.jp2", "..\\outside.jp2", "a/good.jp2")
    archive = tmp_path / f"product.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as target:
            for name in wanted:
                target.writestr(name, "content")
            link = zipfile.ZipInfo("a/link.jp2")
            link.external_attr = (stat.S_IFLNK | 0o777) << 16
            target.writestr(link, "/etc/passwd")
    else:
        with tarfile.open(archive, "w") as target:
            for name in wanted:
                member = tarfile.TarInfo(name)
                member.size = len(b"content")
                target.addfile(member, io.BytesIO(b"content"))
            for type_ in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                link_member = tarfile.TarInfo(f"a/link{type_.decode()}.jp2")
                link_member.type, link_member.linkname = type_, "/etc/passwd"
                target.addfile(link_member)

    opened = Archive(Folder(tmp_path), archive.name)
    names = list(opened.files("**/*.jp2"))

    assert "a/good.jp2" in names
    for name in names:
        assert name in ("a/good.jp2", "a/link.jp2")
        assert opened.open(name).read() in (b"content", b"/etc/passwd"), "a link is its text, and leads nowhere"
    assert os.listdir(tmp_path) == [archive.name], "nothing is unpacked"


def test_a_poisoned_model_is_refused_and_nothing_of_it_is_run(ran: Ran, tmp_path: Path) -> None:
    """Whoever can write where MLflow keeps its artifacts can put a pickle there. Last, since it spoils the model."""
    settings, workspace = ran.watch.open()
    sprung = tmp_path / "sprung"
    poison = pickle.dumps(Trap(sprung))
    (model,) = workspace.mlflow_artifacts.rglob("MLmodel")
    description = yaml.safe_load(model.read_text())
    description["flavors"]["python_function"] |= {"python_model": "python_model.pkl", "loader_module": "poison"}
    model.write_text(yaml.safe_dump(description))
    (model.parent / "python_model.pkl").write_bytes(poison)
    (model.parent / "poison.py").write_text(f"open({str(sprung)!r}, 'w')\n")
    shutil.rmtree(workspace.models / settings.name)

    folder, version = registry.champion(settings, workspace)
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".safetensors"], "the rest is not even copied"
    assert version == "v1"

    (weights,) = (model.parent / "artifacts").rglob("*.safetensors")
    weights.write_bytes(poison)
    shutil.rmtree(workspace.models / settings.name)
    with pytest.raises(DetectorError, match="somebody changed them"):
        registry.champion(settings, workspace)
    assert not sprung.exists()

    pickle.loads(poison).close()
    assert sprung.exists(), "it would spring if it were unpickled, so this shows something"
