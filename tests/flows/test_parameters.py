"""What the forms of the Prefect UI send, and what becomes of it."""

from __future__ import annotations

from datetime import date

import pytest
from pydantic import ValidationError

from configs import Settings, SettingsError
from flows.parameters import TrainRequest


def test_an_empty_form_changes_nothing():
    settings = Settings()

    assert TrainRequest().apply(settings) == settings


def test_each_field_takes_the_place_of_its_setting():
    request = TrainRequest(
        train_end=date(2024, 12, 31), epochs=7, false_alarm_rate=0.02, seed=3, promotion="asked", device="cpu"
    )

    found = request.apply(Settings())

    assert found.split.train.end == date(2024, 12, 31)
    assert (found.train.epochs, found.calibration.false_alarm_rate, found.seed) == (7, 0.02, 3)
    assert (found.promotion.when, found.train.device) == ("asked", "cpu")


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"false_alarm_rate": 1},
        {"promotion": "never"},
        {"device": "tpu"},
        {"drift": "yesterday"},
        {"epoch": 3},
        {"train_start": "2025-01-02", "train_end": "2025-01-01"},
    ],
)
def test_a_wrong_value_is_refused(wrong: dict[str, object]):
    with pytest.raises((ValidationError, SettingsError)):
        TrainRequest.model_validate(wrong)
