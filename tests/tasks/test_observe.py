"""A scene meets a detector in one way: registered, beside its past where that is trusted, by statistics of its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from imagery.catalog import SceneRecord
from tasks.observe import OpenScene, observe, opened
from tasks.reference import Usual, usual_of
from tests.places import NIGHT, SIDE, TILES, Watched
from tests.rasters import whole
from vae.detector import Detector

FEWEST_PIXELS = 200  # that a scene has statistics of


def known_usual(place: Watched, record: SceneRecord) -> Usual:
    found = usual_of(record, place.settings, place.workspace)
    assert found is not None
    return found


def kinds(detector: Detector, scene: OpenScene) -> list[str]:
    """By which score each tile is judged."""
    return [kind for _, scores in observe(detector, scene, None) for kind in scores.kind]


def test_a_scene_is_looked_at_beside_its_past_when_that_is_trusted(place: Watched) -> None:
    record = place.on_night(gain=1.1)
    usual = known_usual(place, record)

    with opened(record, place.detector, usual, place.settings, place.workspace) as scene:
        assert scene.past is not None
        assert kinds(place.detector, scene) == ["aligned_difference"] * TILES


def test_a_scene_that_the_past_does_not_explain_is_looked_at_alone(place: Watched) -> None:
    record = place.on_night(flipped=True)
    usual = known_usual(place, record)
    assert usual.expectation.reason is not None

    with opened(record, place.detector, usual, place.settings, place.workspace) as scene:
        assert scene.past is None
        assert kinds(place.detector, scene) == ["rx"] * TILES


def test_the_first_scene_of_a_place_is_looked_at_alone(place_once: Watched) -> None:
    record = place_once.records[0]
    assert usual_of(record, place_once.settings, place_once.workspace) is None

    with opened(record, place_once.detector, None, place_once.settings, place_once.workspace) as scene:
        assert kinds(place_once.detector, scene) == ["rx"] * TILES


def test_a_detector_that_does_not_look_back_is_shown_no_past_but_the_scene_where_it_belongs(place: Watched) -> None:
    record = place.on_night(rows=2, cols=-1)
    usual = known_usual(place, record)
    assert usual.alignment.registration.correction == (2.0, -1.0)
    alone = place.detector.score_settings.model_copy(update={"name": "rx"})
    detector = replace(place.detector, score_settings=alone, calibrations={})
    before = place.records[-1]

    with (
        opened(record, detector, usual, place.settings, place.workspace) as scene,
        opened(before, detector, None, place.settings, place.workspace) as like,
    ):
        assert scene.past is None
        assert kinds(detector, scene) == ["rx"] * TILES
        seen, earlier = (one.reader.read(whole(one.grid)) for one in (scene, like))
    inside = np.s_[2:-2, 2:-2]
    agreement = np.corrcoef(seen.values[0][inside].ravel(), earlier.values[0][inside].ravel())[0, 1]
    assert agreement > 0.99


def test_the_statistics_of_a_scene_are_of_its_own_usable_pixels(place: Watched) -> None:
    record = place.on_night(gain=1.3, offset=150, clouded=40)

    with opened(record, place.detector, None, place.settings, place.workspace) as scene:
        pixels = scene.reader.read(whole(scene.grid))
        assert scene.stats is not None
    usable = torch.from_numpy(pixels.values[:, pixels.valid][None, :, :, None])
    x = place.detector.normalisation.apply(usable)[0, :, :, 0].double()
    torch.testing.assert_close(scene.stats.mean.double(), x.mean(dim=1), rtol=0, atol=1e-5)
    covariance = torch.linalg.inv(scene.stats.precision.double())
    torch.testing.assert_close(covariance, torch.cov(x, correction=0), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("clear", "known"), [(FEWEST_PIXELS // SIDE - 1, False), (FEWEST_PIXELS // SIDE, True)])
def test_too_few_usable_pixels_give_no_statistics(place: Watched, clear: int, known: bool) -> None:
    record = place.on_night(clouded=SIDE - clear)

    with opened(record, place.detector, None, place.settings, place.workspace) as scene:
        assert (scene.stats is not None) is known


def test_a_tile_that_is_observed_alone_scores_as_it_does_among_all(place: Watched) -> None:
    record = place.on_night()
    usual = known_usual(place, record)
    wanted = {(32, 48), (96, 0)}

    def scores(only: set[tuple[int, int]] | None) -> dict[tuple[int, int], tuple[float, bytes]]:
        with opened(record, place.detector, usual, place.settings, place.workspace) as scene:
            return {
                (tile.row_off, tile.col_off): (score, heat.tobytes())
                for batch, found in observe(place.detector, scene, None, only)
                for tile, score, heat in zip(batch.tiles, found.score, found.heatmap, strict=True)
            }

    some, every = scores(wanted), scores(None)
    assert set(some) == wanted
    assert some == {tile: every[tile] for tile in wanted}


def test_observing_reads_what_was_there_before_the_night_only(place: Watched) -> None:
    record = place.on_night()
    usual = known_usual(place, record)

    assert record.day == NIGHT
    assert all(member.scene_id < record.scene_id for member in usual.expectation.members)
