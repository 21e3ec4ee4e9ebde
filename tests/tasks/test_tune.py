"""A trial: which dates it learns from, which judge it, and that injected anomalies are what counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from configs import Settings, SettingsError, load_settings
from imagery.inject import KINDS
from tasks.dataset import NothingToTrain, Split, split_scenes
from tasks.train import learning_tiles
from tasks.tune import Look, bench_settings, judging_scores, look, preset, trial_settings, tuning_split
from tests.places import Watched, place_settings
from tests.rasters import watch_settings
from vae.scores import find


def tuned_settings(place: Watched, **sections: dict[str, object]) -> Settings:
    """The settings of the place with a network, judged by what it does not reconstruct."""
    values: dict[str, dict[str, object]] = {
        "model": {"members": 1, "width": 4, "latent_channels": 2},
        "score": {"name": "aligned_difference", "without_past": "reconstruction"},
        "train": {"batch_size": 32},
        "injections": {"tiles": 8, "kinds": ("flood", "bare_soil", "haze")},
        "tune": {"held_out": 0.3, "min_dates": 2, "epochs": 2, "short_epochs": 1},
    }
    for section, entries in sections.items():
        values[section] = values.get(section, {}) | entries
    return place_settings(place.settings.source.root, **values)


def days(records: tuple[Any, ...]) -> set[Any]:
    return {record.day for record in records}


def looked(place: Watched, settings: Settings, params: dict[str, Any]) -> tuple[Look, Split]:
    bench = bench_settings(settings)
    split = tuning_split(bench, place.records)
    with learning_tiles(split, bench, place.workspace) as tiles:
        return look(trial_settings(bench, params), 1, tiles, split, place.workspace), split


@pytest.mark.parametrize(
    ("name", "without_past", "judging"),
    [
        ("change", "novelty", ("novelty",)),
        ("decoded_difference", "novelty", ("novelty", "decoded_difference")),
        ("decoded_difference", "rx", ("decoded_difference",)),
        ("novelty", "novelty", ("novelty",)),
    ],
)
def test_a_trial_is_judged_by_the_scores_that_the_network_decides(
    name: str, without_past: str, judging: tuple[str, ...]
) -> None:
    settings = watch_settings(Path("."), score={"name": name, "without_past": without_past})

    assert judging_scores(settings) == judging
    used = bench_settings(settings).score
    assert set(judging) <= set(used.names)
    assert used.also == ()
    assert any("past" in find(one).needs for one in used.names) == (name == "decoded_difference")


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"model": {"members": 0}}, "no network to tune"),
        ({"score": {"name": "change", "without_past": "rx"}}, r"neither score\.name \(change\) .* needs a network"),
        ({"score": {"without_past": "noveltie"}}, "Did you mean 'novelty'"),
        ({"injections": {"kinds": ("haze",)}}, "weather and faults only"),
        ({"injections": {"kinds": ("meteor",)}}, "unknown kind"),
    ],
)
def test_a_search_that_could_choose_nothing_is_refused(sections: dict[str, dict[str, Any]], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        judging_scores(watch_settings(Path("."), **sections))


def test_no_trial_learns_from_the_dates_that_judge_it_nor_sees_those_that_will_calibrate(place_once: Watched) -> None:
    settings = tuned_settings(place_once)
    whole, split = split_scenes(settings, place_once.records), tuning_split(settings, place_once.records)

    assert split.basis == "held_out"
    judging = days(split.calibration_scenes)
    assert judging <= days(whole.train)
    assert len(judging) == 2
    assert not judging & days(split.train + split.validation)
    assert days(split.train) | judging == days(whole.train)
    assert split.validation == whole.validation
    assert not days(split.scenes) & days(whole.calibrate)


def test_with_too_few_dates_the_validation_dates_judge(place_once: Watched) -> None:
    few = tuned_settings(place_once, tune={"min_dates": 5})
    split = tuning_split(few, place_once.records)

    assert split.basis == "validation"
    assert split.calibration_scenes == split_scenes(few, place_once.records).validation

    with pytest.raises(NothingToTrain, match=r"leaves 3 to judge trials by, tune\.min_dates asks for 5"):
        tuning_split(
            tuned_settings(place_once, tune={"min_dates": 5}, split={"validation_fraction": 0}), place_once.records
        )


def test_what_counts_is_the_mean_average_precision_of_injected_events(place_once: Watched) -> None:
    found, split = looked(place_once, tuned_settings(place_once), {})

    (table,) = found.tables.values()
    assert set(found.tables) == {"reconstruction"}
    assert table["kind"].tolist() == ["flood", "bare_soil", "haze"]
    events = [KINDS[kind].event for kind in table["kind"]]
    assert events == [True, True, False]
    assert found.value == pytest.approx(table["ap"][:2].mean())
    assert found.value != pytest.approx(table["ap"].mean())
    assert (table["tiles"] == 8).all()
    assert found.value > table["chance"].max()
    assert split.validation
    assert found.elbo is not None

    again, _ = looked(place_once, tuned_settings(place_once), {})
    assert again.value == found.value
    assert again.elbo == found.elbo


def test_a_score_of_change_that_needs_the_network_judges_as_well(place_once: Watched) -> None:
    found, _ = looked(place_once, tuned_settings(place_once, score={"name": "decoded_difference"}), {"train.beta": 2})

    assert set(found.tables) == {"reconstruction", "decoded_difference"}
    values = [table.loc[table["event"], "ap"].mean() for table in found.tables.values()]
    assert found.value == pytest.approx(sum(values) / 2)
    assert values[0] != values[1]


def test_a_place_into_which_nothing_can_be_injected_judges_no_trial(place_once: Watched) -> None:
    with pytest.raises(NothingToTrain, match=r"no event could be injected into the tiles \(slick: "):
        looked(place_once, tuned_settings(place_once, injections={"kinds": ("slick",)}), {})


def test_settings_of_a_trial_that_make_no_sense_together_are_refused_in_words() -> None:
    settings = watch_settings(Path("."), model={"depth": 2})

    assert trial_settings(settings, {"model.width": 8, "train.beta": 0.5}).train.beta == 0.5
    with pytest.raises(SettingsError, match=r"grid\.tile_size 16 cannot be halved model\.depth = 5 times"):
        trial_settings(settings, {"model.depth": 5})


def test_the_preset_is_the_watch_with_the_best_settings(tmp_path: Path) -> None:
    settings = watch_settings(tmp_path / "scenes", split={"train": {"end": "2020-06-01"}}, source={"location": "ș"})
    params = {"model.width": 24, "model.likelihood": "gaussian", "train.beta": 0.123456789}
    path = tmp_path / "elsewhere" / "tuned.yaml"
    path.parent.mkdir()

    path.write_text(preset(settings, params, ["One line.", "Another."]), encoding="utf-8")

    assert load_settings(path, environment={}) == trial_settings(settings, params)
    head = path.read_text().splitlines()
    assert head[:2] == ["# One line.", "# Another."]
    given = [one.strip() for one in head[2].removeprefix("# ").split("--set") if one.strip()]
    assert load_settings(None, given, {}).train.beta == 0.123456789
    assert "width: 24" in path.read_text(), "what is the default today is written as well"
