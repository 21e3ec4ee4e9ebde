"""Find more like this: the nearest latents of all places and dates, and what to do when there are none."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from configs import Period, Settings, Workspace
from imagery.catalog import Catalog, SceneRecord
from tasks import similar
from tasks.ingest import ingest_scene, plan_ingest, settle_grids
from tasks.reference import last_correction
from tasks.review.verdicts import Verdict, write_verdicts
from tasks.score import latents_file, score_files, score_scene
from tasks.similar import SimilarError, find_subject, search
from tasks.similar_page import SimilarView, render_similar, tile_views
from tests.rasters import ground, watch_settings, write_raster
from tests.tasks.test_score import ALONE, scored_watch
from tests.vae.test_detector import NO_NETWORK, calibrated
from vae.detector import Detector
from vae.similarity import Spread

ASKED = "here-r00016-c00016"


@dataclass(frozen=True)
class Seen:
    """Two places on three dates, and the latents of a detector."""

    detector: Detector
    settings: Settings
    workspace: Workspace
    records: list[SceneRecord]

    def found(self, count: int = 20, scene: str | None = None, **options) -> similar.Search:
        subject = find_subject(ASKED, scene, None, self.detector, "v1", self.workspace)
        return search(subject, self.detector, "v1", self.workspace, count, **options)

    def refusal(self, *asked, detector: Detector | None = None, version: str = "v1") -> str:
        with pytest.raises(SimilarError) as caught:
            find_subject(*asked, detector or self.detector, version, self.workspace)
        return str(caught.value)


@pytest.fixture(scope="module")
def seen_once(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    folder = tmp_path_factory.mktemp("similar")
    _, detector, _, _ = scored_watch(folder, None)
    limits = dict.fromkeys(detector.bands, (0.0, 0.5))
    detector = replace(detector, metadata={**detector.metadata, "rgb_limits": limits})
    for seed, (place, day) in enumerate((place, day) for place in ("here", "there") for day in (1, 2, 3)):
        missing = np.zeros((40, 52), bool)
        missing[:20, :14] = True
        path = folder / f"scenes/{place}/2020-06-0{day}.tif"
        write_raster(path, ground(40, 52, seed=seed), missing=missing, nodata="declared")
    settings = watch_settings(folder / "scenes", grid={"tile_size": 16}, score=ALONE)
    workspace = Workspace(folder / "seen")
    plan = plan_ingest(settings, workspace)
    settle_grids(plan.scenes, settings, workspace)
    for scene in plan.scenes:
        assert ingest_scene(scene, settings, workspace).reason is None
    records = Catalog(workspace).scenes()
    for record in records:
        score_scene(record, detector, "v1", settings, workspace)
    return Seen(detector, settings, workspace, records)


def all_latents(seen: Seen) -> pd.DataFrame:
    files = [latents_file(seen.workspace, "v1", record) for record in seen.records]
    return pd.concat([pd.read_parquet(path) for path in files], ignore_index=True)


def by_hand(seen: Seen, scene_id: str = "here/2020-06-03") -> pd.DataFrame:
    """Every tile with its distance, worked out from all latents at once, the nearest first."""
    table = all_latents(seen)
    table = table[table["latent"].notna()]
    latents = np.stack(table["latent"]).astype(np.float32)
    metric = Spread.of(latents, seen.detector.latent_shape).metric()
    own = ((table["scene_id"] == scene_id) & (table["tile_id"] == ASKED)).to_numpy()
    table = table.assign(distance=metric.distances(latents, metric.point(latents[own])[0]))
    return table[~own].sort_values(["distance", "scene_id", "tile_id"])


@pytest.mark.parametrize("count", [1, 5, 1000])
@pytest.mark.parametrize("each", [1, 2, 10])
def test_they_are_the_nearest_of_all_places_and_dates(seen_once: Seen, count: int, each: int) -> None:
    found = seen_once.found(count, each=each)

    expected = by_hand(seen_once)
    expected = expected[expected.groupby("tile_id").cumcount() < each].head(count)
    assert [(one.scene_id, one.tile_id) for one in found.found] == list(
        zip(expected["scene_id"], expected["tile_id"], strict=True)
    )
    np.testing.assert_allclose([one.distance for one in found.found], expected["distance"], rtol=1e-9)
    assert found.tiles == all_latents(seen_once)["latent"].notna().sum()
    assert found.scenes == 6
    assert max(Counter(one.tile_id for one in found.found).values()) <= each


def test_the_tile_itself_is_never_found_but_its_other_dates_are(seen_once: Seen) -> None:
    found = {(one.scene_id, one.tile_id) for one in seen_once.found(1000, each=9).found}

    assert ("here/2020-06-03", ASKED) not in found
    assert {("here/2020-06-01", ASKED), ("here/2020-06-02", ASKED)} <= found


def test_however_few_rows_are_in_memory_it_finds_the_same(seen_once: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    before = seen_once.found(7)
    monkeypatch.setattr(similar, "ROWS", 3)

    after = seen_once.found(7)

    assert [(one.scene_id, one.tile_id) for one in after.found] == [(o.scene_id, o.tile_id) for o in before.found]
    np.testing.assert_allclose([o.distance for o in after.found], [o.distance for o in before.found], rtol=1e-9)


def test_dates_and_places_can_be_left_out(seen_once: Seen) -> None:
    elsewhere = seen_once.found(1000, each=9, other_places=True)
    early = seen_once.found(1000, each=9, period=Period(end=date(2020, 6, 1)))

    assert {one.scene_id.split("/")[0] for one in elsewhere.found} == {"there"}
    assert {one.scene_id for one in early.found} == {"here/2020-06-01", "there/2020-06-01"}
    assert (elsewhere.scenes, early.scenes) == (3, 2)
    with pytest.raises(SimilarError, match="no other tile with a latent"):
        seen_once.found(5, period=Period(start=date(2030, 1, 1)))


def test_the_tile_is_looked_at_on_its_last_scene_or_on_the_one_that_is_asked_for(seen_once: Seen) -> None:
    def scene_of(scene: str | None, night: date | None) -> str:
        return find_subject(ASKED, scene, night, seen_once.detector, "v1", seen_once.workspace).record.scene_id

    assert scene_of(None, None) == "here/2020-06-03"
    assert scene_of(None, date(2020, 6, 2)) == "here/2020-06-02"
    assert scene_of("here/2020-06-01", None) == "here/2020-06-01"


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (("her-r00016-c00016", None, None), "did you mean here-r00016-c00016?"),
        (("here-r16-c16", None, None), "did you mean here-r00016-c00016?"),
        (("here-r00016-c00017", None, None), "did you mean here-r00016-c00016?"),
        (("here-r99999-c00000", None, None), "did you mean here-r00032-c00000?"),
        (("here", None, None), "named <location>-r<row>-c<column>, by where they begin, e.g. here-r00000-c00000"),
        ((ASKED, "here/2020-06-30", None), "unknown scene 'here/2020-06-30' of here: did you mean here/2020-06-03?"),
        ((ASKED, None, date(2020, 6, 9)), "no scene of 2020-06-09: the nearest nights are 2020-06-03, 2020-06-02"),
        (("here-r00000-c00000", None, None), "has no latent on any of 3 scenes"),
    ],
)
def test_what_is_not_there_is_refused_with_what_was_meant(seen_once: Seen, asked: tuple, words: str) -> None:
    assert words in seen_once.refusal(*asked)


def test_without_latents_it_says_what_to_run(seen_once: Seen) -> None:
    assert "run `tilewatch latents --since 2020-06-01 --until 2020-06-03`" in seen_once.refusal(
        ASKED, None, None, version="v2"
    )


def test_a_detector_without_a_network_has_none(seen_once: Seen) -> None:
    alone = calibrated(members=0, **NO_NETWORK)

    assert "v1 has no network (model.members = 0)" in seen_once.refusal(ASKED, None, None, detector=alone)


@pytest.mark.parametrize("broken", [b"no parquet", None])
def test_latents_that_cannot_be_read_are_named(seen_once: Seen, tmp_path: Path, broken: bytes | None) -> None:
    subject = find_subject(ASKED, None, None, seen_once.detector, "v1", seen_once.workspace)
    path = tmp_path / "latents/v1/here/2020-06-01.parquet"
    path.parent.mkdir(parents=True)
    if broken:
        path.write_bytes(broken)
    else:
        pd.DataFrame({"tile_id": ["a"], "scene_id": ["b"], "latent": [[1.0, 2.0]]}).to_parquet(path)

    with pytest.raises(SimilarError, match=r"2020-06-01\.parquet .* delete the file and run `tilewatch latents`"):
        search(subject, seen_once.detector, "v1", Workspace(tmp_path), 5)


def test_what_is_known_of_a_tile_is_shown_and_what_is_gone_is_not(seen_once: Seen) -> None:
    settings, workspace = seen_once.settings, seen_once.workspace
    said = Verdict("here/2020-06-02", ASKED, "anomaly", datetime(2020, 6, 5, tzinfo=UTC), kind="<b>burn</b>")
    write_verdicts([said], workspace)
    places = {"here/2020-06-02": "here", "here/2019-01-01": "here"}
    wanted = [("here/2020-06-02", ASKED, 0.5), ("here/2019-01-01", ASKED, 0.7)]

    known, gone = tile_views(wanted, places, seen_once.detector, "v1", settings, workspace)
    workspace.verdicts.unlink()

    record = next(one for one in seen_once.records if one.scene_id == "here/2020-06-02")
    row = pd.read_parquet(score_files(workspace, "v1", record).scores).set_index("tile_id").loc[ASKED]
    assert (known.score, known.p_value, known.flagged) == (row["score"], row["p_value"], row["flagged"])
    assert (known.verdict, known.kind) == ("anomaly", "<b>burn</b>")
    assert list(known.pictures) == ["true colour", "heatmap"]
    assert known.latitude is not None
    assert (gone.acquired, gone.score, gone.verdict, dict(gone.pictures)) == ("", None, "", {})
    assert last_correction(record, workspace) == (0.0, 0.0)


def test_on_the_page_hostile_names_are_text(seen_once: Seen) -> None:
    hostile = '"><script>alert(1)</script>'
    (tile,) = tile_views(
        [("here/2020-06-02", ASKED, 0.5)], {"here/2020-06-02": "here"}, seen_once.detector, "v1",
        seen_once.settings, seen_once.workspace,
    )  # fmt: skip
    bad = replace(tile, tile_id=hostile, location=hostile, verdict="anomaly", kind=hostile, acquired=hostile)
    view = SimilarView(hostile, hostile, bad, [bad], 10, 2, 3, 4, hostile)

    page = render_similar(view)

    assert "<script" not in page
    assert page.count("&lt;script&gt;") > 8
    assert page == render_similar(view)


def test_a_picture_that_would_need_the_network_is_refused(seen_once: Seen) -> None:
    (tile,) = tile_views(
        [("here/2020-06-02", ASKED, 0.5)], {"here/2020-06-02": "here"}, seen_once.detector, "v1",
        seen_once.settings, seen_once.workspace,
    )  # fmt: skip
    bad = replace(tile, pictures={"true colour": "https://elsewhere/a.png"})

    with pytest.raises(ValueError, match="base64 data URI"):
        render_similar(SimilarView("watch", "v1", bad, [], 10, 2, 3, 4, ""))
