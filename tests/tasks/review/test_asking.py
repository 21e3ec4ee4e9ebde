"""Which tiles of a night people are asked about, and that nobody is asked twice."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import geopandas as gpd
import pandas as pd
import pytest

from configs import Settings, Workspace
from imagery.catalog import SceneRecord
from tasks.evidence import Illustrations, Scored
from tasks.review.asking import choose
from tasks.review.questions import questioned_nights, read_questions, write_questions
from tasks.review.verdicts import Verdict, write_verdicts
from tests.scored import HERE, scores_of

DAY = datetime(2020, 6, 1, tzinfo=UTC)
TILES = len(HERE.tile_table(32)["row_off"])


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Without the database of its neighbours."""
    return Workspace(tmp_path / "workspace")


def settings(**review: int) -> Settings:
    return Settings.model_validate({"name": "meadow", "review": {"flags": 3, "sample": 4, "suppressed": 2} | review})


def scored(marked: set[int], suppressed: set[int] = frozenset(), location: str = "here") -> Scored:
    """A scene; tiles that are suppressed have scores that pass the threshold, and are no flags."""
    table = scores_of(marked | suppressed, location=location)
    held = pd.Series(range(len(table))).isin(suppressed)
    table = table.assign(
        flagged=table["flagged"] & ~held,
        bar=table["threshold"],
        p_reviewed=table["p_value"],
        suppressed=pd.array(["like a false alarm" if one else None for one in held], "str"),
    )
    record = SimpleNamespace(scene_id=f"{location}/2020-06-01", day=DAY.date(), location=location)
    return Scored(cast(SceneRecord, record), gpd.GeoDataFrame(table), {}, Path("heat.tif"), None)


def keep(asked: pd.DataFrame, scenes: list[Scored], workspace: Workspace, version: str = "v1") -> None:
    write_questions(DAY.date(), asked, scenes, Illustrations({}, ()), ("B02",), version, workspace)


def tiles(asked: pd.DataFrame, why: str) -> list[str]:
    return list(asked.loc[asked["asked"] == why, "tile_id"])


def test_the_least_likely_flags_come_first_then_what_was_drawn(workspace: Workspace) -> None:
    scene = scored({3, 9, 20, 25, 33}, suppressed={7, 11, 30})

    asked = choose([scene], settings(), workspace)

    flags = scene.scores[scene.scores["flagged"]].sort_values("p_value")
    assert tiles(asked, "flag") == list(flags["tile_id"][:3])
    assert list(asked["asked"]) == ["flag"] * 3 + ["suppressed"] * 2 + ["sample"] * 4
    assert set(tiles(asked, "suppressed")) < set(scene.scores["tile_id"].iloc[[7, 11, 30]])
    assert set(asked["scene_id"]) == {"here/2020-06-01"}


def test_flags_are_ranked_by_what_verdicts_make_of_them(workspace: Workspace) -> None:
    scene = scored({3, 9, 20})
    raised = scene.scores["tile_id"] == scene.scores["tile_id"].iloc[20]
    scene.scores.loc[raised, "p_reviewed"] = 0.9

    asked = choose([scene], settings(flags=2, sample=0), workspace)

    assert tiles(asked, "flag") == list(scene.scores["tile_id"].iloc[[9, 3]])


def test_what_is_drawn_is_below_its_threshold_has_a_score_and_says_with_what_chance(workspace: Workspace) -> None:
    scene = scored({3, 9}, suppressed={7})

    asked = choose([scene], settings(), workspace)

    chances = dict(zip(asked["asked"], asked["share"], strict=True))
    assert chances == {"flag": 1.0, "suppressed": 1.0, "sample": 4 / (TILES - 4)}  # two flags, a suppressed, an empty
    drawn = scene.scores[scene.scores["tile_id"].isin(tiles(asked, "sample"))]
    assert (drawn["score"] < drawn["threshold"]).all()


def test_the_draw_does_not_depend_on_the_order_of_tiles_and_scenes(workspace: Workspace) -> None:
    here, there = scored({3}), scored({9}, location="there")
    turned = Scored(here.record, here.scores.iloc[::-1], {}, here.heatmap, None)

    assert choose([here, there], settings(), workspace).equals(choose([there, turned], settings(), workspace))


def test_another_seed_draws_others(workspace: Workspace) -> None:
    other = settings().model_copy(update={"seed": 99})

    first, second = choose([scored({3})], settings(), workspace), choose([scored({3})], other, workspace)

    assert tiles(first, "flag") == tiles(second, "flag")
    assert tiles(first, "sample") != tiles(second, "sample")


def test_every_tile_has_the_same_chance(workspace: Workspace) -> None:
    counts = pd.Series(0, scored(set()).scores["tile_id"])
    for seed in range(300):
        counts[tiles(choose([scored({3})], settings().model_copy(update={"seed": seed}), workspace), "sample")] += 1

    drawn = counts[counts.index != scored({3}).scores["tile_id"].iloc[3]].sort_values()
    assert drawn.sum() == 300 * 4
    assert drawn.iloc[0] == 0  # the tile without a score
    assert drawn.iloc[1] > 300 * 4 / (TILES - 2) / 3


def test_nothing_is_asked_when_all_counts_are_zero_or_there_is_no_scene(workspace: Workspace) -> None:
    none = settings(flags=0, sample=0, suppressed=0)

    assert choose([scored({3})], none, workspace).empty
    assert choose([], settings(), workspace).empty
    assert list(choose([], settings(), workspace)) == ["scene_id", "tile_id", "asked", "share"]


def test_a_night_that_is_reported_again_asks_nothing_new(workspace: Workspace) -> None:
    scenes = [scored({3, 9, 20, 25, 33}, suppressed={7, 11, 30})]
    first = choose(scenes, settings(), workspace)
    keep(first, scenes, workspace)
    before = read_questions(workspace, DAY.date())

    again = choose(scenes, settings(), workspace)
    keep(again, scenes, workspace)

    pd.testing.assert_frame_equal(again, first)
    assert read_questions(workspace, DAY.date()) == before


def test_another_detector_asks_only_about_tiles_that_were_not_asked_about(workspace: Workspace) -> None:
    first_scenes, second_scenes = [scored({3, 9, 20})], [scored({3, 9, 25})]
    keep(choose(first_scenes, settings(), workspace), first_scenes, workspace)
    before = {(one.scene_id, one.tile_id): one for one in read_questions(workspace, DAY.date())}

    keep(choose(second_scenes, settings(), workspace), second_scenes, workspace, "v2")

    after = read_questions(workspace, DAY.date())
    keys = [(one.scene_id, one.tile_id) for one in after]
    assert len(keys) == len(set(keys))
    assert [one for one in after if (one.scene_id, one.tile_id) in before] == list(before.values())
    new = [one for one in after if (one.scene_id, one.tile_id) not in before]
    assert second_scenes[0].scores["tile_id"].iloc[25] in {one.tile_id for one in new}
    assert {one.detector_version for one in new} == {"v2"}


def test_what_was_asked_stays_asked_for_the_reason_it_was(workspace: Workspace) -> None:
    """A tile drawn at random may be a flag of the next detector: it still stands for the tiles it was drawn from."""
    scenes = [scored({3})]
    first = choose(scenes, settings(), workspace)
    keep(first, scenes, workspace)
    drawn = list(scenes[0].scores["tile_id"]).index(tiles(first, "sample")[0])

    again = choose([scored({3, drawn})], settings(), workspace)

    row = again.set_index("tile_id").loc[tiles(first, "sample")[0]]
    assert (row["asked"], row["share"]) == ("sample", 4 / (TILES - 2))


def test_a_tile_of_which_somebody_has_said_something_is_not_asked_about(workspace: Workspace) -> None:
    scene = scored({3, 9, 20})
    known = scene.scores["tile_id"].iloc[20]
    write_verdicts([Verdict("here/2020-06-01", known, "anomaly", DAY)], workspace)

    assert known not in set(choose([scene], settings(), workspace)["tile_id"])


def test_a_late_scene_adds_its_own(workspace: Workspace) -> None:
    here, there = scored({3, 9}), scored({5}, location="there")
    keep(choose([here], settings(), workspace), [here], workspace)

    keep(choose([here, there], settings(), workspace), [here, there], workspace)

    kept = read_questions(workspace, DAY.date())
    assert [one.scene_id for one in kept][-1] == "there/2020-06-01"
    assert questioned_nights(workspace) == [DAY.date()]


def test_a_question_has_the_numbers_of_its_tile(workspace: Workspace) -> None:
    scene = scored({3})
    scene.scores["off_0"] = 1.0
    scene.scores["part_texture"] = 0.25
    keep(choose([scene], settings(sample=0), workspace), [scene], workspace)

    (one,) = read_questions(workspace, DAY.date())

    row = scene.scores.iloc[3]
    assert (one.location, one.tile_id, one.asked, one.share) == ("here", row["tile_id"], "flag", 1.0)
    assert (one.score, one.p_value, one.threshold) == (row["score"], row["p_value"], row["threshold"])
    assert (one.latitude, one.longitude) == pytest.approx((row.geometry.centroid.y, row.geometry.centroid.x), abs=1e-6)
    assert (one.bands, one.parts) == ({"B02": 1.0}, {"texture": 0.25})
