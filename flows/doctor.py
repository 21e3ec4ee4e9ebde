"""Doctor: what is wrong with an installation or a watch, and what to do about it."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from configs import Settings, SettingsError, Workspace, load_settings
from flows.services.web import Unreachable, call

State = Literal["ok", "warning", "wrong"]
# Of these, pip takes combinations for consistent that fail when they run, some of them silently.
DELICATE = ("prefect", "fastapi", "sqlalchemy", "mlflow", "pandas", "numpy", "rasterio", "torch", "great-expectations")
EXTRAS = ("remote", "clouds", "export", "tune", "cluster", "postgres")
LEAST_FREE, FEW_FREE = 1e9, 10e9  # bytes


@dataclass(frozen=True)
class Finding:
    """One line of the examination.

    Attributes:
        about: What was looked at.
        state: ok; warning, something that may be meant so; wrong, something that will fail.
        found: What was found.
        advice: What to do.
    """

    about: str
    state: State
    found: str
    advice: str = ""


@dataclass(frozen=True)
class Examination:
    """All that was looked at."""

    findings: list[Finding]

    @property
    def wrong(self) -> int:
        """How much will fail."""
        return sum(one.state == "wrong" for one in self.findings)


def examine(config: Path | None, overrides: list[str], workspace: Workspace) -> Examination:
    """Look at the installation, then at the watch; nothing is changed.

    Args:
        config: Settings of the watch; None examines the installation and what the defaults tell.
        overrides: Settings that differ.
        workspace: Its workspace.
    """
    findings = [*_python(), *_packages(), *_extras(), _torch(), _rasters(), *_workspace(workspace)]
    findings += _pending(workspace)
    try:
        settings = load_settings(config, overrides)
    except SettingsError as error:
        findings.append(
            Finding("configuration", "wrong", str(error), "correct it; docs/settings.md lists all settings")
        )
        return Examination([*findings, _prefect()])
    named = str(config) if config else "none named, so the defaults"
    findings.append(
        Finding("configuration", "ok" if config else "warning", named, "" if config else "name it: --config")
    )
    if config:
        findings.append(_source(settings))
    findings.append(_prefect())
    tracking = _tracking(settings)
    findings.append(tracking)
    if config:
        reached = tracking.state == "ok"
        missing = Finding("champion", "warning", "not looked for: the tracking server does not answer")
        findings.append(_champion(settings, workspace) if reached else missing)
    return Examination(findings)


def _python() -> Iterator[Finding]:
    text = sys.version.split()[0]
    good = sys.version_info >= (3, 11)
    yield Finding("Python", "ok" if good else "wrong", text, "" if good else "install Python 3.11 or later")


def _packages() -> Iterator[Finding]:
    """Each delicate package against the range that is known to work."""
    for line in requires("tilewatch") or ():
        needed = Requirement(line)
        if needed.name.lower() not in DELICATE or needed.marker is not None:
            continue
        try:
            found = version(needed.name)
        except PackageNotFoundError:
            yield Finding(needed.name, "wrong", "not installed", f"pip install '{needed}'")
            continue
        if needed.specifier.contains(found, prereleases=True):
            yield Finding(needed.name, "ok", found)
        else:
            advice = f"pip install '{needed}': others install, and then fail when they run"
            yield Finding(needed.name, "wrong", f"{found}, where {needed.specifier} is needed", advice)


def _extras() -> Iterator[Finding]:
    """Optional parts: none is needed unless it is used."""
    lines = [Requirement(line) for line in requires("tilewatch") or ()]
    for extra in EXTRAS:
        wanted = [one for one in lines if one.marker and one.marker.evaluate({"extra": extra})]
        wanted = [one for one in wanted if not one.marker or not one.marker.evaluate({"extra": ""})]
        missing = [one.name for one in wanted if not _installed(one)]
        if wanted and not missing:
            yield Finding(f"extra {extra}", "ok", "installed")
        elif wanted:
            words = f"not installed ({', '.join(missing)})"
            yield Finding(f"extra {extra}", "ok", words, f"only if you need it: pip install 'tilewatch[{extra}]'")


def _installed(needed: Requirement) -> bool:
    try:
        return needed.specifier.contains(version(needed.name), prereleases=True)
    except PackageNotFoundError:
        return False


def _torch() -> Finding:
    def look() -> str:
        from tasks.machine import torch_words

        return torch_words()

    return _tried("torch's device", look, "reinstall torch for this machine")


def _rasters() -> Finding:
    def look() -> str:
        from imagery.health import rasterio_words

        return rasterio_words()

    return _tried("rasters", look, "unset GDAL_DATA, PROJ_DATA and PROJ_LIB, which may be another installation's")


def _workspace(workspace: Workspace) -> Iterator[Finding]:
    root = workspace.root.resolve()
    there = next(folder for folder in (root, *root.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    state: State = "wrong" if free < LEAST_FREE else "warning" if free < FEW_FREE else "ok"
    advice = "" if state == "ok" else "make room, e.g. by `tilewatch prune --dry-run`, or move the workspace"
    yield Finding("disk", state, f"{free / 1e9:.1f} GB free at {there}", advice)
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"tilewatch")
    except OSError as error:
        yield Finding("workspace", "wrong", f"{there} cannot be written: {error.strerror}", "correct its permissions")
    else:
        words = str(root) if there == root else f"{root} is not there yet, and can be made"
        yield Finding("workspace", "ok", words)


def _pending(workspace: Workspace) -> Iterator[Finding]:
    """Nights that were worked out, and are not all told yet."""
    nights = sorted(path.stem for path in workspace.pending.glob("[!.]*.json"))
    if nights:
        words = f"{len(nights)} not in MLflow yet: {', '.join(nights[:3])}{' …' if len(nights) > 3 else ''}"
        yield Finding("nights", "warning", words, "see that MLflow answers: the next `tilewatch nightly` logs them")


def _source(settings: Settings) -> Finding:
    if settings.source.url:
        return Finding("source", "ok", f"{settings.source.url}, which is not asked here")
    folder = settings.source.root
    if not folder.exists():
        return Finding("source", "wrong", f"{folder} is not there", "set source.root to the folder of the scenes")
    empty = folder.is_dir() and not any(folder.iterdir())
    advice = "put scenes there" if empty else ""
    return Finding("source", "warning" if empty else "ok", f"{folder}{' is empty' if empty else ''}", advice)


def _prefect() -> Finding:
    url = os.environ.get("PREFECT_API_URL")
    if not url:
        return Finding("Prefect", "ok", "no PREFECT_API_URL: each run has a server of its own")
    return _server("Prefect", url, f"{url.rstrip('/')}/health", "start it (`tilewatch up`), or correct PREFECT_API_URL")


def _tracking(settings: Settings) -> Finding:
    uri = settings.tracking.uri
    if uri is None:
        return Finding("MLflow", "ok", "the database of the workspace")
    if not uri.startswith(("http://", "https://")):
        return Finding("MLflow", "ok", "a database, which is not looked at here")
    return _server("MLflow", uri, f"{uri.rstrip('/')}/health", "start it, or correct tracking.uri")


def _server(about: str, named: str, url: str, advice: str) -> Finding:
    try:
        call("GET", url)
    except Unreachable as error:
        return Finding(about, "wrong", str(error), advice)
    return Finding(about, "ok", f"{named} answers")


def _champion(settings: Settings, workspace: Workspace) -> Finding:
    """The detector of tonight, loaded as a night would load it."""
    if settings.tracking.uri is None and not (workspace.root / "mlflow.db").exists():
        return Finding("champion", "warning", "none yet", "train one: tilewatch train")

    def look() -> str:
        from tasks import registry, steps
        from tasks.score import check_fit

        try:
            folder, found = registry.champion(settings, workspace)
        except registry.NoChampion:
            return ""
        check_fit(steps.load_detector(folder), settings)
        return f"{found} of {settings.name}"

    tried = _tried("champion", look, "train anew, or go back: tilewatch models rollback")
    if tried.state == "ok" and not tried.found:
        return Finding("champion", "warning", "none yet", "train one: tilewatch train")
    return tried


def _tried(about: str, look: Callable[[], str], advice: str) -> Finding:
    """What a look finds; an examination goes on whatever fails in it."""
    try:
        return Finding(about, "ok", look())
    except Exception as error:  # whatever a broken installation raises
        return Finding(about, "wrong", f"{type(error).__name__}: {error}", advice)
