"""What a trial of a search is: settings, a network fitted with them, and the injected anomalies that it finds.

The number to choose by is the mean average precision of injected anomalies in held-out tiles, and never the ELBO or the
reconstruction error: a network that reconstructs everything reconstructs anomalies as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import yaml
from pydantic import ValidationError

from configs import Settings, SettingsError, Workspace
from imagery.catalog import SceneRecord
from imagery.inject import KINDS
from imagery.robust import evenly
from tasks.calibrate import calibrate_detector
from tasks.dataset import NothingToTrain, Split, split_scenes
from tasks.injected import NothingToInject, kinds_of
from tasks.smoke import injected_into
from tasks.train import LearningTiles, fit_detector
from vae.detector import Detector
from vae.errors import ScoreError
from vae.scores import find
from vae.training import OnEpoch

CRITERION = "mean average precision of injected anomalies in held-out tiles, not the ELBO or the reconstruction error"


@dataclass(frozen=True)
class Look:
    """What settings came to after some epochs.

    Attributes:
        value: Mean average precision of the injected events, 0 to 1, mean of the scores that judge.
        tables: By score, one row a kind; see `tasks.injected.SmokeAlarm`.
        elbo: Held-out ELBO of the first network, nats per dimension, to look at only; None without validation dates.
    """

    value: float
    tables: Mapping[str, pd.DataFrame]
    elbo: float | None


def judging_scores(settings: Settings) -> tuple[str, ...]:
    """The scores that a trial is judged by: those of `score.without_past` and `score.name` that need the network.

    Raises:
        SettingsError: There is no network, no such score, none that needs a network, or no event is injected.
    """
    if not settings.model.members:
        raise SettingsError("model.members is 0: there is no network to tune, so set it to 1 or more")
    names = dict.fromkeys((settings.score.without_past, settings.score.name))
    try:
        found = tuple(name for name in names if "network" in find(name).needs)
    except ScoreError as error:
        raise SettingsError(str(error)) from None
    if not found:
        raise SettingsError(
            f"neither score.name ({settings.score.name}) nor score.without_past ({settings.score.without_past}) needs "
            "a network, so that tuning it would change no score: use one that does, such as novelty"
        )
    if not any(KINDS[name].event for name in kinds_of(settings.injections)):
        raise SettingsError(
            "injections.kinds names weather and faults only, and a trial is judged by the events it finds: name some, "
            "or use null for all kinds"
        )
    return found


def bench_settings(settings: Settings) -> Settings:
    """The settings of every trial: the scores that judge and no others, and a calibration that a few dates can give.

    The calibration makes scores relative to place and night, as they will be; how often a threshold is passed by
    chance does not enter average precision.
    """
    by_name = settings.score.name in judging_scores(settings)
    name = settings.score.name if by_name else settings.score.without_past
    lenient = {"min_tiles": 10, "min_dates": 1, "false_alarm_rate": 0.1, "blocks": "tile", "tail": "empirical"}
    return settings.model_copy(
        update={
            "score": settings.score.model_copy(update={"name": name, "also": ()}),
            "calibration": settings.calibration.model_copy(update={**lenient, "fdr": None}),
        }
    )


def tuning_split(settings: Settings, scenes: list[SceneRecord]) -> Split:
    """What trials learn from, and the dates that judge them, which are among the training dates of the watch.

    No trial learns from the dates that judge, and the dates that will calibrate are not looked at. With fewer than
    `tune.min_dates` to judge by, the validation dates do so, which have stopped the training of each trial as well.

    Returns:
        A split whose calibration scenes judge; its basis is held_out, or validation.

    Raises:
        NothingToTrain: There are too few dates.
    """
    split = split_scenes(settings, scenes)
    days = sorted({record.day for record in split.train})
    count = round(len(days) * settings.tune.held_out)
    if settings.tune.min_dates <= count < len(days):
        judging = {days[index] for index in evenly(len(days), count)}
        return Split(
            tuple(record for record in split.train if record.day not in judging),
            split.validation,
            tuple(record for record in split.train if record.day in judging),
            "held_out",
        )
    if not split.validation:
        raise NothingToTrain(
            f"of {len(days)} training dates tune.held_out = {settings.tune.held_out:g} leaves {count} to judge trials "
            f"by, tune.min_dates asks for {settings.tune.min_dates}, and there are no validation dates: ingest more "
            "dates, or change these settings or split.validation_fraction"
        )
    return Split(split.train, split.validation, (), "validation")


def trial_settings(settings: Settings, params: Mapping[str, Any]) -> Settings:
    """The settings with those of a trial.

    Args:
        settings: The watch's, or those of the bench.
        params: By dotted name.

    Raises:
        SettingsError: Together they make no sense.
    """
    values = settings.model_dump()
    for key, value in params.items():
        section, _, name = key.partition(".")
        values[section][name] = value
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError("; ".join(one["msg"].removeprefix("Value error, ") for one in error.errors())) from None


def look(
    settings: Settings,
    epochs: int,
    tiles: LearningTiles,
    split: Split,
    workspace: Workspace,
    on_epoch: OnEpoch | None = None,
) -> Look:
    """Fit with the settings of a trial, and judge.

    Args:
        settings: Of the bench, with those of the trial.
        epochs: How long; the learning rate falls to zero over them.
        tiles: Gathered once, for all trials.
        split: From `tuning_split`.
        workspace: Where the scenes are catalogued.
        on_epoch: Called after every epoch.

    Raises:
        Diverged: The loss became infinite or NaN.
        NothingToTrain: Nothing could be injected into any tile.
    """
    short = settings.model_copy(update={"train": settings.train.model_copy(update={"epochs": epochs})})
    trained = fit_detector(tiles, split, short, workspace, on_epoch=on_epoch, resumable=False)
    tables, values = {}, []
    for name in judging_scores(settings):
        tables[name], value = _judged(name, trained.detector, split, short, workspace)
        values.append(value)
    best = trained.fitted[0].history[trained.fitted[0].best_epoch - 1]
    return Look(float(np.mean(values)), tables, best.elbo_held_out)


def _judged(
    name: str, detector: Detector, split: Split, settings: Settings, workspace: Workspace
) -> tuple[pd.DataFrame, float]:
    """What is found with one score: the rows of all kinds, and the mean average precision of the events."""
    score = settings.score.model_copy(update={"name": name})
    detector = replace(detector, score_settings=score, calibrations={})
    settings = settings.model_copy(update={"score": score})
    made = calibrate_detector(detector, split, settings, workspace)
    try:
        alarm = injected_into(split.calibration_scenes, made.detector, settings, workspace)
    except NothingToInject as error:
        raise NothingToTrain(f"no trial can be judged: {error}") from None
    if not math.isfinite(alarm.mean_ap):
        notes = alarm.table.loc[alarm.table["event"], ["kind", "note"]].itertuples(index=False)
        reasons = "; ".join(f"{kind}: {note}" for kind, note in notes)
        raise NothingToTrain(f"no trial can be judged, since no event could be injected into the tiles ({reasons})")
    return alarm.table, alarm.mean_ap


def preset(settings: Settings, params: Mapping[str, Any], words: Sequence[str]) -> str:
    """The watch with the best settings, as YAML for `--config`; the same as `--set` stands in its head.

    Args:
        settings: The watch's.
        params: The best trial's, by dotted name.
        words: What they are, for the head; a line each.
    """
    best = trial_settings(settings, params)
    source = best.source.model_copy(update={"root": best.source.root.resolve()})
    values = best.model_copy(update={"source": source}).model_dump(mode="json", exclude_defaults=True)
    for key, value in params.items():  # what is the default now is written as well
        section, _, name = key.partition(".")
        values.setdefault(section, {})[name] = value
    chosen = " ".join(f"--set {key}={yaml.safe_dump(value).splitlines()[0]}" for key, value in params.items())
    head = "\n".join(f"# {line}" for line in (*words, chosen))
    return f"{head}\n{yaml.safe_dump(values, sort_keys=True, allow_unicode=True)}"
