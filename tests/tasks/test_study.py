"""The search itself, without any training: what it suggests, what survives a kill, what is given up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from optuna.trial import Trial

from configs import Settings
from configs.schema import TuneSettings
from tasks.study import Study, history_figure, importance_figure, study_name

SPACE = {
    "model": {"width": [8, 16], "latent_channels": {"low": 2, "high": 64, "log": True}},
    "train": {"beta": {"low": 0.1, "high": 10, "log": True}},
}


def tuning(**values: Any) -> TuneSettings:
    return TuneSettings.model_validate({"space": SPACE, "startup": 3} | values)


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., Study]:
    """Opens a search, as a new process would."""

    def open_(file: str = "tuning.db", seed: int = 0, **values: Any) -> Study:
        return Study(tmp_path / file, "search", tuning(**values), seed)

    return open_


def worth(trial: Trial) -> float:
    """What a trial finds: most with a β near 1, whatever else."""
    return 1 / (1 + abs(trial.params["train.beta"] - 1)) + trial.params["model.latent_channels"] * 1e-6


def go_on(study: Study, until: int) -> list[dict[str, Any]]:
    """Do trials until so many are done; what was suggested for them."""
    suggested = []
    while study.done < until:
        trial = study.ask()
        suggested.append(dict(trial.params))
        study.finish(trial, worth(trial))
    return suggested


def test_suggestions_lie_in_the_space_and_depend_on_the_seed_alone(opened: Callable[..., Study]) -> None:
    first = go_on(opened("a.db"), 6)

    assert go_on(opened("b.db"), 6) == first
    assert go_on(opened("c.db", seed=1), 3) != first[:3]
    for params in first:
        assert set(params) == {"model.width", "model.latent_channels", "train.beta"}
        assert params["model.width"] in (8, 16)
        assert isinstance(params["model.latent_channels"], int)
        assert 2 <= params["model.latent_channels"] <= 64
        assert 0.1 <= params["train.beta"] <= 10
    assert len({params["train.beta"] for params in first}) == 6


@pytest.mark.parametrize("cut", [2, 4])
def test_a_search_that_was_killed_suggests_what_an_undisturbed_one_does(opened: Callable[..., Study], cut: int) -> None:
    undisturbed = go_on(opened("a.db"), 6)
    before = opened("b.db")
    found = go_on(before, cut)
    before.ask()  # and the process ends

    after = opened("b.db")
    found += go_on(after, 6)

    assert found == undisturbed
    assert after.table()["state"].tolist().count("fail") == 1
    assert after.done == 6


def test_a_trial_that_ends_its_process_is_done_again_once_and_then_left_out(opened: Callable[..., Study]) -> None:
    first = opened().ask().params
    second = opened().ask().params
    third = opened().ask().params

    assert second == first
    assert third != first
    assert opened().table()["state"].tolist()[:2] == ["fail", "fail"]
    assert opened().table()["reason"].tolist()[0] == "its process ended"


def test_a_trial_that_was_stopped_by_hand_is_done_again_however_often(opened: Callable[..., Study]) -> None:
    first = None
    for _ in range(3):
        study = opened()
        trial = study.ask()
        first = first or trial.params
        assert trial.params == first
        study.stop()
        assert study.table()["reason"].tolist()[-1] == "stopped by Ctrl-C"

    assert go_on(opened(), 1) == [first]
    assert go_on(opened(), 1) == []


def test_a_search_begins_with_the_settings_of_the_watch_where_its_space_holds_them(
    opened: Callable[..., Study],
) -> None:
    inside = Settings.model_validate({"model": {"width": 16}})
    study = opened("a.db")
    study.begin_with(inside)
    study.begin_with(inside)  # not twice
    assert go_on(study, 2)[0] == {"model.width": 16, "model.latent_channels": 16, "train.beta": 1.0}
    assert study.as_configured == pytest.approx(1, abs=1e-4)

    outside = opened("b.db")
    outside.begin_with(Settings())  # of width 24
    go_on(outside, 2)
    assert outside.as_configured is None


def test_the_settings_of_the_watch_are_known_again_when_their_trial_was_killed(opened: Callable[..., Study]) -> None:
    study = opened()
    study.begin_with(Settings.model_validate({"model": {"width": 16}}))
    study.ask()

    again = opened()
    go_on(again, 1)

    assert again.as_configured is not None


def test_the_best_is_the_finished_trial_that_found_most(opened: Callable[..., Study]) -> None:
    study = opened()
    assert study.best is None
    for value in (0.3, 0.7, 0.7, 0.5):
        study.finish(study.ask(), value)
    study.prune(study.ask(), "senseless")

    assert study.best is not None
    assert (study.best.number, study.best.value) == (1, 0.7)
    assert study.done == 5
    table = study.table()
    assert table["state"].tolist() == ["finished"] * 4 + ["pruned"]
    assert table["reason"].tolist() == ["", "", "", "", "senseless"]


def test_a_trial_is_given_up_below_the_median_and_not_before_enough_were_finished(opened: Callable[..., Study]) -> None:
    study = opened()
    given_up = []
    for value in (0.5, 0.1, 0.6, 0.2, 0.7):
        trial = study.ask()
        trial.report(value, 1)
        given_up.append(trial.should_prune())
        study.finish(trial, value)

    assert given_up == [False, False, False, True, False]


def test_what_a_result_depends_on_is_found(opened: Callable[..., Study]) -> None:
    study = opened()
    go_on(study, 3)
    assert study.importance() == {}
    go_on(study, 12)

    importance = study.importance()

    assert next(iter(importance)) == "train.beta"
    assert sum(importance.values()) == pytest.approx(1)
    assert [label.get_text() for label in importance_figure(importance).axes[0].get_yticklabels()][-1] == "train.beta"


def test_the_figure_of_a_search_shows_the_best_so_far() -> None:
    table = pd.DataFrame(
        {
            "trial": [0, 1, 2, 3],
            "state": ["finished", "pruned", "finished", "finished"],
            "value": [0.4, None, 0.3, 0.6],
            "after_short_epochs": [0.3, 0.1, 0.2, 0.5],
        }
    )

    lines = {line.get_label(): line for line in history_figure(table).axes[0].lines}

    assert list(lines["best"].get_ydata()) == [0.4, 0.4, 0.6]
    assert list(lines["given up"].get_ydata()) == [0.1]
    assert history_figure(table[:0]).axes[0].lines


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"tune": {"trials": 99, "timeout": 5}}, True),
        ({"compute": {"workers": 7}}, True),
        ({"source": {"root": "elsewhere", "location": "here"}}, True),
        ({"tune": {"epochs": 99}}, False),
        ({"tune": {"space": SPACE}}, False),
        ({"model": {"width": 8}}, False),
        ({"seed": 1}, False),
        ({"injections": {"tiles": 7}}, False),
    ],
)
def test_a_search_goes_on_as_long_as_its_trials_would_come_to_the_same(changes: dict[str, Any], same: bool) -> None:
    changed = study_name(Settings.model_validate(changes), "data")
    assert (changed == study_name(Settings(), "data")) is same
    assert study_name(Settings(), "other data") != study_name(Settings(), "data")
