"""A real detector, and real scores of a night."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from configs import Workspace
from configs.schema import CalibrationSettings, ModelSettings, ScoreSettings
from tasks.evidence import Scored
from tests.rasters import BANDS, watch_settings
from tests.scored import HERE, scores_of
from tests.tasks.review.heeding.reviewed import (
    NIGHT,
    RATE,
    Watched,
    judged,
    record_of,
)
from vae.detector import Detector
from vae.networks import build
from vae.normalisation import Normalisation


@pytest.fixture(scope="module")
def detector() -> Detector:
    """Its normal scores are log-normal, at places that the night does not show."""
    model = ModelSettings(depth=1, width=4, latent_channels=3)
    network = build(len(BANDS), model, 0)
    network.sigma.fill_(0.3)
    limits = Normalisation.from_limits(dict.fromkeys(BANDS, (0.03, 0.4)), log=True, clip=3.0)
    score = ScoreSettings(name="reconstruction", without_past="reconstruction", also=())
    raw = np.exp(np.random.default_rng(0).normal(0, 0.5, 2000))
    dates = [f"2020-04-{number % 20 + 1:02}" for number in range(2000)]
    places = [f"there-{number // 20}" for number in range(2000)]
    bare = Detector((network,), limits, model, score, 32)
    made = CalibrationSettings(false_alarm_rate=RATE)
    least = bare.least("reconstruction")
    return bare.with_calibration("reconstruction", raw + least, dates, dates, places, made, "held_out")


@pytest.fixture
def place(detector: Detector, tmp_path: Path) -> Watched:
    return Watched(detector, watch_settings(tmp_path), Workspace(tmp_path / "workspace"))


@pytest.fixture
def night(place: Watched) -> Scored:
    """A night of 35 tiles with three flags, in a file as well."""
    table = scores_of(set(), HERE, day=str(NIGHT))
    raw = np.exp(np.random.default_rng(1).uniform(-0.7, 0.7, len(table)))
    raw[[3, 9, 20]] = 9.0, 12.0, 15.0
    raw[table["score"].isna()] = np.nan
    kind = pd.array(["reconstruction" if np.isfinite(one) else "" for one in raw], "str")
    table = judged(place.detector, table.assign(raw=raw + place.detector.least("reconstruction"), kind=kind))
    assert table["flagged"].sum() == 3
    path = place.workspace.scores / "v1" / "here" / f"{NIGHT}.parquet"
    path.parent.mkdir(parents=True)
    table.to_parquet(path)
    return Scored(record_of(NIGHT), table, {}, Path("none.tif"), None)


@pytest.fixture
def flag(night: Scored) -> pd.Series:
    """The middle one of its flags."""
    return night.scores.loc[9]
