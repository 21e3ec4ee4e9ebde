"""Settings that do not fit together are refused before any work starts."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from configs import Period, Settings
from configs.schema import GridSettings, SourceSettings

DAYS = st.dates(date(2000, 1, 1), date(2030, 1, 1))


@given(start=st.none() | DAYS, end=st.none() | DAYS, day=DAYS)
def test_a_period_holds_both_its_ends_and_an_open_end_holds_everything(
    start: date | None, end: date | None, day: date
) -> None:
    if start and end and start > end:
        with pytest.raises(ValidationError, match=r"starts .* after it ends"):
            Period(start=start, end=end)
        return
    period = Period(start=start, end=end)

    inside = (start or date.min) <= day <= (end or date.max)
    assert (day in period) == inside
    assert start is None or start in period
    assert end is None or end in period
    assert end is None or end + timedelta(days=1) not in period


@pytest.mark.parametrize(("size", "depth", "fits"), [(64, 3, True), (20, 2, True), (20, 3, False), (8, 4, False)])
def test_a_tile_must_be_halved_as_often_as_the_network_does(size: int, depth: int, fits: bool) -> None:
    values = {"grid": {"tile_size": size}, "model": {"depth": depth}}
    if fits:
        assert Settings.model_validate(values).grid.tile_size == size
        return
    with pytest.raises(ValidationError, match=rf"tile_size {size} .* multiple of {2**depth}"):
        Settings.model_validate(values)


@pytest.mark.parametrize(("size", "stride"), [(64, None), (64, 64), (64, 32), (16, 17), (64, 128)])
def test_tiles_may_overlap_but_leave_no_gaps(size: int, stride: int | None) -> None:
    if stride is None or stride <= size:
        assert GridSettings(tile_size=size, stride=stride).stride == stride
        return
    with pytest.raises(ValidationError, match=rf"stride of {stride} leaves gaps .* use at most {size}"):
        GridSettings(tile_size=size, stride=stride)


def test_a_pattern_without_a_location_needs_one_in_the_settings() -> None:
    with pytest.raises(ValidationError, match=r"set source\.location"):
        SourceSettings(pattern="{date:%Y-%m-%d}.tif")

    assert SourceSettings(pattern="{date:%Y-%m-%d}.tif", location="romania").location == "romania"


def test_settings_cannot_be_changed_once_they_are_read() -> None:
    settings = Settings()

    with pytest.raises(ValidationError, match="frozen"):
        settings.train.epochs = 5  # type: ignore[misc]


def test_settings_survive_the_way_through_json() -> None:
    settings = Settings.model_validate({"split": {"train": {"end": "2020-01-01"}}, "source": {"location": "here"}})

    assert Settings.model_validate_json(settings.model_dump_json()) == settings


def test_a_network_that_is_not_there_is_told_nothing() -> None:
    with pytest.raises(ValidationError, match=r"model\.condition is season, and model\.members is 0"):
        Settings.model_validate({"model": {"members": 0, "condition": ["season"]}, "score": {"name": "rx"}})


@pytest.mark.parametrize("block", ["slack", "slack-webhook/", "/mornings", "a/b/c"])
def test_a_block_to_tell_is_named_by_its_type_and_name(block: str) -> None:
    with pytest.raises(ValidationError, match=r"notify\.blocks names .*: write type/name"):
        Settings.model_validate({"notify": {"blocks": [block]}})
