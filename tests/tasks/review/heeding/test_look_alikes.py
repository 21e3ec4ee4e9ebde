"""Flags that are like a false alarm are suppressed, and say so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.evidence import Scored
from tasks.review.verdicts import Verdict
from tasks.score import latents_file
from tests.scored import scores_of
from tests.tasks.review.heeding.reviewed import (
    NIGHT,
    Watched,
    at,
    heeded,
    record_of,
    said,
)


def latents(place: Watched, day: date, changed: dict[int, Sequence[float]], version: str = "v1") -> None:
    """The latents of a scene: ground that stays, and what changes at some tiles, in one corner of them."""
    ground = np.random.default_rng(5).normal(size=(len(scores_of(set())), *place.detector.latent_shape)) * 10
    noise = np.random.default_rng(day.toordinal()).normal(size=ground.shape) * 0.1
    values = (ground + noise + 3).astype(np.float32)
    for tile, change in changed.items():
        corner = (day.toordinal() + tile) % 2 * 8
        values[tile, :, corner : corner + 8, :8] += np.array(change, np.float32)[:, None, None]
    path = latents_file(place.workspace, version, record_of(day))
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = pa.array(values.reshape(len(values), -1).tolist(), pa.list_(pa.float32()))
    pq.write_table(pa.table({"tile_id": scores_of(set())["tile_id"].tolist(), "latent": rows}), path)


GLITTER, FIRE = (6.0, -4.0, 1.0), (-3.0, -6.0, 5.0)


def remembered(
    place: Watched, night: Scored, tonight: dict[int, Sequence[float]], version: str = "v1"
) -> list[Verdict]:
    """Quiet dates, one on which tile 1 glittered and tile 2 burned, and tonight; and what was said of these two."""
    for before in range(12, 6, -1):
        latents(place, NIGHT - timedelta(days=before), {}, version)
    then = NIGHT - timedelta(days=5)
    latents(place, then, {1: GLITTER, 2: FIRE}, version)
    latents(place, NIGHT, tonight, version)
    names = night.scores["tile_id"].tolist()
    words = {1: "false alarm", 2: "anomaly"}
    return [Verdict(f"here/{then}", names[tile], word, detector_version=version) for tile, word in words.items()]


def test_a_flag_that_changed_like_a_false_alarm_elsewhere_is_suppressed_and_says_so(
    place: Watched, night: Scored
) -> None:
    verdicts = remembered(place, night, {3: GLITTER, 9: FIRE, 20: (5.0, -3.5, 0.7)})

    found = heeded(place, night, verdicts, look_alike=0.5)

    names = found["tile_id"]
    assert found.index[found["flagged"]].tolist() == [9]
    assert found["alike"].dropna().to_dict() == dict.fromkeys([3, 20], f"{names[1]} here/{NIGHT - timedelta(days=5)}")
    assert all(f"like the false alarm at {names[1]}" in found["suppressed"][one] for one in (3, 20))
    assert (found["bar"].dropna() == night.scores["threshold"].dropna()).all()
    assert heeded(place, night, verdicts, look_alike=0.0)["flagged"].sum() == 3


def test_nothing_is_like_a_false_alarm_when_a_confirmed_anomaly_looks_the_same(place: Watched, night: Scored) -> None:
    verdicts = remembered(place, night, {3: GLITTER})
    same = [replace(one, verdict="anomaly" if one.verdict == "false alarm" else "false alarm") for one in verdicts]

    assert heeded(place, night, same, look_alike=0.5)["alike"].isna().all()
    assert heeded(place, night, verdicts, look_alike=0.5)["alike"].notna().sum() == 1


def test_nothing_is_like_anything_without_latents_of_this_detector(place: Watched, night: Scored) -> None:
    of_another = remembered(place, night, {3: GLITTER}, version="v0")
    assert heeded(place, night, of_another, look_alike=1.0)["alike"].isna().all()

    remembered(place, night, {3: GLITTER})  # `tilewatch latents` has made them since
    assert heeded(place, night, of_another, look_alike=0.5)["alike"].notna().sum() == 1

    for before in range(12, 4, -1):
        latents_file(place.workspace, "v1", record_of(NIGHT - timedelta(days=before))).unlink(missing_ok=True)
    assert heeded(place, night, of_another, look_alike=1.0)["alike"].isna().all()


def test_a_flag_that_its_bar_stopped_is_not_said_to_look_like_anything(
    place: Watched, night: Scored, flag: pd.Series
) -> None:
    verdicts = remembered(place, night, {9: GLITTER})

    row = at(heeded(place, night, [*verdicts, said(flag, 6), said(flag, 7)], look_alike=0.5), flag)

    assert "bar" in row["suppressed"]
    assert pd.isna(row["alike"])
