"""The smoke alarm says what a detector finds, what it would miss, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import SettingsError
from configs.schema import InjectionSettings
from imagery.inject import KINDS
from tasks.injected import HeldOut, Judge, Judged, NothingToInject, SmokeAlarm, recall_figure, smoke_alarm
from tests.imagery.inject.grounds import TEN, tile

SETTINGS = InjectionSettings(tiles=8)
Reference = np.ndarray


def held_out(count: int = 24, lakes: int = 6) -> list[HeldOut[Reference]]:
    """Tiles of several dates with their references; some are lakes."""
    tiles = []
    for number in range(count):
        lake = 1.0 if number < lakes else 0.0
        before, after = (tile(seed, lake=lake, bare=0.2)[0] for seed in (number, 1000 + number))
        key = f"there-r{number}-c0/2020-06-0{number % 4 + 1}"
        valid = np.isfinite(before).all(axis=0) & np.isfinite(after).all(axis=0)
        tiles.append(HeldOut(key, f"there-r{number}-c0", f"2020-06-0{number % 4 + 1}", after, valid, before))
    return tiles


def seeing(bands: Sequence[str] = TEN, threshold: float = 0.08) -> Judge[Reference]:
    """A detector with eyes for some bands: the 90th percentile of the largest difference to the reference."""
    channels = [TEN.index(band) for band in bands]

    def judge(values: np.ndarray, valid: np.ndarray, tiles: Sequence[HeldOut[Reference]]) -> Judged:
        before = np.stack([one.context for one in tiles])
        away = np.abs(values - before)[:, channels].max(axis=1)
        score = np.array([np.percentile(one[good], 90) for one, good in zip(away, valid, strict=True)])
        return Judged(score, score > threshold)

    return judge


def row(alarm: SmokeAlarm, kind: str) -> dict[str, object]:
    return alarm.table.set_index("kind").loc[kind].to_dict()


def test_every_kind_is_tried_and_a_seeing_detector_finds_what_is_strong() -> None:
    alarm = smoke_alarm(held_out(), seeing(), TEN, SETTINGS)

    assert list(alarm.table["kind"]) == list(KINDS)
    assert dict(zip(alarm.table["kind"], alarm.table["event"], strict=True)) == {
        name: kind.event for name, kind in KINDS.items()
    }
    assert alarm.untouched == 24
    assert alarm.false_alarms < 0.1
    for kind in ("burn", "flood", "vegetation_loss", "bare_soil"):
        assert row(alarm, kind)["recall"] == 1
        assert row(alarm, kind)["ap"] > 0.95
        assert row(alarm, kind)["chance"] == pytest.approx(8 / 32)
    assert not any("floods" in line for line in alarm.warnings)
    assert 0.5 < alarm.mean_ap <= 1


def test_what_a_detector_would_miss_is_said_in_words_the_most_missed_first() -> None:
    infrared_blind = smoke_alarm(held_out(), seeing(["B02", "B03"], 0.06), TEN, SETTINGS)

    assert "this detector would miss burns: 0% of 8 injected are flagged" in infrared_blind.warnings
    assert not any("haze" in line or "stripes" in line for line in infrared_blind.warnings)  # nothing happened there
    recalls = infrared_blind.table.set_index("kind")["recall"]
    assert recalls["bare_soil"] > recalls["burn"]

    silent = smoke_alarm(held_out(), seeing(threshold=9.0), TEN, SETTINGS)
    assert len(silent.warnings) == sum(kind.event for kind in KINDS.values())
    assert smoke_alarm(held_out(), seeing(threshold=9.0), TEN, replace_settings(warn_below=0.0)).warnings == []


def replace_settings(**values: object) -> InjectionSettings:
    return SETTINGS.model_copy(update=values)


def test_what_fits_few_tiles_is_tried_on_those_and_said() -> None:
    alarm = smoke_alarm(held_out(lakes=3), seeing(), TEN, replace_settings(kinds=("slick", "burn")))

    assert row(alarm, "slick")["tiles"] == 3
    assert "slick needs" in str(row(alarm, "slick")["note"])
    assert row(alarm, "burn")["note"] == ""

    dry = smoke_alarm(held_out(lakes=0), seeing(), TEN, replace_settings(kinds=("slick",)))
    assert row(dry, "slick")["tiles"] == 0
    assert np.isnan(row(dry, "slick")["recall"])
    assert dry.warnings == []


@settings(max_examples=3)
@given(order=st.permutations(range(24)), seed=st.integers(0, 10))
def test_the_order_of_the_tiles_changes_nothing(order: list[int], seed: int) -> None:
    tiles = held_out()
    few = replace_settings(tiles=5, kinds=("burn", "patch", "stripes"))
    once = smoke_alarm(tiles, seeing(), TEN, few, seed)
    again = smoke_alarm((tiles[place] for place in order), seeing(), TEN, few, seed)

    assert once.table.equals(again.table)
    assert once.false_alarms == again.false_alarms


def test_a_tile_without_a_score_counts_neither_as_found_nor_as_missed() -> None:
    def half_blind(values: np.ndarray, valid: np.ndarray, tiles: Sequence[HeldOut[Reference]]) -> Judged:
        found = seeing()(values, valid, tiles)
        unseen = np.array([int(one.place.split("-r")[1].split("-")[0]) % 2 == 0 for one in tiles])
        return Judged(np.where(unseen, np.nan, found.score), found.flagged & ~unseen)

    alarm = smoke_alarm(held_out(), half_blind, TEN, replace_settings(kinds=("burn",)))

    assert 0 < row(alarm, "burn")["tiles"] < 8
    assert row(alarm, "burn")["recall"] == 1
    assert alarm.untouched == 12


def test_an_interval_holds_its_value_and_comes_of_the_dates() -> None:
    faint = replace_settings(kinds=("vegetation_thinning",), strengths={"vegetation_thinning": 0.2})
    alarm = smoke_alarm(held_out(), seeing(threshold=0.058), TEN, faint)
    found = row(alarm, "vegetation_thinning")
    assert found["recall_low"] <= found["recall"] <= found["recall_high"]
    assert 0 < found["recall"] < 1
    assert found["ap_low"] < found["ap"] < found["ap_high"]

    one_date = [replace(one, group="2020-06-01") for one in held_out()]
    alone = smoke_alarm(one_date, seeing(), TEN, replace_settings(kinds=("burn",)))
    assert np.isnan(row(alone, "burn")["recall_low"])  # one date says nothing of others


def test_a_strength_is_that_of_the_settings() -> None:
    faint = replace_settings(kinds=("vegetation_loss", "burn"), strengths={"vegetation_loss": 0.02})
    alarm = smoke_alarm(held_out(), seeing(), TEN, faint)

    assert row(alarm, "vegetation_loss")["strength"] == 0.02
    assert row(alarm, "vegetation_loss")["recall"] < row(alarm, "burn")["recall"]


def test_a_patch_needs_tiles_of_two_places() -> None:
    one_place = [replace(one, place="there-r0-c0") for one in held_out()]
    alarm = smoke_alarm(one_place, seeing(), TEN, replace_settings(kinds=("patch",)))
    assert row(alarm, "patch")["tiles"] == 0
    assert row(alarm, "patch")["note"] == "a patch needs a donor: the values of another tile"


@pytest.mark.parametrize("values", [{"kinds": ("meteor",)}, {"strengths": {"meteor": 0.5}}])
def test_an_unknown_kind_is_refused_with_those_there_are(values: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match=r"unknown kind\(s\) meteor: there are stripes, .*burn"):
        smoke_alarm(held_out(), seeing(), TEN, replace_settings(**values))


def test_without_a_tile_there_is_nothing_to_say() -> None:
    with pytest.raises(NothingToInject, match="no held-out tile"):
        smoke_alarm([], seeing(), TEN, SETTINGS)


def test_the_figure_shows_every_kind_that_was_tried() -> None:
    alarm = smoke_alarm(held_out(lakes=0), seeing(), TEN, SETTINGS)
    figure = recall_figure(alarm)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]

    assert len(labels) == len(KINDS) - 1
    assert "burn, strength 0.85, 8 tiles" in labels
    assert not any(label.startswith("slick") for label in labels)
    figure.savefig(BytesIO(), format="png")
