"""When a network is looked at while it is trained, through which tiles, and that it learns the same for it."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import numpy as np
import pytest
import torch

from configs import Settings
from tasks.dataset import gathered, scenes_of_tiles
from tasks.diagnosing import groups_of
from tasks.train import Trained, train_detector
from tests.catalogs import scene_record
from tests.places import TILES, Watched, place_settings
from vae.diagnostics import Diagnosis

SMALL = {"members": 2, "width": 4, "depth": 2, "latent_channels": 2}


def settings_of(place: Watched, held_out: float = 0.3, **train: object) -> Settings:
    return place_settings(
        place.settings.source.root,
        model=SMALL,
        train={"epochs": 5, "batch_size": 64, "device": "cpu", "max_tiles": 200} | train,
        split={"validation_fraction": held_out},
    )


def trained(place: Watched, settings: Settings) -> tuple[Trained, list[tuple[Diagnosis, int, bool]]]:
    """What came of it, and each diagnosis on the way."""
    told: list[tuple[Diagnosis, int, bool]] = []
    made = train_detector(settings, place.workspace, on_diagnosis=lambda *found: told.append(found))
    return made, told


def test_the_first_network_is_looked_at_every_so_many_epochs_and_at_the_end(place: Watched) -> None:
    made, told = trained(place, settings_of(place, diagnose_every=2))

    best = made.fitted[0].best_epoch
    assert [(epoch, final) for _, epoch, final in told] == [(2, False), (4, False), (best, True)]
    held_out = len({record.day for record in made.split.validation})
    assert {diagnosis.tiles for diagnosis, _, _ in told} == {min(held_out * TILES, 200 // 4)}
    assert told[0][0].elbo != told[1][0].elbo
    assert made.fitted[0].history[1].elbo_held_out == pytest.approx(told[0][0].elbo, abs=0.1)


def test_looking_changes_nothing_that_is_learned(place: Watched) -> None:
    looked, told = trained(place, settings_of(place, diagnose_every=1))
    left_alone = train_detector(settings_of(place, diagnose_every=0), place.workspace)

    assert len(told) == 6
    for one, other in zip(looked.fitted, left_alone.fitted, strict=True):
        weights = other.network.state_dict()
        assert all(torch.equal(tensor, weights[name]) for name, tensor in one.network.state_dict().items())


def test_a_diagnosis_that_fails_stops_no_training(place: Watched, caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no room for figures")

    with caplog.at_level(logging.WARNING):
        made = train_detector(settings_of(place, diagnose_every=4), place.workspace, on_diagnosis=broken)

    assert len(made.fitted[0].history) == 5
    failures = [record for record in caplog.records if "the diagnosis after epoch" in record.message]
    assert len(failures) == 2  # on the way, and at the end
    assert all("no room for figures" in str(record.exc_info) for record in failures)


def test_without_held_out_dates_it_is_looked_at_through_what_it_learned_from_and_the_log_says_so(
    place: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        _, told = trained(place, settings_of(place, held_out=0.0, diagnose_every=0, epochs=1))
    assert [final for _, _, final in told] == [True]
    assert told[0][0].tiles == 200
    assert "the network is diagnosed on training tiles" in caplog.text


def test_without_a_network_there_is_nothing_to_look_at(place_once: Watched) -> None:
    assert trained(place_once, place_once.settings)[1] == []


def test_the_scene_of_each_tile_is_known(place_once: Watched) -> None:
    scenes, settings, workspace = place_once.split.train, place_once.settings, place_once.workspace
    records = scenes_of_tiles(scenes, settings, workspace, 40)
    with gathered(scenes, settings, workspace, 40) as tiles:
        found = tiles.physical(np.arange(40))
    own = {}
    for record in scenes:
        with gathered((record,), settings, workspace, None) as tiles:
            own[record.scene_id] = {tile.tobytes() for tile in tiles.physical(np.arange(len(tiles)))}
    assert len({record.scene_id for record in records}) > 5
    assert all(tile.tobytes() in own[record.scene_id] for tile, record in zip(found, records, strict=True))


def test_tiles_are_grouped_by_location_or_where_there_is_one_by_season() -> None:
    dates = [datetime(2020, month, 3, tzinfo=UTC) for month in (12, 1, 3, 7, 11)]
    records = [scene_record(acquired=day) for day in dates]
    winter, spring, summer, autumn = (
        "December to February",
        "March to May",
        "June to August",
        "September to November",
    )
    assert groups_of(records) == (winter, winter, spring, summer, autumn)

    assert groups_of([scene_record("here"), scene_record("there")]) == ("here", "there")
