"""Models: which detector is the champion, by comparison after a training, or because somebody asks for it."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
from prefect import flow
from pydantic import BaseModel, ConfigDict, Field

from configs import Settings, Workspace
from flows.parameters import Watch
from flows.progress import progress
from tasks import registry, steps, tracking
from tasks.artifacts import markdown_artifact
from tasks.challenge import Challenge, challenge
from tasks.comparing import Seen
from tasks.evaluation import number
from tasks.figures import challenge_figure
from tasks.frozen import FrozenSet, NothingToCompare, freeze
from tasks.moves import CHALLENGER, CHAMPION, LONGEST_WORDS
from tasks.nights import read_nights
from tasks.review.verdicts import VerdictError
from tasks.score import check_fit
from vae.detector import Detector
from vae.errors import VaeError

log = logging.getLogger(__name__)

PREVIOUS = "previous"


class PromoteRequest(BaseModel):
    """Which detector scores from now on."""

    model_config = ConfigDict(extra="forbid")

    version: str = Field(
        CHALLENGER,
        pattern=rf"^({CHALLENGER}|{PREVIOUS}|v?[1-9][0-9]*)$",
        description=f"{CHALLENGER}; {PREVIOUS}, to put back the champion before this one; or e.g. v3.",
    )
    reason: str = Field("", max_length=500, description="Why; kept with the model.")


@dataclass(frozen=True)
class Promoted:
    """What became of a request: the champion now, and the one until then."""

    champion: str
    instead_of: str
    moved: bool


@dataclass(frozen=True)
class Settled:
    """Whether a challenger became the champion, and why, in words."""

    promoted: bool
    verdict: str


@dataclass(frozen=True)
class Models:
    """All registered detectors, the newest first."""

    name: str
    models: list[registry.ModelRow] = field(default_factory=list)


@flow(name="promote", flow_run_name="promote", persist_result=False)
def promote(watch: Watch, request: PromoteRequest | None = None) -> Promoted:
    """Make the challenger, an earlier champion or any version the champion, because somebody asks for it.

    Args:
        watch: Configuration and workspace.
        request: Which one.
    """
    done = promoted(watch, request or PromoteRequest())
    markdown_artifact("promotion", f"{done.champion} is the champion now, instead of {done.instead_of or 'none'}.")
    return done


def promoted(watch: Watch, request: PromoteRequest) -> Promoted:
    """Do what is asked for; the command line does without Prefect."""
    settings, workspace = watch.open()
    if request.version == PREVIOUS:
        move = registry.rollback(settings, workspace, request.reason)
        return Promoted(move.of, move.instead_of, True)
    made = registry.promote(settings, workspace, request.version, request.reason or "asked for")
    if made is None:
        version = registry.champion(settings, workspace)[1]
        return Promoted(version, version, False)
    return Promoted(made.of, made.instead_of, True)


def models(watch: Watch) -> Models:
    """What `tilewatch models list` shows."""
    settings, workspace = watch.open()
    return Models(settings.name, registry.listed(settings, workspace))


def settle(version: str, until: date | None, settings: Settings, workspace: Workspace) -> Settled:
    """Decide whether a challenger becomes the champion; to be called within the run of its training.

    What was compared, and what it gave, is kept with the run and with the version. The alias moves last.

    Args:
        version: The challenger, registered.
        until: Last date that was checked for its training.
        settings: `promotion` says how it is decided.
        workspace: Where the scenes are catalogued.
    """
    before = _champion(settings, workspace)
    if before is None:
        return _moved(version, "", "the first detector of this watch", settings, workspace)
    if settings.promotion.when == "always":
        return _moved(version, before, "promotion.when is always: not compared", settings, workspace)
    try:
        unusable, detectors = _loaded(before, version, settings, workspace)
        if unusable:
            words = f"{before} cannot score the scenes as they are read now, so {version} takes over: {unusable}"
            registry.keep_comparison(settings, version, {"against": before, "better": True, "words": words})
            return _finished(version, before, True, words, settings, workspace)
        found = _compared(before, version, detectors, until, settings, workspace)
    except (NothingToCompare, VerdictError) as error:
        words = f"{version} was not compared with {before}, which goes on: {error}"
        registry.keep_comparison(settings, version, {"against": before, "better": False, "words": words})
        return _finished(version, before, False, words, settings, workspace)
    return _finished(version, before, found.better, found.words, settings, workspace)


def _champion(settings: Settings, workspace: Workspace) -> str | None:
    """The champion's version, whether or not it can be loaded; None when there is none."""
    rows = registry.listed(settings, workspace)
    return next((row.version for row in rows if CHAMPION in row.aliases), None)


def _loaded(
    before: str, version: str, settings: Settings, workspace: Workspace
) -> tuple[str, tuple[Detector, Detector]]:
    """Both detectors, or why the champion is of no use any more."""
    challenger = steps.load_detector(registry.registered(settings, workspace, version)[0])
    try:
        champion = steps.load_detector(registry.registered(settings, workspace, before)[0])
        check_fit(champion, settings)
        _ = champion.required_calibration
    except VaeError as error:
        return str(error), (challenger, challenger)
    return "", (champion, challenger)


def _compared(
    before: str,
    version: str,
    detectors: tuple[Detector, Detector],
    until: date | None,
    settings: Settings,
    workspace: Workspace,
) -> Challenge:
    """Compare, and keep all of it with the run and the version."""
    started = time.monotonic()
    frozen = freeze(detectors, until, settings, workspace)
    with progress("challenge", len(frozen.scenes)) as counter:
        nights = read_nights(workspace, before)
        drifting = nights[-1].drift_began if nights else None
        found, seen = challenge(frozen, (before, version), detectors, drifting, settings, workspace, counter.at)
    _log(frozen, found, seen, time.monotonic() - started)
    old, new = found.champion, found.challenger
    kept = {
        "against": before,
        "better": found.better,
        "ap": number(new.ap),
        "ap_champion": number(old.ap),
        "difference": number(found.difference.value),
        "low": number(found.difference.low),
        "high": number(found.difference.high),
        "frozen": frozen.digest,
        "words": found.words,
    }
    registry.keep_comparison(settings, version, kept)
    return found


def _log(frozen: FrozenSet, found: Challenge, seen: Seen, seconds: float) -> None:
    """The comparison to the active run: what it stands on, every tile, numbers, a table and a figure."""
    mlflow.log_text(frozen.to_json(), "challenge/frozen.json")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "tiles.parquet"
        seen.tiles.to_parquet(path, index=False)
        mlflow.log_artifact(str(path), "challenge")
    about = {name: value for name, value in asdict(found).items() if name != "kinds"}
    about["dates"] = [day.isoformat() for day in found.dates]
    mlflow.log_dict(about, "challenge/challenge.json")
    mlflow.log_table(found.kinds, "challenge.json")
    mlflow.log_figure(challenge_figure(found), "figures/challenge.png")
    old, new = found.champion, found.challenger
    numbers = {
        "ap": new.ap,
        "ap_champion": old.ap,
        "difference": found.difference.value,
        "difference_low": found.difference.low,
        "difference_high": found.difference.high,
        "false_alarms": new.false_alarms,
        "false_alarms_champion": old.false_alarms,
        "better": float(found.better),
        "seconds": seconds,
    }
    tracking.log_finite({f"challenge/{name}": value for name, value in numbers.items()}, step=0)


def _finished(version: str, before: str, better: bool, words: str, settings: Settings, workspace: Workspace) -> Settled:
    """What follows from a comparison, by the settings."""
    by_hand = f"`tilewatch models promote {version}` makes it the champion."
    if not better:
        return _settled(False, f"{words} {by_hand}")
    if settings.promotion.when == "asked":
        return _settled(False, f"{words} promotion.when is asked: {by_hand}")
    return _moved(version, before, words, settings, workspace)


def _moved(version: str, before: str, words: str, settings: Settings, workspace: Workspace) -> Settled:
    try:
        registry.promote(settings, workspace, version, words, instead_of=before)
    except registry.AnotherChampion as error:  # somebody was faster
        return _settled(False, f"{words} {error}")
    return _settled(True, words)


def _settled(promoted: bool, words: str) -> Settled:
    (log.info if promoted else log.warning)("%s", words)
    mlflow.set_tag("tilewatch.verdict", words[:LONGEST_WORDS])
    markdown_artifact("challenge", words)
    return Settled(promoted, words)
