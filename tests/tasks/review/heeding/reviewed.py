"""A night with three flags of a detector that is calibrated on numbers, and what is said of one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

import geopandas as gpd
import pandas as pd

from configs import Settings, Workspace
from imagery.catalog import Catalog, SceneRecord
from tasks.evidence import Scored
from tasks.review.heeding import heed
from tasks.review.verdicts import Verdict, write_verdicts
from tests.catalogs import enter, scene_record
from vae.detector import Detector

NIGHT = date(2020, 6, 1)
REVIEWED = ["bar", "p_reviewed", "suppressed", "alike"]
RATE = 0.02


@dataclass(frozen=True)
class Watched:
    """A detector that is calibrated on numbers, and where its verdicts are."""

    detector: Detector
    settings: Settings
    workspace: Workspace


def record_of(day: date, location: str = "here") -> SceneRecord:
    return scene_record(location, datetime(day.year, day.month, day.day, tzinfo=UTC))


def judged(detector: Detector, table: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """The table as the detector judges its raw scores."""
    found = detector.judge(table["kind"].to_numpy(object), table["raw"].to_numpy(), table["tile_id"].tolist())
    columns = {name: getattr(found, name) for name in ("score", "p_value", "threshold", "flagged")}
    return table.assign(**columns, basis=pd.array(found.basis, "str"))


def said(
    flag: pd.Series, days_before: int, times: float = 1.1, verdict: str = "false alarm", **more: object
) -> Verdict:
    """What was said of the same tile on an earlier night, when its score was so many times tonight's."""
    about: dict[str, object] = {"detector_version": "v1", "score": float(flag["score"]) * times, "p_value": 0.001}
    scene = f"here/{NIGHT - timedelta(days=days_before)}"
    return Verdict(scene, str(flag["tile_id"]), verdict, **about | more)


def heeded(
    place: Watched, night: Scored, verdicts: Sequence[Verdict], detector: Detector | None = None, **review: object
) -> pd.DataFrame:
    """The scores of the night after these verdicts."""
    write_verdicts(verdicts, place.workspace)
    settings = place.settings.model_copy(update={"review": place.settings.review.model_copy(update=review)})
    (found,) = heed([night], detector or place.detector, settings, place.workspace)
    return found.scores


def at(scores: pd.DataFrame, flag: pd.Series) -> pd.Series:
    (row,) = [row for _, row in scores.iterrows() if row["tile_id"] == flag["tile_id"]]
    return row


def seen_daily(place: Watched, days_before: int) -> None:
    """Enter a scene a day in the catalog."""
    for days in range(days_before + 1):
        enter(Catalog(place.workspace), "here", datetime.combine(NIGHT - timedelta(days=days), time(10), UTC))
