"""Champion and challenger: the frozen set, the comparison, and what follows from it."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime

import numpy as np
import pandas as pd
import pytest

from configs.schema import PromotionSettings, ScoreSettings
from tasks.calibrate import calibrate_detector
from tasks.challenge import Found, challenge, decide, expanded, paired_difference, ranks
from tasks.comparing import see
from tasks.frozen import FrozenSet, NothingToCompare, freeze
from tasks.injected import kinds_of
from tasks.intervals import Interval
from tasks.metrics import average_precision
from tasks.nights import NightRecord, write_night
from tasks.train import train_detector
from tests.places import CALIBRATE, TRAIN, Watched, day
from vae.detector import Detector

END = day(TRAIN + CALIBRATE - 1)  # last date that was checked for the training


@pytest.fixture(scope="module")
def worse(place_once: Watched) -> Detector:
    """A detector that does not look back."""
    score = ScoreSettings(name="rx", without_past="rx", also=())
    settings = place_once.settings.model_copy(update={"score": score})
    trained = train_detector(settings, place_once.workspace)
    return calibrate_detector(trained.detector, trained.split, settings, place_once.workspace).detector


def compared(place: Watched, champion: Detector, challenger: Detector, frozen: FrozenSet | None = None):
    detectors = champion, challenger
    frozen = frozen or freeze(detectors, END, place.settings, place.workspace)
    return challenge(frozen, ("v1", "v2"), detectors, None, place.settings, place.workspace)


def tell(place: Watched, *rows: tuple[str, str, str]) -> None:
    """Write verdicts: tile, scene, verdict."""
    table = pd.DataFrame(rows, columns=["tile_id", "scene_id", "verdict"]).assign(reviewed_at=datetime(2024, 1, 1))
    table.to_parquet(place.workspace.root / "verdicts.parquet")


# Which detector wins.


@pytest.mark.slow
def test_a_better_challenger_wins_and_a_worse_one_does_not(place_once: Watched, worse: Detector) -> None:
    won, _ = compared(place_once, worse, place_once.detector)
    lost, _ = compared(place_once, place_once.detector, worse)

    assert won.better
    assert won.words.startswith("v2 is better than v1.")
    assert won.difference.low > 0
    assert not lost.better
    assert lost.words.startswith("v2 is worse than v1: v1 goes on.")
    assert lost.difference.value == pytest.approx(-won.difference.value)
    assert won.difference.groups == CALIBRATE  # dates that trained neither of them
    assert "6 of these dates calibrated v1; 6 of these dates calibrated v2." in won.words
    assert set(won.kinds["kind"]) == {"flood", "bare_soil"}  # haze is nothing that is to be found


@pytest.mark.slow
def test_an_equal_challenger_does_not_win(place_once: Watched) -> None:
    found, _ = compared(place_once, place_once.detector, place_once.detector)

    assert (found.difference.value, found.difference.low, found.difference.high) == (0, 0, 0)
    assert not found.better
    assert "v2 is not shown to be better than v1: v1 goes on." in found.words


@pytest.mark.slow
def test_the_same_set_gives_the_same_comparison_to_the_bit(place_once: Watched, worse: Detector) -> None:
    detectors = worse, place_once.detector
    frozen = freeze(detectors, END, place_once.settings, place_once.workspace)
    first, tiles = compared(place_once, *detectors, frozen)
    again, same = compared(place_once, *detectors, FrozenSet.from_json(frozen.to_json()))

    assert FrozenSet.from_json(frozen.to_json()) == frozen
    pd.testing.assert_frame_equal(tiles.tiles, same.tiles, check_exact=True)
    assert (again.difference, again.words) == (first.difference, first.words)


@pytest.mark.slow
def test_a_location_that_a_detector_does_not_know_shows_it_nothing(place_once: Watched) -> None:
    elsewhere = replace(place_once.detector, metadata={**place_once.detector.metadata, "locations": ["there"]})
    frozen = freeze((elsewhere, place_once.detector), END, place_once.settings, place_once.workspace)
    seen = see(frozen, (elsewhere, place_once.detector), place_once.settings, place_once.workspace)

    assert (seen.tiles["p_value_0"] == 1).all()
    assert seen.clean[0] == 0 < seen.clean[1]
    assert compared(place_once, elsewhere, place_once.detector)[0].better


@pytest.mark.slow
def test_anomalies_are_put_in_at_falling_strength_and_the_weaker_are_missed(place_once: Watched) -> None:
    detectors = place_once.detector, place_once.detector
    frozen = freeze(detectors, END, place_once.settings, place_once.workspace)
    seen = see(frozen, detectors, place_once.settings, place_once.workspace)
    faint = replace(frozen, kinds={name: strength / 20 for name, strength in frozen.kinds.items()})
    fainter = see(faint, detectors, place_once.settings, place_once.workspace)

    def score(tiles: pd.DataFrame) -> float:
        return average_precision(ranks(tiles["p_value_0"], tiles["score_0"]), tiles["positive"])

    assert score(fainter.tiles) < score(seen.tiles)
    hosts = [scene.hosts for scene in frozen.scenes]
    assert all(len(one) == place_once.settings.promotion.tiles for one in hosts)
    # What stands untouched beside them is the same in both.
    clean = [one.tiles[one.tiles["kind"] == ""].reset_index(drop=True) for one in (seen, fainter)]
    pd.testing.assert_frame_equal(*clean)


# What the set is made of.


def test_the_set_holds_recent_dates_that_trained_neither(place_once: Watched) -> None:
    frozen = freeze((place_once.detector,), END, place_once.settings, place_once.workspace)

    assert [scene.scene_id for scene in frozen.scenes] == [
        f"here/{day(number)}" for number in range(TRAIN, TRAIN + CALIBRATE)
    ]
    assert "haze" in kinds_of(place_once.settings.injections)
    assert set(frozen.kinds) == {"flood", "bare_soil"}
    few = place_once.settings.model_copy(update={"promotion": PromotionSettings(dates=2)})
    latest = freeze((place_once.detector,), END, few, place_once.workspace)
    assert [scene.scene_id for scene in latest.scenes] == [f"here/{day(13)}", f"here/{day(14)}"]


def test_where_every_date_was_trained_on_such_dates_are_taken(place_once: Watched) -> None:
    days = [record.day.isoformat() for record in place_once.records]
    learned = {"training_dates": days, "validation_dates": [], "calibration_dates": []}
    detector = replace(place_once.detector, metadata={**place_once.detector.metadata, **learned})
    frozen = freeze((detector,), END, place_once.settings, place_once.workspace)
    assert [scene.scene_id for scene in frozen.scenes] == [f"here/{one}" for one in days[-8:]]


def test_a_later_scene_counts_once_its_night_was_reported(place: Watched) -> None:
    record = place.on_night(0)

    def latest() -> str:
        return freeze((place.detector,), END, place.settings, place.workspace).scenes[-1].scene_id

    assert latest() == f"here/{END}"
    counts = {"scenes": {}, "unknown": (), "quarantined": {}, "tiles": 49, "scored": 49, "flags": 0}
    state = {"alarmed": None, "drift_reasons": (), "drift_began": None}
    write_night(place.workspace, NightRecord(record.day, "v1", "", **counts, **state))
    assert latest() == record.scene_id


def test_verdicts_count_and_bad_data_do_not(place: Watched) -> None:
    last, before = f"here/{END}", f"here/{day(TRAIN + CALIBRATE - 2)}"
    tell(
        place,
        ("here-r00000-c00000", before, "anomaly"),
        ("here-r00000-c00000", last, "false alarm"),
        ("here-r00000-c00016", last, "bad data"),
        ("here-r00016-c00000", f"here/{day(0)}", "cloud or shadow"),
        ("here-r00016-c00000", "gone/2020-01-01", "anomaly"),
    )
    frozen = freeze((place.detector,), END, place.settings, place.workspace)
    seen = see(frozen, (place.detector, place.detector), place.settings, place.workspace)

    told = seen.tiles[seen.tiles["kind"] == "verdict"].set_index(["scene_id", "tile_id"])["positive"]
    assert told.to_dict() == {
        (before, "here-r00000-c00000"): True,
        (last, "here-r00000-c00000"): False,
        (f"here/{day(0)}", "here-r00016-c00000"): False,
    }
    scenes = {scene.scene_id: scene for scene in frozen.scenes}
    # A date on which somebody saw an anomaly is not clean, one that trained is there for its verdict alone.
    assert not scenes[before].clean
    assert not scenes[f"here/{day(0)}"].clean
    clean = seen.tiles[seen.tiles["kind"] == ""]
    assert set(clean["scene_id"]) == {scene for scene in scenes if scenes[scene].clean}
    assert "here-r00000-c00016" not in set(seen.tiles.loc[seen.tiles["scene_id"] == last, "tile_id"])


def test_without_anything_to_find_nothing_is_compared(place: Watched) -> None:
    weather = place.settings.injections.model_copy(update={"kinds": ("haze",)})
    settings = place.settings.model_copy(update={"injections": weather})
    with pytest.raises(NothingToCompare, match="nobody has seen an anomaly: let injections"):
        freeze((place.detector,), END, settings, place.workspace)
    tell(place, ("here-r00000-c00000", f"here/{END}", "anomaly"))
    assert freeze((place.detector,), END, settings, place.workspace).scenes[-1].verdicts


@pytest.mark.slow
def test_a_scene_that_has_changed_is_left_out_and_said(place_once: Watched) -> None:
    detectors = place_once.detector, place_once.detector
    frozen = freeze(detectors, END, place_once.settings, place_once.workspace)
    changed = replace(frozen.scenes[0], fingerprint="other")
    seen = see(
        replace(frozen, scenes=(changed, *frozen.scenes[1:])), detectors, place_once.settings, place_once.workspace
    )
    assert seen.unread == {changed.scene_id: "it is no longer in the catalog as it was"}
    assert changed.scene_id not in set(seen.tiles["scene_id"])


# The interval.


def test_average_precision_of_drawn_blocks_is_that_of_their_tiles_repeated() -> None:
    rng = np.random.default_rng(0)
    score, positive = rng.integers(0, 6, 60).astype(float), rng.random(60) < 0.4
    blocks = np.repeat(["a", "b"], 30)

    champion, challenger, difference = paired_difference(np.zeros(60), score, positive, blocks, 200, 0, 0.95)

    assert challenger == pytest.approx(average_precision(score, positive))
    assert champion == pytest.approx(positive.mean())  # all alike: a random order
    rows = [np.tile(np.flatnonzero(blocks == "a"), 2), np.arange(60), np.tile(np.flatnonzero(blocks == "b"), 2)]
    possible = [average_precision(score[one], positive[one]) - positive[one].mean() for one in rows]
    assert (difference.low, difference.high) == pytest.approx((min(possible), max(possible)))


@pytest.mark.slow
def test_the_interval_covers_the_difference_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)

    def draw(blocks: int) -> tuple[np.ndarray, ...]:
        """Tiles that two detectors rank alike on average, each better on some dates than on others."""
        block, positive = np.repeat(np.arange(blocks), 40), np.tile(np.arange(40) < 12, blocks)
        lift = 1.5 + 0.5 * rng.standard_normal((2, blocks))[:, block]
        return (*(positive * lift + rng.standard_normal((2, len(block)))), positive, block)

    covered = sum(
        found.low <= 0 <= found.high
        for found in (paired_difference(*draw(8), 200, seed, 0.95)[2] for seed in range(150))
    )
    assert covered / 150 >= 0.9


def test_an_interval_of_few_blocks_is_widened_as_a_t_interval_is() -> None:
    assert expanded(0.95, 8) == pytest.approx(0.9885, abs=1e-3)  # 2.365 * (8/7) ** .5 standard deviations
    assert expanded(0.95, 10_000) == pytest.approx(0.95, abs=1e-3)


def test_tiles_with_the_smallest_p_value_are_ranked_by_score() -> None:
    found = ranks(pd.Series([0.1, 0.01, 0.01, 1.0, 0.01]), pd.Series([9.0, 3.0, 5.0, 0.0, 3.0]))
    assert found.tolist() == [-2, -1, 0, -3, -1]


# What follows.

OLD, NEW = Found("v1", 0.8, 1000, 10, 0.01), Found("v2", 0.8, 1000, 10, 0.01)
EQUAL, WORSE = Interval(0.0, -0.02, 0.02, 24), Interval(-0.1, -0.15, -0.05, 24)
BETTER = Interval(0.1, 0.05, 0.15, 24)
DRIFT = date(2024, 5, 1)


@pytest.mark.parametrize(
    ("champion", "challenger", "difference", "settings", "drifting", "better", "words"),
    [
        (OLD, NEW, BETTER, {}, None, True, "v2 is better than v1"),
        (OLD, NEW, EQUAL, {}, None, False, "not shown to be better"),
        (OLD, NEW, WORSE, {}, None, False, "v2 is worse than v1"),
        (OLD, NEW, EQUAL, {"margin": 0.05}, None, True, "not worse than v1 by more than promotion.margin = 0.05"),
        (OLD, replace(NEW, flagged=40), BETTER, {}, None, False, "more than 3 times as many clean tiles"),
        (OLD, replace(NEW, flagged=40), BETTER, {"most_false_alarms": 5}, None, True, "better"),
        # One flag among ten clean tiles is more than three times 1 %, and chance.
        (OLD, replace(NEW, clean=10, flagged=1), BETTER, {}, None, True, "better"),
        (OLD, NEW, replace(BETTER, groups=3), {}, None, False, "3 blocks of location and date are too few"),
        (OLD, NEW, Interval(0.1, float("nan"), float("nan"), 1), {}, None, False, "too few"),
        (replace(OLD, flagged=500), NEW, EQUAL, {}, None, True, "v1 now flags more than 3 times"),
        (replace(OLD, flagged=500), NEW, WORSE, {}, None, False, "worse"),
        # Both flag what is probably an event that nobody has looked at yet.
        (replace(OLD, flagged=75), replace(NEW, flagged=79), EQUAL, {}, None, False, "not shown to be better"),
        (replace(OLD, flagged=75), replace(NEW, flagged=79), EQUAL, {}, DRIFT, True, "in drift since 2024-05-01"),
        (replace(OLD, flagged=75), replace(NEW, flagged=79), BETTER, {}, None, True, "v2 is better"),
        (replace(OLD, flagged=75), replace(NEW, flagged=150), EQUAL, {}, DRIFT, False, "and more than it"),
        (OLD, NEW, EQUAL, {}, DRIFT, True, "in drift since 2024-05-01"),
        (OLD, NEW, WORSE, {}, DRIFT, False, "worse"),
        (OLD, NEW, replace(WORSE, groups=2), {}, DRIFT, False, "too few"),
        (OLD, NEW, EQUAL, {"in_drift": "better"}, DRIFT, False, "not shown to be better"),
    ],
)
def test_what_follows_from_a_comparison(
    champion: Found,
    challenger: Found,
    difference: Interval,
    settings: dict[str, object],
    drifting: date | None,
    better: bool,
    words: str,
) -> None:
    found, why = decide(champion, challenger, difference, PromotionSettings(**settings), drifting)
    assert found == better
    assert words in why
