"""Prune: what the settings no longer want kept is deleted, and nothing that a night, a page or a training still needs.

Stays whatever its age: all of a night that is not finished; the scores of the last nights of a detector in use, on
which drift and the pages look back; which tiles were flagged, since these are never learned from; each night's record,
its flags for maps, and every detector.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlparse

import mlflow
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from configs import Settings, Workspace
from configs.workspace import safe_name, write_text
from imagery.sources.scene import place_and_day
from tasks import tracking
from tasks.nights import finished_nights, read_nights
from tasks.suspects import keep_judgement

Kind = Literal["heatmap", "scores", "latents", "reference", "page", "run"]

LOOKED_BACK_AT = 30  # nights, and scenes of a place: what drift and the pages read of the past
VERSION = re.compile(r"v[1-9]\d*")
SCENE_FILE = re.compile(
    r"(?P<scene>(?P<day>\d{4}-\d\d-\d\d)(?:T[\d.]+Z)?(?:_\d+)?)(?P<end>_anomaly\.(?:tif|qml)|_profile\.json|\.parquet)"
)
REFERENCE = re.compile(r"[0-9a-f]{16}\.json")
HEATMAP, SCORES = ("_anomaly.tif", "_anomaly.qml"), ("_profile.json", ".parquet")  # in the order in which they go

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Removal:
    """Something that is no longer wanted.

    Attributes:
        kind: What it is.
        night: The date it is of.
        what: Its path in the workspace without the ending, or the id of an MLflow run.
        files: What is deleted of the workspace, in this order.
        size: Bytes of the files, or of a run's artifacts on this machine.
    """

    kind: Kind
    night: date
    what: str
    files: tuple[Path, ...] = ()
    size: int = 0


@dataclass(frozen=True)
class Scene:
    """The files of a scored scene in one folder, by their endings."""

    version: str
    location: str
    name: str
    day: date
    files: dict[str, Path]


def plan(settings: Settings, workspace: Workspace, today: date) -> list[Removal]:
    """What would be deleted, by date; nothing is changed.

    Args:
        settings: How long things are kept, counted from the date of their night.
        workspace: Where they are. Symbolic links in it are left alone, with all that lies behind them.
        today: Days are counted back from this one.

    Raises:
        MlflowException: The registry does not answer, so nobody knows which detectors are in use.
    """
    keep = settings.retention
    in_use = _in_use(settings, workspace)
    finished = finished_nights(settings, workspace) - _not_yet_told(workspace)
    scored = [scene for scene in _scenes(workspace.scores) if scene.day in finished]
    unwanted = _unwanted_versions(workspace, in_use, keep.versions)
    looked_back_at = _looked_back_at(scored, in_use, workspace)

    def old(day: date, days: int | None) -> bool:
        return days is not None and (today - day).days > days

    found: list[Removal] = []
    for scene in scored:
        if scene.version in unwanted or old(scene.day, keep.heatmaps):
            found += _removal("heatmap", scene, HEATMAP, workspace)
        if (scene.version in unwanted or old(scene.day, keep.scores)) and _key(scene) not in looked_back_at:
            found += _removal("scores", scene, SCORES, workspace)
    at_work = {_key(scene) for scene in _scenes(workspace.scores) if scene.day not in finished}
    for scene in _scenes(workspace.latents):
        if (scene.version in unwanted or old(scene.day, keep.latents)) and _key(scene) not in at_work:
            found += _removal("latents", scene, (".parquet",), workspace)
    found += [one for one in _references(workspace) if old(one.night, keep.references)]
    for night in sorted(finished):
        page = workspace.reports / night.isoformat() / "report.html"
        if old(night, keep.reports) and page.is_file() and not _linked(page, workspace):
            what = page.relative_to(workspace.root).as_posix()
            chart = page.with_name("drift.png")
            files = (page, chart) if chart.is_file() and not _linked(chart, workspace) else (page,)
            found.append(Removal("page", night, what, files, sum(path.stat().st_size for path in files)))
    if keep.runs is not None:
        old_nights = {night for night in finished if old(night, keep.runs)}
        found += _runs(settings, workspace, old_nights)
    return sorted(found, key=lambda one: (one.night, one.kind, one.what))


def carry_out(
    removals: Iterable[Removal],
    settings: Settings,
    workspace: Workspace,
    on_done: Callable[[Removal], None] = lambda removal: None,
) -> list[Removal]:
    """Delete what was planned. It may be cut off anywhere: what is left is planned, and deleted, by the next one.

    Args:
        removals: From `plan`, made while no nightly run and no training was at work, as it must be now.
        settings: Name the registry of runs.
        workspace: Nothing outside it is touched.
        on_done: Called with each one that is deleted.

    Returns:
        What was deleted.

    Raises:
        OSError: A file cannot be deleted: a workspace that may not be written.
    """
    tracking.connect(settings, workspace)
    client = mlflow.MlflowClient()
    done = []
    for removal in removals:
        if any(_linked(path, workspace) for path in removal.files):
            log.warning("%s lies behind a symbolic link and is left alone", removal.what)
            continue
        if removal.kind == "run":
            client.delete_run(removal.what)
        for path in removal.files:
            if removal.kind == "scores" and path.suffix == ".parquet":
                keep_judgement(path)
        if removal.kind in ("heatmap", "scores"):
            _unlink_from_item(workspace.root / f"{removal.what}.stac.json", removal.files)
        for path in removal.files:
            path.unlink(missing_ok=True)
        done.append(removal)
        on_done(removal)
    return done


def _in_use(settings: Settings, workspace: Workspace) -> set[str]:
    """Versions with an alias: the champion, a challenger."""
    tracking.connect(settings, workspace)
    try:
        aliases = mlflow.MlflowClient().get_registered_model(settings.name).aliases
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return set()
    return {f"v{number}" for number in aliases.values()}


def _unwanted_versions(workspace: Workspace, in_use: set[str], latest: int | None) -> set[str]:
    """All but those in use and the latest others."""
    if latest is None:
        return set()
    folders = {folder.name for root in (workspace.scores, workspace.latents) for folder in _folders(root)}
    others = sorted((name for name in folders if VERSION.fullmatch(name)), key=lambda name: int(name[1:]))
    others = [name for name in others if name not in in_use]
    return set(others[: max(0, len(others) - latest)])


def _looked_back_at(scored: Sequence[Scene], in_use: set[str], workspace: Workspace) -> set[tuple[str, str, str]]:
    """Scenes whose scores the next night reads."""
    found: set[tuple[str, str, str]] = set()
    for version in in_use:
        mine = [scene for scene in scored if safe_name(version) == scene.version]
        nights = {record.night for record in read_nights(workspace, version)[-LOOKED_BACK_AT:]}
        found |= {_key(scene) for scene in mine if scene.day in nights}
        for location in {scene.location for scene in mine}:
            here = sorted((scene for scene in mine if scene.location == location), key=lambda scene: scene.name)
            found |= {_key(scene) for scene in here[-LOOKED_BACK_AT:]}
    return found


def _not_yet_told(workspace: Workspace) -> set[date]:
    """Nights whose files are still to be logged, since MLflow could not be reached."""
    days = (re.match(r"\d{4}-\d\d-\d\d", path.name) for path in workspace.pending.glob("[0-9]*"))
    return {date.fromisoformat(day[0]) for day in days if day}


def _scenes(root: Path) -> Iterator[Scene]:
    """The scenes of `<root>/<version>/<location>/`, by their files."""
    for version in _folders(root):
        if not VERSION.fullmatch(version.name):  # a training that is at work
            continue
        for location in _folders(version):
            scenes: dict[str, dict[str, Path]] = {}
            for path in sorted(location.iterdir()):
                named = SCENE_FILE.fullmatch(path.name)
                if named and path.is_file() and not path.is_symlink():
                    scenes.setdefault(named["scene"], {})[named["end"]] = path
            for name, files in scenes.items():
                yield Scene(version.name, location.name, name, date.fromisoformat(name[:10]), files)


def _folders(root: Path) -> list[Path]:
    """Folders in a folder, in order; none behind a symbolic link."""
    if root.is_symlink() or not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.is_symlink())


def _linked(path: Path, workspace: Workspace) -> bool:
    """Whether a path of the workspace is, or leads through, a symbolic link."""
    return path.resolve() != workspace.root.resolve() / path.relative_to(workspace.root)


def _key(scene: Scene) -> tuple[str, str, str]:
    return scene.version, scene.location, scene.name


def _removal(kind: Kind, scene: Scene, ends: Sequence[str], workspace: Workspace) -> list[Removal]:
    """One removal, or none when nothing is there."""
    files = tuple(scene.files[end] for end in ends if end in scene.files)
    if not files:
        return []
    what = files[0].with_name(scene.name).relative_to(workspace.root).as_posix()
    return [Removal(kind, scene.day, what, files, sum(path.stat().st_size for path in files))]


def _references(workspace: Workspace) -> Iterator[Removal]:
    """All composites, each of the date of its last scene; whatever is compared with one again builds it again."""
    for folder in _folders(workspace.reference):
        for record in sorted(path for path in folder.iterdir() if REFERENCE.fullmatch(path.name)):
            image = record.with_suffix(".tif")
            if record.is_symlink() or image.is_symlink() or not image.is_file():
                continue
            members = json.loads(record.read_text(encoding="utf-8"))["members"]
            day = max(place_and_day(member["scene_id"])[1] for member in members)
            files = (record, image)  # without its record it is not found
            what = record.with_suffix("").relative_to(workspace.root).as_posix()
            yield Removal("reference", day, what, files, sum(path.stat().st_size for path in files))


def _unlink_from_item(item: Path, files: Sequence[Path]) -> None:
    """Take files that will go out of a scene's STAC item; an item of nothing goes as well."""
    if not item.is_file() or item.is_symlink():
        return
    content = json.loads(item.read_text(encoding="utf-8"))
    names = {path.name for path in files}
    assets = content["assets"].items()
    content["assets"] = {name: one for name, one in assets if unquote(Path(one["href"]).name) not in names}
    if {"heatmap", "scores"} & content["assets"].keys():
        write_text(item, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    else:
        item.unlink()


def _runs(settings: Settings, workspace: Workspace, nights: set[date]) -> Iterator[Removal]:
    """The MLflow runs of some nights."""
    experiment = tracking.connect(settings, workspace)
    client = mlflow.MlflowClient()
    names = {night.isoformat(): night for night in nights}
    token = None
    while True:
        page = client.search_runs([experiment], "tags.`tilewatch.kind` = 'nightly'", page_token=token)
        for run in page:
            night = names.get(run.data.tags.get("night", ""))
            if night and run.info.status != "RUNNING":
                yield Removal("run", night, run.info.run_id, size=_artifacts(run))
        token = page.token
        if not token:
            return


def _artifacts(run: Run) -> int:
    """Bytes of a run's artifacts when they lie on this machine; they go with `mlflow gc`."""
    place = urlparse(run.info.artifact_uri)
    folder = Path(unquote(place.path))
    if place.scheme not in ("", "file") or not folder.is_dir():
        return 0
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
